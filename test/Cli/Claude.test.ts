import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Either, FastCheck } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { installed, uninstalled } from "../../src/Cli/ClaudeSettings.js"
import { dreamTeam, feedProgram } from "../support/Command.js"

let home = ""
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "dream-team-claude-"))
})
afterAll(() => {
  rmSync(home, { recursive: true, force: true })
})

let count = 0
const fresh = (text?: string): string => {
  const folder = join(home, String(++count))
  mkdirSync(folder)
  const file = join(folder, "settings.json")
  if (text !== undefined) writeFileSync(file, text)
  return file
}

const claude = (command: "install" | "uninstall", file: string, ...options: ReadonlyArray<string>) =>
  dreamTeam(["claude", command, "--settings", file, ...options], {
    cwd: home,
    env: { HOME: home, DREAM_TEAM_SESSIONS_DB: join(home, "sessions.db") }
  })

const users = `{
\t"model": "opus",
\t"permissions": { "allow": ["Bash(ls:*)", "Read"], "deny": [] },
\t"statusLine": { "type": "command", "command": "~/bin/status 'a b'", "padding": 0 },
\t"hooks": {
\t\t"Stop": [
\t\t\t{ "hooks": [{ "type": "command", "command": "say done" }] }
\t\t]
\t}
}
`

describe("claude install", () => {
  it("adds to what is there, keeps a copy, and is taken out to the letter", async () => {
    const file = fresh(users)
    chmodSync(file, 0o640)
    const shown = await claude("install", file, "--dry-run")
    expect(shown).toMatchObject({ code: 0, stderr: "" })
    expect(shown.stdout).toContain(`- \t"statusLine": { "type": "command", "command": "~/bin/status 'a b'"`)
    expect(shown.stdout).toContain(`+ \t\t"StopFailure": [`)
    expect(readFileSync(file, "utf8")).toBe(users)
    expect(existsSync(join(home, "sessions.db"))).toBe(false)

    expect(await claude("install", file)).toMatchObject({ code: 0, stderr: "" })
    const text = readFileSync(file, "utf8")
    for (const kept of [
      `\t"permissions": { "allow": ["Bash(ls:*)", "Read"], "deny": [] },`,
      "say done",
      `"padding": 0`
    ]) {
      expect(text).toContain(kept)
    }
    const settings = JSON.parse(text)
    expect(settings.statusLine.command).toContain(
      `${feedProgram} statusline --database ${join(home, "sessions.db")} --then `
    )
    expect(Object.keys(settings.hooks).sort()).toEqual(["SessionEnd", "SessionStart", "Stop", "StopFailure"])
    expect(settings.autoContinueAtUsageLimit).toBe(false)
    expect(existsSync(join(home, "sessions.db"))).toBe(true)
    expect(statSync(file).mode & 0o777).toBe(0o640)

    const again = await claude("install", file, "--json")
    expect(JSON.parse(again.stdout)).toMatchObject({ changed: false, diff: "" })
    expect(readFileSync(file, "utf8")).toBe(text)

    expect((await claude("uninstall", file, "--dry-run")).stdout).toContain("say done")
    expect(readFileSync(file, "utf8")).toBe(text)
    expect(await claude("uninstall", file)).toMatchObject({ code: 0, stderr: "" })
    expect(readFileSync(file, "utf8")).toBe(users)
    expect((await claude("uninstall", file)).stdout).toContain("does not report")
  }, 60_000)

  it("makes the settings where there are none, and takes them away again", async () => {
    const file = fresh()
    expect(await claude("install", file)).toMatchObject({ code: 0 })
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(await claude("uninstall", file)).toMatchObject({ code: 0 })
    expect(existsSync(file)).toBe(false)
  }, 30_000)

  it("changes the file that a link leads to, and leaves the link", async () => {
    const file = fresh("{}")
    const link = join(home, "link.json")
    symlinkSync(file, link)
    expect(await claude("install", link)).toMatchObject({ code: 0 })
    expect(lstatSync(link).isSymbolicLink()).toBe(true)
    expect(JSON.parse(readFileSync(file, "utf8"))).toHaveProperty("statusLine")
  }, 30_000)

  it("does not touch what it does not understand", async () => {
    for (const text of [
      '{ "a": 1, // mine\n}',
      "[]",
      '{"hooks": []}',
      '{"hooks": {"Stop": {}}}',
      '{"statusLine": "x"}'
    ]) {
      const file = fresh(text)
      const ran = await claude("install", file)
      expect(ran).toMatchObject({ code: 1, stdout: "" })
      expect(ran.stderr).toContain("was not changed")
      expect(readFileSync(file, "utf8")).toBe(text)
      expect(existsSync(`${file}.before-dream-team`)).toBe(false)
    }
  }, 60_000)
})

const commands = {
  statusline: (chained: string | undefined) =>
    `node dream-team-feed.js statusline --database /d${chained === undefined ? "" : ` --then '${chained.replaceAll("'", "'\\''")}'`}`,
  hook: "node dream-team-feed.js hook --database /d"
}

