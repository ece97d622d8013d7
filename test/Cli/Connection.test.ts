import { gzipSync } from "node:zlib"
import * as FileSystem from "@effect/platform/FileSystem"
import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Either, Exit, Layer, Redacted, Schema } from "effect"
import { run } from "../../src/Cli.js"
import { PlatformResources, ResourcesView } from "../../src/Domain/Lease.js"
import { TenantId } from "../../src/Domain/Task.js"
import { PlatformHistory } from "../../src/ResourceManager/Api.js"
import { Settings } from "../../src/Settings.js"
import { resources } from "../Http/scripted.js"
import { patch, start } from "../Http/server.js"
import { captured } from "../support/CapturedConsole.js"

/** No variables but those of a test. */
const variables = (given: Readonly<Record<string, string>>) =>
  Layer.merge(
    NodeContext.layer,
    Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(given)), { pathDelim: "_" }))
  )

const environment = variables({})

const read = <A, I>(schema: Schema.Schema<A, I>, text: string): A =>
  Schema.decodeUnknownSync(Schema.parseJson(schema))(text)

/** What a command prints that goes well. */
const printed = (...args: ReadonlyArray<string>) =>
  captured(run(args)).pipe(
    Effect.provide(environment),
    Effect.map(({ exit, out }) => {
      assert.isTrue(Exit.isSuccess(exit), String(exit))
      return out
    })
  )

/** What a command that fails says. */
const complaint = (...args: ReadonlyArray<string>) =>
  Effect.map(Effect.flip(run(args)).pipe(Effect.provide(environment)), ({ message }) => message)

