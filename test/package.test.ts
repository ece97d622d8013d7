import { readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import * as Client from "../src/Client.js"
import * as Root from "../src/index.js"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const manifest = JSON.parse(read("package.json"))

/** Embedded PostgreSQL has no version that is not called a beta. */
const exact = /^\d+\.\d+\.\d+(-beta\.\d+)?$/

/** Names for what the root and the client are used with, without a look for the module that has them. */
const named: {
  readonly submission: Root.JobSubmission
  readonly states: readonly [Root.JobMode, Root.OnFailure, Root.JobState, Root.JobResult, Root.Job, Root.JobTask]
  readonly jobs: readonly [Root.Jobs, Root.JobFilter, Root.JobPage]
  readonly verdicts: readonly [Root.BulkLine, Root.BulkVerdict, Client.BulkLine, Client.BulkVerdict]
  readonly failures: readonly [Client.BulkError, Client.FollowError]
  readonly events: readonly [Root.EventTypeFilter, Root.SessionEventBody, Client.EventTypeFilter, Client.EventKind]
} | null = null

describe("what a program imports", () => {
  it("is at the root, every service of the team among it", () => {
    expect(named).toBeNull()
    const tags = ["AgentRouter", "Benchmark", "Budgets", "CCRWatcher", "Coordinator", "Delegation", "Events", "Gateway"]
    tags.push("Ownership", "PlatformDetector", "ResourceManager", "Retention", "TaskStore", "TaskValidator")
    const schemas = ["JobSubmission", "JobResult", "JobMode", "OnFailure", "JobState", "BulkLine", "BulkVerdict"]
    const missing = [...tags, "Arrivals", "SqlWriter", ...schemas].filter((name) => !(name in Root))
    expect(missing).toEqual([])
  })

  it("is in the client, where the client answers it", () => {
    const missing = ["BulkLine", "BulkVerdict", "InvalidLine", "VerdictsMissing"].filter((name) => !(name in Client))
    expect(missing).toEqual([])
  })
})

describe("package.json", () => {
  it("exports each module by its name, and the client and the testing tools in lower case", () => {
    const unexported = new Set(["main", "feed", "Cli", "index"])
    const names = readdirSync(join(root, "src"))
      .filter((file) => file.endsWith(".ts"))
      .map((file) => file.replace(/\.ts$/, ""))
      .filter((name) => !unexported.has(name))
    const expected = Object.fromEntries([
      [".", { types: "./dist/index.d.ts", default: "./dist/index.js" }],
      ...names.map((name) => [
        `./${["Client", "Testing"].includes(name) ? name.toLowerCase() : name}`,
        { types: `./dist/${name}.d.ts`, default: `./dist/${name}.js` }
      ]),
      ["./Domain/*", { types: "./dist/Domain/*.d.ts", default: "./dist/Domain/*.js" }],
      ["./package.json", "./package.json"]
    ])
    expect(manifest.exports).toEqual(expected)
  })

  it("pins exactly what the project itself runs with", () => {
    for (const group of [manifest.dependencies, manifest.devDependencies]) {
      expect(Object.entries<string>(group).filter(([, version]) => !exact.test(version))).toEqual([])
    }
  })

  it("runs its own tests with the lowest version of each peer that it admits", () => {
    for (const [name, range] of Object.entries<string>(manifest.peerDependencies)) {
      expect(range).toBe(`^${manifest.devDependencies[name]}`)
    }
  })

  it("declares every package that the library imports", () => {
    const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter(
      (file) => file.endsWith(".ts") && !/^(main\.ts|feed\.ts|Cli\.ts|Cli\/)/.test(file)
    )
    const imported = new Set(
      files
        .flatMap((file) => [...read(join("src", file)).matchAll(/^(?:import|export)[^"]*? from "([^".][^"]*)"/gm)])
        .flatMap(([, specifier]) => /^(?:@[^/]+\/)?[^/]+/.exec(specifier ?? "")?.[0] ?? [])
        .filter((name) => !name.startsWith("node:"))
    )
    const declared = new Set(Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }))
    expect([...imported].filter((name) => !declared.has(name))).toEqual([])
    expect([...declared].filter((name) => !imported.has(name) && name !== "better-sqlite3")).toEqual([])
  })

  it("is told by the lock file, with the packages of every kind of machine, or npm ci refuses it", () => {
    const { packages } = JSON.parse(read("package-lock.json"))
    for (const group of ["dependencies", "devDependencies", "peerDependencies"]) {
      expect(packages[""][group]).toEqual(manifest[group])
    }
    const missing = Object.entries<{ readonly optionalDependencies?: Readonly<Record<string, string>> }>(
      packages
    ).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) =>
          packages[`${path}/node_modules/${name}`] === undefined && packages[`node_modules/${name}`] === undefined
      )
    )
    expect(missing).toEqual([])
  })
})