describe("what stands in the way of the feeds", () => {
  it("is told by the installation and by doctor, and changed by neither", async () => {
    const account = join(home, "account")
    const project = join(home, "project")
    mkdirSync(join(project, ".claude"), { recursive: true })
    mkdirSync(account)
    writeFileSync(join(account, "settings.json"), `{ "autoContinueAtUsageLimit": true }\n`)
    const own = join(project, ".claude", "settings.json")
    writeFileSync(own, `{ "statusLine": { "type": "command", "command": "date" } }\n`)
    const database = join(home, "a 'b' c", "sessions.db")
    const run = (args: ReadonlyArray<string>, sessions = database) =>
      dreamTeam(args, {
        cwd: project,
        env: { HOME: home, CLAUDE_CONFIG_DIR: account, DREAM_TEAM_SESSIONS_DB: sessions, DREAM_TEAM_PORT: "0" }
      })
    const feeds = async (sessions?: string) => {
      const { stdout } = await run(["doctor", "--json"], sessions)
      const { checks } = JSON.parse(stdout) as {
        checks: ReadonlyArray<{ name: string; found: string; status: string }>
      }
      return checks.filter(({ name }) => name === "feeds").map(({ found, status }) => `${status}: ${found}`)
    }
    const said = await run(["claude", "install"])
    expect(said.stdout).toContain("sets autoContinueAtUsageLimit")
    expect(said.stdout).toContain(`${own} has a status line of its own`)
    expect(JSON.parse(readFileSync(join(account, "settings.json"), "utf8"))).toMatchObject({
      autoContinueAtUsageLimit: true
    })
    expect(await feeds()).toEqual([
      expect.stringContaining("note: "),
      expect.stringMatching(/^note: .*settings.json has a status line of its own/)
    ])
    writeFileSync(own, "{}")
    writeFileSync(
      join(account, "settings.json"),
      readFileSync(join(account, "settings.json"), "utf8").replace("true", "false")
    )
    expect(await feeds()).toEqual([`ok: Claude Code reports its sessions to ${database}`])
    expect(await feeds(join(home, "other.db"))).toEqual([
      `note: Claude Code reports its sessions to ${database}, but this service reads ${join(home, "other.db")}`
    ])
  })
})

describe("settings that change in the meantime", () => {
  it("keep the user's changes when the feed is taken out", () => {
    const text = Either.getOrThrow(installed(users, commands))
    const edited = text
      .replace('"model": "opus"', '"model": "sonnet",\n\t"env": {}')
      .replace("say done", "say finished")
    const rest = Either.getOrThrow(uninstalled(edited, users))
    expect(rest).toBe(
      users.replace('"model": "opus"', '"model": "sonnet",\n\t"env": {}').replace("say done", "say finished")
    )
  })

  it("follow when the program or the database moved", () => {
    const text = Either.getOrThrow(installed(users, commands))
    const moved = { ...commands, hook: "/opt/node dream-team-feed.js hook --database /e" }
    const next = Either.getOrThrow(installed(text, moved))
    expect(next).not.toContain("hook --database /d")
    expect(JSON.parse(next).hooks.Stop).toHaveLength(2)
  })

  it("come back as they were, whatever they hold and however they are written", () => {
    const hook = FastCheck.record({ type: FastCheck.constant("command"), command: FastCheck.string() })
    const groups = FastCheck.array(FastCheck.record({ hooks: FastCheck.array(hook, { maxLength: 2 }) }), {
      maxLength: 2
    })
    const settings = FastCheck.record(
      {
        a: FastCheck.jsonValue(),
        statusLine: hook,
        hooks: FastCheck.record({ Stop: groups, PreToolUse: groups, SessionEnd: groups }, { requiredKeys: [] }),
        autoContinueAtUsageLimit: FastCheck.boolean(),
        'z"\\{': FastCheck.jsonValue()
      },
      { requiredKeys: [] }
    )
    const indent = FastCheck.constantFrom(undefined, "  ", "\t", "    ")
    FastCheck.assert(
      FastCheck.property(settings, indent, FastCheck.constantFrom("\n", "\r\n"), (value, unit, end) => {
        const before = `${JSON.stringify(value, undefined, unit)}\n`.replaceAll("\n", end)
        const after = Either.getOrThrow(installed(before, commands))
        expect(JSON.parse(after)).toMatchObject(JSON.parse(JSON.stringify({ ...value, statusLine: {}, hooks: {} })))
        expect(Either.getOrThrow(installed(after, commands))).toBe(after)
        expect(Either.getOrThrow(uninstalled(after, before))).toBe(before)
        const withoutCopy = JSON.parse(Either.getOrThrow(uninstalled(after, undefined)))
        expect(withoutCopy.statusLine).toEqual(JSON.parse(before).statusLine)
      }),
      { numRuns: 200 }
    )
  })
})
