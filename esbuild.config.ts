import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join, relative, resolve } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { type BuildOptions, build } from "esbuild"
import { answers } from "./src/Cli.js"

const root = fileURLToPath(new URL(".", import.meta.url))

const common = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node20",
  minify: true,
  legalComments: "none",
  metafile: true,
  write: false,
  logLevel: "warning",
  external: ["better-sqlite3", "@parcel/watcher", "msgpackr-extract"],
  // Bundled CommonJS packages (undici, ws) call `require` for Node's own modules.
  banner: {
    js: 'import{createRequire as __dreamTeamCreateRequire}from"node:module";const require=__dreamTeamCreateRequire(import.meta.url);'
  }
} as const satisfies BuildOptions

/**
 * Bundles the command line program and the feed into `outdir`. Importing Effect unbundled costs a second and more at
 * every start; splitting keeps each command's modules in chunks that load when it runs. Native modules stay outside the
 * bundle.
 */
export const buildBin = async (outdir: string): Promise<void> => {
  const program = await build({
    ...common,
    entryPoints: ["src/main.ts"],
    outdir,
    splitting: true,
    // Help needs nothing but its text, so it is rendered here and answered before anything else is loaded.
    define: { DREAM_TEAM_ANSWERS: JSON.stringify(answers) },
    chunkNames: "chunk-[hash]"
  })
  // Apart from the rest and in one file: Claude Code runs it again and again, so each file it loads counts.
  const feed = await build({ ...common, entryPoints: [{ in: "src/feed.ts", out: "dream-team-feed" }], outdir })
  const folder = resolve(root, outdir)
  const files = new Map<string, Uint8Array>(
    [...program.outputFiles, ...feed.outputFiles].map(({ contents, path }) => [relative(folder, path), contents])
  )
  files.set(
    "THIRD-PARTY-LICENSES.txt",
    Buffer.from(thirdPartyLicences(Object.keys({ ...program.metafile.inputs, ...feed.metafile.inputs })))
  )
  mkdirSync(folder, { recursive: true })
  for (const [name, contents] of files) writeAtomically(join(folder, name), contents)
  for (const name of readdirSync(folder))
    if (!files.has(name)) rmSync(join(folder, name), { recursive: true, force: true })
}

/** What is already there stays untouched, so that a program running from it is not disturbed. */
const writeAtomically = (path: string, contents: Uint8Array): void => {
  if (existsSync(path) && readFileSync(path).equals(contents)) return
  const draft = `${path}.${process.pid}`
  writeFileSync(draft, contents, { mode: /(main|dream-team-feed)\.js$/.test(path) ? 0o755 : 0o644 })
  renameSync(draft, path)
}

/** The licence texts of every bundled package, which their terms ask to travel with it. */
const thirdPartyLicences = (inputs: ReadonlyArray<string>): string => {
  const packages = new Set(inputs.flatMap((input) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0] ?? []))
  return [...packages]
    .sort()
    .map((path) => {
      const folder = resolve(root, path)
      const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
      const licence = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file))
      const text = licence === undefined ? `Licence: ${manifest.license}` : readFileSync(join(folder, licence), "utf8")
      return `${manifest.name} ${manifest.version}\n\n${text.trim()}\n`
    })
    .join(`\n${"-".repeat(80)}\n\n`)
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await buildBin("dist/bin")
}