describe("commands that ask the service", () => {
  it.scopedLive("say of a task that comes too late why each platform cannot start it, and until when", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const limited = yield* complaint("submit", "too late", "--url", url)
      assert.match(
        limited,
        /^The limits leave no room for it before its deadline; try again in 1 min 2 s:\n {2}codex: it is used up; not before 2026-11-22T12:01:01\.500Z \(.+\)$/
      )
      const shutOff = yield* complaint("submit", "too late", "--priority", "low", "--url", url)
      assert.match(shutOff, /^No platform can start it before its deadline:\n {2}codex: it is used up; not before /)
    })
  )

  it.scopedLive("send the key of the client, or else the first of the service's", () =>
    Effect.gen(function* () {
      const keys = ["key-of-alice-alice", "key-of-bob-bob-bob"] as const
      const [alice, bob] = keys.map((key) => ({ tenant: TenantId.make(key.slice(7, 10)), key: Redacted.make(key) }))
      assert(alice !== undefined && bob !== undefined)
      const { url } = yield* start({ apiKeys: [alice, bob] })
      const outcome = (given: Readonly<Record<string, string>>) =>
        Effect.map(
          Effect.either(captured(run(["resources", "--json", "--url", url])).pipe(Effect.provide(variables(given)))),
          (either) => (Either.isRight(either) && Exit.isSuccess(either.right.exit) ? "let in" : String(either))
        )
      const strangers = { DREAM_TEAM_API_KEYS: "eve:key-of-eve-eve-eve" }
      assert.strictEqual(yield* outcome({ DREAM_TEAM_API_KEYS: `bob:${keys[1]}` }), "let in")
      assert.strictEqual(yield* outcome({ ...strangers, DREAM_TEAM_API_KEY: keys[1] }), "let in")
      const refusal = (given: Readonly<Record<string, string>>) =>
        Effect.map(
          Effect.flip(run(["resources", "--url", url])).pipe(Effect.provide(variables(given))),
          ({ message }) => message
        )
      assert.strictEqual(
        yield* refusal({}),
        `The service at ${url} wants an API key: put yours into DREAM_TEAM_API_KEY.`
      )
      assert.match(yield* refusal(strangers), /it was sent, which is the first of DREAM_TEAM_API_KEYS\.$/)
      assert.match(yield* refusal({ DREAM_TEAM_API_KEY: "x" }), /it was sent, which is DREAM_TEAM_API_KEY\.$/)
    })
  )

  it.scopedLive("submit no file that is compressed, or that holds no task", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const folder = yield* files.makeTempDirectoryScoped()
      const { url } = yield* start()
      const submitting = (name: string, content: Uint8Array) =>
        Effect.zipRight(
          files.writeFile(`${folder}/${name}`, content),
          complaint("submit", "--file", `${folder}/${name}`, "--url", url)
        )
      const line = Buffer.from('{"prompt":"a"}\n')
      assert.strictEqual(
        yield* submitting("tasks.jsonl.gz", gzipSync(line)),
        `The file ${folder}/tasks.jsonl.gz is compressed: tasks are read as text, a line each.`
      )
      for (const empty of ["", "\n \n"]) {
        assert.strictEqual(
          yield* submitting("empty.jsonl", Buffer.from(empty)),
          `The file ${folder}/empty.jsonl holds no task: nothing was submitted.`
        )
      }
      const long = Buffer.from(`{"prompt":"${"a".repeat(300)}"}\n`.repeat(1_000))
      yield* files.writeFile(`${folder}/long.jsonl`, long)
      assert.lengthOf((yield* printed("submit", "--file", `${folder}/long.jsonl`, "--url", url)).split("\n"), 1_000)
    }).pipe(Effect.provide(NodeContext.layer))
  )

  it.scopedLive("say of a key that has made its submissions of this minute when it may submit again", () =>
    Effect.gen(function* () {
      const { budgets } = Settings.make({ platforms: [] })
      const { url } = yield* start({ budgets: { ...budgets, perKey: { requestsPerMinute: 1 } } })
      yield* printed("submit", "first", "--url", url)
      assert.match(
        yield* complaint("submit", "second", "--url", url),
        /^This API key may make 1 submission a minute\. Nothing was stored; try again later\. There is room in .+\.$/
      )
    })
  )

  it.scopedLive("tell a platform's history, a page at a time", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const history = (...args: ReadonlyArray<string>) => printed("platforms", "history", ...args, "--url", url)
      assert.strictEqual(yield* history("codex"), "Nothing yet.")
      yield* patch(`${url}/v1/platforms/codex`, { limits: { requestsPerMinute: 5, burst: null } })
      yield* patch(`${url}/v1/platforms/codex`, { limits: null })
      const at = "2026-11-22T12:00:00.000Z"
      const changed = `${at}  limits changed by local: requestsPerMinute 5, burst lifted`
      const setBack = `${at}  limits set back to the settings by local`
      assert.strictEqual(yield* history("codex"), `${setBack}\n${changed}`)
      assert.strictEqual(yield* history("codex", "--limit", "1"), `${setBack}\n\nMore: --before 2`)
      assert.strictEqual(yield* history("codex", "--before", "2"), changed)
      const { events, next } = read(PlatformHistory, yield* history("codex", "--limit", "1", "--json"))
      assert.deepStrictEqual([events.length, next], [1, 2])
      assert.include(yield* complaint("platforms", "history", "nobody", "--url", url), "There is no platform nobody")
    })
  )

  it.scopedLive("drain a platform and resume it", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const platforms = (...args: ReadonlyArray<string>) => printed("platforms", ...args, "--url", url)
      assert.match(
        yield* platforms("drain", "codex", "--reason", "its bill is due"),
        /^codex is drained: it gets no new attempts until it is resumed, and /
      )
      assert.strictEqual(yield* platforms("resume", "codex"), "codex is resumed.")
      const { drained } = read(PlatformResources, yield* platforms("drain", "codex", "--json"))
      assert.strictEqual(drained?.tenant, "local")
      const at = "2026-11-22T12:00:00.000Z"
      assert.strictEqual(
        yield* platforms("history", "codex"),
        [`${at}  drained by local`, `${at}  resumed by local`, `${at}  drained by local: its bill is due`].join("\n")
      )
      assert.include(yield* complaint("platforms", "drain", "nobody", "--url", url), "There is no platform nobody")
      assert.include(
        yield* complaint("platforms", "drain", "codex", "--reason", "x".repeat(301), "--url", url),
        "--reason must have 1 to 300 characters"
      )
    })
  )

  it.scopedLive("show limits and queues, exactly as the service sends them with --json", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      assert.deepStrictEqual(read(ResourcesView, yield* printed("resources", "--json", "--url", url)), resources)
      assert.match(yield* printed("resources", "--url", url), /^codex +requests\/60s +9 of 10 +1 +10\/min /m)
    })
  )
})
