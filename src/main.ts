#!/usr/bin/env node
import * as nodeModule from "node:module"

/** What the bundler found to be the answer whatever the surroundings: help and version, by their arguments. */
declare const DREAM_TEAM_ANSWERS: Readonly<Record<string, string>> | undefined

const args = process.argv.slice(2)
const answer = typeof DREAM_TEAM_ANSWERS === "undefined" ? undefined : DREAM_TEAM_ANSWERS[args.join(" ")]
if (answer !== undefined) {
  process.stdout.on("error", () => process.exit())
  process.stdout.write(`${answer}\n`)
} else {
  // Newer versions of Node keep compiled code on disk, which halves the time to start.
  if ("enableCompileCache" in nodeModule && typeof nodeModule.enableCompileCache === "function") {
    nodeModule.enableCompileCache()
  }
  const { execute } = await import("./Cli/Process.js")
  execute(args)
}
