import { execFile } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

const here = dirname(fileURLToPath(import.meta.url))
const repository = join(here, "..", "..")
const base = mkdtempSync(join(tmpdir(), "dream-team-packed-"))
const folder = join(base, "project")
const prebuilds = join(base, "prebuilds")
const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"))

const exec = promisify(execFile)
const inFolder = (command: string, ...args: ReadonlyArray<string>) =>
  exec(command, args, {
    cwd: folder,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, npm_config_better_sqlite3_local_prebuilds: prebuilds }
  })
const install = (...packages: ReadonlyArray<string>) =>
  inFolder("npm", "install", "--no-audit", "--no-fund", "--prefer-offline", ...packages)

/**
 * SQLite as this project has compiled it, where the installation of better-sqlite3 looks for it by its version, Node's
 * and the platform. It compiles its own, which takes two minutes, only where one of them is another.
 */
const offerCompiledSqlite = async () => {
  const compiled = join(repository, "node_modules", "better-sqlite3")
  const { version } = JSON.parse(readFileSync(join(compiled, "package.json"), "utf8"))
  const name = `better-sqlite3-v${version}-node-v${process.versions.modules}-${process.platform}-${process.arch}.tar.gz`
  await exec("tar", ["-czf", join(prebuilds, name), "-C", compiled, "build/Release/better_sqlite3.node"])
}

/** Every installed copy of a package, by folder. */
const copiesOf = (name: string): ReadonlyArray<string> =>
  readdirSync(join(folder, "node_modules"), { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path === name || path.endsWith(`/node_modules/${name}`))

beforeAll(async () => {
  mkdirSync(folder)
  mkdirSync(prebuilds)
  await offerCompiledSqlite()
  const { stdout } = await exec("npm", ["pack", "--json", "--pack-destination", base], {
    cwd: repository,
    maxBuffer: 64 * 1024 * 1024
  })
  // The build that comes with packing prints before the JSON.
  const [packed] = JSON.parse(stdout.slice(stdout.indexOf("[\n")))
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }))
  await install(join(base, packed.filename))
})

afterAll(() => rmSync(base, { recursive: true, force: true }))

describe("the packed package, installed in an empty folder", () => {
  it("runs the demo", async () => {
    const { stdout } = await inFolder("npx", "dream-team", "demo", "--json")
    const summary = JSON.parse(stdout)
    expect(summary.tasks).toMatchObject({ submitted: 200, lost: 0 })
    expect(summary.limitViolations).toBe(0)
    expect(summary.wallMs).toBeLessThan(30_000)
    expect(summary.byPlatform.codex.failedAttempts).toBeGreaterThan(0)
  })

  it("holds what is used and no more", () => {
    const files = readdirSync(join(folder, "node_modules", "dream-team"), { recursive: true, encoding: "utf8" })
    expect(files).toContain("LICENSE")
    expect(files).toContain("README.md")
    expect(files.filter((file) => /(^|\/)(test|src)\//.test(file) || file.endsWith(".tsbuildinfo"))).toEqual([])
  })

  it("type-checks and runs in a program with its own effect, of which there is one copy", async () => {
    const { effect, typescript, "@types/node": node } = manifest.devDependencies
    await install(`effect@^${effect}`, `typescript@${typescript}`, `@types/node@${node}`)
    for (const peer of Object.keys(manifest.peerDependencies)) expect(copiesOf(peer)).toEqual([peer])
    const { stdout: tree } = await inFolder("npm", "ls", "effect", "--all", "--parseable")
    expect(new Set(tree.trim().split("\n")).size).toBe(1)

    for (const file of ["program.ts", "tsconfig.json"]) cpSync(join(here, "embedding", file), join(folder, file))
    // Other packages' declarations have mistakes of their own.
    const { stdout: complaints } = await inFolder("npx", "tsc", "--project", ".").catch((error) => error)
    expect(
      complaints.split("\n").filter((line: string) => /^(program\.ts|node_modules\/dream-team\/)/.test(line))
    ).toEqual([])
    const { stdout } = await inFolder("node", "out/program.js")
    expect(JSON.parse(stdout)).toEqual({ text: "Because.", platform: "codex", inFlight: [0] })
  })

  it("offers a client that works where better-sqlite3 is absent", async () => {
    rmSync(join(folder, "node_modules", "better-sqlite3"), { recursive: true })
    cpSync(join(here, "embedding", "client.mjs"), join(folder, "client.mjs"))
    const { stdout } = await inFolder("node", "client.mjs")
    expect(JSON.parse(stdout)).toEqual({ status: "live" })
  })
})
