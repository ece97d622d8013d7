import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Layer, Random, Stream, TestClock } from "effect"
import type { Call } from "../src/Domain/Call.js"
import { PlatformId } from "../src/Domain/Platform.js"
import { HandoffId, SessionId } from "../src/Domain/Session.js"
import { TenantId } from "../src/Domain/Task.js"
import { Gateway, type GatewayPiece, type GatewayRequest } from "../src/Gateway.js"
import { ResourceManager } from "../src/ResourceManager.js"
import { HandoffStore } from "../src/SessionStore/Handoffs.js"
import { SessionStore } from "../src/SessionStore.js"
import * as Testing from "../src/Testing.js"

const { answer, fail, failures, hang } = Testing

const call: Call = { messages: [{ role: "user", content: "Why?" }], maxOutputTokens: 100 }
const asked = (model: string, over: Partial<GatewayRequest> = {}): GatewayRequest => ({
  model,
  call,
  tenant: TenantId.make("local"),
  ...over
})

const at = <A, E, R>(ms: number, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(effect)
    yield* TestClock.adjust(ms)
    return yield* Fiber.join(fiber)
  })

const withTeam = <A, E>(
  scripts: ReadonlyArray<Testing.Script>,
  body: Effect.Effect<A, E, Gateway | ResourceManager | Testing.Received>
) => body.pipe(Effect.provide(Testing.layer(scripts)), Effect.withRandom(Random.make("seed")))

const three = (attempts: {
  readonly codex?: Testing.Script["attempts"]
  readonly synthetic?: Testing.Script["attempts"]
  readonly gemini?: Testing.Script["attempts"]
}): ReadonlyArray<Testing.Script> =>
  (["codex", "synthetic", "gemini"] as const).map((id) => ({ id, attempts: attempts[id] ?? [answer(`from ${id}`)] }))

const chain = "codex>synthetic>gemini"

const noPermits = Effect.gen(function* () {
  const { platforms } = yield* Effect.flatMap(ResourceManager, ({ view }) => view)
  assert.isTrue(platforms.every(({ permits }) => permits.inUse === 0))
})

describe("Gateway", () => {
  it.scoped("asks the first of a chain, the model as it is pinned, and says who answered", () =>
    withTeam(
      three({}),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const first = yield* gateway.complete(asked("codex/codex-model>synthetic#handoff-1"))
        assert.strictEqual(first.platform, PlatformId.make("codex"))
        assert.strictEqual(first.model, "codex-model")
        yield* TestClock.adjust(1_000)
        yield* Stream.runDrain(gateway.stream(asked("gemini#handoff-1")))
        yield* gateway.complete(asked("gemini"))
        assert.deepStrictEqual(yield* gateway.answeredBy("handoff-1"), [
          { platform: PlatformId.make("codex"), model: "codex-model", at: 0 },
          { platform: PlatformId.make("gemini"), model: "gemini-model", at: 1_000 }
        ])
        assert.deepStrictEqual(yield* gateway.answeredBy("nobody"), [])
      })
    )
  )

  it.scoped("keeps who answered a hand-off in its row, for a service that is started anew", () =>
    Effect.gen(function* () {
      const handoffs = yield* HandoffStore
      const id = HandoffId.make("11111111-1111-4111-8111-111111111111")
      const open = { account: "/home/me/.claude", sessionId: SessionId.make("s"), window: "five_hour", to: undefined }
      yield* handoffs.open({ ...open, id, windowResetsAt: 9_000, cause: "level", mode: "launcher" })
      const gateway = yield* Gateway
      yield* gateway.complete(asked(`codex#${id}`))
      yield* Stream.runDrain(gateway.stream(asked(`gemini#${id}`)))
      yield* gateway.complete(asked("codex#22222222-2222-4222-8222-222222222222"))
      assert.strictEqual((yield* handoffs.get(id))?.answeredBy, "gemini/gemini-model")
    }).pipe(
      Effect.provide(
        Testing.layer(three({})).pipe(
          Layer.provideMerge(Layer.provideMerge(HandoffStore.layer, SessionStore.layerMemory))
        )
      ),
      Effect.withRandom(Random.make("seed"))
    )
  )

  it.scoped("goes down the chain where one is empty, out, or fails again and again, before anything was given", () =>
    withTeam(
      three({
        codex: [fail(failures.quota({ reason: "window", resetsAt: 86_400_000 }))],
        synthetic: [fail(failures.platform())]
      }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const pieces = yield* at(60_000, Stream.runCollect(gateway.stream(asked(chain))))
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(pieces).map(({ _tag }) => _tag),
          ["Began", "Text", "Ended"]
        )
        const whole = yield* at(60_000, gateway.complete(asked(chain)))
        assert.strictEqual(whole.completion.text, "from gemini")
        const received = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
        assert.strictEqual(received.filter(({ platform }) => platform === "codex").length, 1)
        yield* noPermits
      })
    )
  )

  it.scoped("asks nobody else once a piece was given", () =>
    withTeam(
      three({ codex: [fail(failures.platform(), { text: "Bec" })] }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const pieces: Array<GatewayPiece> = []
        const error = yield* Effect.flip(
          Stream.runForEach(gateway.stream(asked(chain)), (piece) => Effect.sync(() => pieces.push(piece)))
        )
        assert.strictEqual(error._tag, "AnswerBroken")
        assert.deepStrictEqual(
          pieces.map(({ _tag }) => _tag),
          ["Began", "Text"]
        )
        yield* noPermits
      })
    )
  )

  it.scoped("does not offer elsewhere what a platform refuses for its content, but what is too long for it", () =>
    withTeam(
      three({ codex: [fail(failures.policy()), fail(failures.context())] }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        assert.strictEqual((yield* Effect.flip(gateway.complete(asked(chain))))._tag, "CallRefused")
        assert.strictEqual((yield* gateway.complete(asked(chain))).platform, PlatformId.make("synthetic"))
      })
    )
  )

  it.scoped("waits for the one that is back first where all are empty, within ten minutes", () =>
    withTeam(
      three({
        codex: [fail(failures.quota({ retryAfterMs: 300_000 })), answer("codex again")],
        synthetic: [fail(failures.quota({ retryAfterMs: 90_000 })), answer("synthetic again")],
        gemini: [fail(failures.quota({ reason: "window", resetsAt: 86_400_000 }))]
      }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const answered = yield* at(100_000, gateway.complete(asked(chain)))
        assert.strictEqual(answered.completion.text, "synthetic again")
      })
    )
  )

  it.scoped("fails at once, with every reason and the earliest time, where nobody can in time", () =>
    withTeam(
      three({
        codex: [fail(failures.quota({ reason: "window", resetsAt: 7_200_000 }))],
        synthetic: [fail(failures.credential())],
        gemini: [fail(failures.quota({ reason: "window", resetsAt: 3_600_000 }))]
      }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const error = yield* at(10_000, Effect.flip(gateway.complete(asked(chain))))
        assert.strictEqual(error._tag, "LeaseUnavailable")
        if (error._tag !== "LeaseUnavailable") return
        assert.deepStrictEqual(
          error.reasons.map(({ platform }) => String(platform)),
          ["codex", "synthetic", "gemini"]
        )
      })
    )
  )

  it.scoped("ends after ten minutes, and cuts the attempt that is out", () =>
    withTeam(
      three({ codex: [hang] }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const error = yield* at(600_000, Effect.flip(gateway.complete(asked("codex"))))
        assert.strictEqual(error._tag, "DeadlineExceeded")
        yield* noPermits
      })
    )
  )

  it.scoped("interrupts the attempt when its caller goes", () =>
    withTeam(
      three({ codex: [hang] }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const fiber = yield* Effect.fork(Stream.runDrain(gateway.stream(asked("codex"))))
        yield* TestClock.adjust(1_000)
        yield* Fiber.interrupt(fiber)
        const received = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
        assert.deepStrictEqual(
          received.map(({ state }) => state),
          ["interrupted"]
        )
        yield* noPermits
      })
    )
  )

  it.scoped("passes over alternatives that are not configured, and refuses a name of which none is", () =>
    withTeam(
      three({}),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        assert.strictEqual((yield* gateway.complete(asked("nobody>synthetic/gpt-9>gemini"))).platform, "gemini")
        for (const model of ["nobody>synthetic/gpt-9", "", "codex#"]) {
          assert.strictEqual((yield* Effect.flip(gateway.complete(asked(model))))._tag, "ModelNotFound", model)
        }
      })
    )
  )

  it.scoped("shortens the answer's bound to what a window leaves, not below what an answer needs", () =>
    withTeam(
      [{ id: "small", settings: { contextWindow: 10_000 } }],
      Effect.gen(function* () {
        const gateway = yield* Gateway
        yield* gateway.complete(asked("small", { call: { ...call, maxOutputTokens: 64_000 } }))
        const [received] = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
        assert.isAtMost(received?.call.maxOutputTokens ?? 0, 10_000)
        assert.isAtLeast(received?.call.maxOutputTokens ?? 0, 9_900)
        const long: Call = { messages: [{ role: "user", content: "x".repeat(38_000) }], maxOutputTokens: 64_000 }
        const error = yield* Effect.flip(gateway.complete(asked("small", { call: long })))
        assert.strictEqual(error._tag, "ContextTooLong")
      })
    )
  )

  it.scoped("sends a temperature only where it says something and nobody refuses a call for it", () =>
    withTeam(
      [
        { id: "codex", settings: { wire: "openai-responses" } },
        { id: "qwen", settings: { wire: "openai-chat" } }
      ],
      Effect.gen(function* () {
        const gateway = yield* Gateway
        for (const [model, temperature] of [
          ["codex", 0.2],
          ["qwen", 1],
          ["qwen", 0.2]
        ] as const) {
          yield* gateway.complete(asked(model, { call: { ...call, temperature } }))
        }
        const received = yield* Effect.flatMap(Testing.Received, ({ calls }) => calls)
        assert.deepStrictEqual(
          received.map(({ call }) => call.temperature),
          [undefined, undefined, 0.2]
        )
      })
    )
  )

  it.scoped("gives tool calls ids that no other answer has", () =>
    withTeam(
      three({
        codex: [
          answer("", { toolCalls: [0, 1].map((index) => ({ id: `call_${index}`, name: "look", arguments: "{}" })) })
        ]
      }),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        const first = yield* gateway.complete(asked("codex"))
        const pieces = yield* Stream.runCollect(gateway.stream(asked("codex")))
        const ids = [
          ...first.completion.toolCalls.map(({ id }) => id),
          ...Chunk.toReadonlyArray(pieces).flatMap((piece) => (piece._tag === "ToolCall" ? [piece.toolCall.id] : []))
        ]
        assert.strictEqual(new Set(ids).size, 4)
        // OpenAI takes 40 characters, Anthropic these
        assert.isTrue(
          ids.every((id) => /^[a-zA-Z0-9_-]{1,40}$/.test(id)),
          ids.join()
        )
      })
    )
  )

  it.scoped("keeps a bounded memory of who answered", () =>
    withTeam(
      three({}),
      Effect.gen(function* () {
        const gateway = yield* Gateway
        for (let index = 0; index < 105; index++) {
          yield* gateway.complete(asked("codex#often"))
          yield* TestClock.adjust(1)
        }
        const often = yield* gateway.answeredBy("often")
        assert.strictEqual(often.length, 100)
        assert.strictEqual(often[0]?.at, 5)
      })
    )
  )
})
