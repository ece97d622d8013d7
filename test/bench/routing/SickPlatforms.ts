import { Effect, MutableRef, Option, Random, Stream } from "effect"
import { gatherAnswer } from "../../../src/Delegation/Answer.js"
import type { Call, Delta } from "../../../src/Domain/Call.js"
import { type AttemptFailure, PlatformFailure, QuotaFailure } from "../../../src/Domain/Failure.js"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import { monotonicMs } from "../../../src/Domain/Time.js"
import type { PlatformClient } from "../../../src/Platforms.js"
import { type KnownPlatform, type PlatformSettings, Settings } from "../../../src/Settings.js"
import { logNormal } from "../support/Draw.js"
import { makeProvider, refusalOf, tellingOf } from "../support/Provider.js"
import { type Day, type DayTask, type TroubleKind, usageOf } from "./Day.js"

/** How fast a platform is while it is well: medians of log-normal times. */
interface Speed {
  readonly firstTokenMs: number
  readonly msPerToken: number
}

const speeds: Readonly<Record<KnownPlatform, Speed>> = {
  codex: { firstTokenMs: 2_500, msPerToken: 22 },
  gemini: { firstTokenMs: 1_200, msPerToken: 11 },
  qwen: { firstTokenMs: 1_800, msPerToken: 18 },
  synthetic: { firstTokenMs: 2_000, msPerToken: 16 }
}
const names: ReadonlyArray<KnownPlatform> = ["codex", "gemini", "qwen", "synthetic"]

/** As they are where nothing is configured but their keys. */
export const platforms: ReadonlyArray<PlatformSettings & { readonly speed: Speed }> = names.map((id) => ({
  ...Settings.platformDefaults(id, { apiKey: "simulated" }),
  speed: speeds[id]
}))

/** Spread of the logarithm of an attempt's times. */
const SIGMA_SPEED = 0.3
/** The response's headers are back, and so is a refusal, ms. */
const ROUND_TRIP_MS = 150
/** Until an attempt among those that fail has failed, ms. */
const FAILS_WITHIN_MS = 10_000
const SLOWER = 4
/** Of the attempts, those that fail in a burst of errors, and on a good day. */
const FAILING = { burst: 0.3, always: 0.005 }

/** What becomes of one attempt; times are ms from its start. */
type Fate =
  | { readonly _tag: "Answered"; readonly firstTokenMs: number; readonly durationMs: number }
  | { readonly _tag: "Failed"; readonly afterMs: number; readonly failure: AttemptFailure }

export interface SickPlatforms {
  readonly clients: ReadonlyArray<PlatformClient>
  /** The call that a task makes. */
  readonly callOf: (task: DayTask) => Call
  readonly attempts: () => number
  readonly refused: () => number
}

/** The platforms of a day: each does the same for the n-th attempt that a task makes there, whoever sends it. */
export const makeSickPlatforms = ({ troubles }: Day, seed: string): SickPlatforms => {
  const tasks = new WeakMap<Call, DayTask>()
  const tells = tellingOf(platforms)
  let attempts = 0
  let refused = 0

  const clientOf = (settings: (typeof platforms)[number]): PlatformClient => {
    const { id, model, speed, timeouts } = settings
    const provider = makeProvider(settings)
    const own = troubles.filter(({ platform }) => platform === id)
    const arrivals = new Map<number, number>()

    const troubleAt = (kind: TroubleKind, at: number) =>
      own.find((trouble) => trouble.kind === kind && trouble.from <= at && at < trouble.to)

    const sick = (
      reason: PlatformFailure["reason"],
      afterMs: number,
      message: string
    ): Extract<Fate, { _tag: "Failed" }> => ({
      _tag: "Failed",
      afterMs,
      failure: new PlatformFailure({ platform: id, model, reason, message })
    })

    const isDown = sick("server", ROUND_TRIP_MS, "simulated: out of order")

    const drawsOf = (task: DayTask) => {
      const number = (arrivals.get(task.id) ?? 0) + 1
      arrivals.set(task.id, number)
      return Effect.all({
        firstTokenMs: logNormal(speed.firstTokenMs, SIGMA_SPEED),
        generatingMs: logNormal(task.outputTokens * speed.msPerToken, SIGMA_SPEED),
        chance: Random.next,
        failsAfterMs: Random.nextIntBetween(ROUND_TRIP_MS, FAILS_WITHIN_MS)
      }).pipe(Effect.withRandom(Random.make(`${seed} ${id} ${task.id} ${number}`)), Effect.runSync)
    }

    /** Of an attempt that the provider has taken in. */
    const fateOf = (task: DayTask, at: number): Fate => {
      const { chance, failsAfterMs, firstTokenMs, generatingMs } = drawsOf(task)
      const factor = troubleAt("slow", at) === undefined ? 1 : SLOWER
      const failing = troubleAt("errors", at) === undefined ? FAILING.always : FAILING.burst
      const hangs = troubleAt("hangs", at) !== undefined
      const durationMs = (firstTokenMs + generatingMs) * factor
      const ends: Array<Extract<Fate, { _tag: "Failed" }>> = []
      if (chance < failing) ends.push(sick("server", failsAfterMs, "simulated: something went wrong"))
      if (hangs || firstTokenMs * factor > timeouts.firstTokenMs) {
        ends.push(sick("timeout", timeouts.firstTokenMs, "simulated: no first token"))
      }
      if (durationMs > timeouts.attemptMs) ends.push(sick("timeout", timeouts.attemptMs, "simulated: too long"))
      for (const { from, kind } of own) {
        if (kind === "down" && from > at) ends.push(sick("network", from - at, "simulated: it broke off"))
      }
      const [first] = ends.sort((a, b) => a.afterMs - b.afterMs)
      return first !== undefined && (hangs || first.afterMs < durationMs)
        ? first
        : { _tag: "Answered", firstTokenMs: firstTokenMs * factor, durationMs }
    }

    const refuse = (failure: QuotaFailure): Fate => {
      refused += 1
      return { _tag: "Failed", afterMs: ROUND_TRIP_MS, failure }
    }

    const deltasOf = (task: DayTask, fate: Fate, at: number): Stream.Stream<Delta, AttemptFailure> => {
      if (fate._tag === "Failed") {
        return Stream.fromEffect(Effect.zipRight(Effect.sleep(fate.afterMs), Effect.fail(fate.failure)))
      }
      const headersMs = Math.min(ROUND_TRIP_MS, fate.firstTokenMs)
      const after = (ms: number, delta: () => Delta) =>
        Stream.fromEffect(Effect.zipRight(Effect.sleep(ms), Effect.sync(delta)))
      return after(headersMs, () => ({
        _tag: "Start",
        limits: tells.has(id) ? provider.readings(at + headersMs) : []
      })).pipe(
        Stream.concat(after(fate.firstTokenMs - headersMs, () => ({ _tag: "Text", text: "done" }))),
        Stream.concat(
          after(fate.durationMs - fate.firstTokenMs, () => ({
            _tag: "Finish",
            finishReason: "stop",
            model,
            usage: usageOf(task)
          }))
        )
      )
    }

    const nothing = { inputTokens: 0, outputTokens: 0, maxOutput: 0 }

    const stream: PlatformClient["stream"] = (_, call) =>
      Stream.unwrapScoped(
        Effect.gen(function* () {
          const task = tasks.get(call)
          if (task === undefined) return yield* Effect.dieMessage("a call that no task of the day made")
          const at = yield* monotonicMs
          attempts += 1
          if (troubleAt("down", at) !== undefined) return deltasOf(task, isDown, at)
          const usedUp = troubleAt("used up", at)
          if (usedUp !== undefined) {
            const message = "simulated: the quota is used up"
            const resetsAt = usedUp.to
            return deltasOf(
              task,
              refuse(new QuotaFailure({ platform: id, model, message, reason: "window", window: "daily", resetsAt })),
              at
            )
          }
          const verdict = provider.arrive(task, at)
          if (verdict._tag === "Refused") return deltasOf(task, refuse(refusalOf(id, verdict)), at)
          const fate = fateOf(task, at)
          // who is interrupted has closed the connection, and is not charged
          yield* Effect.addFinalizer(() =>
            Effect.map(monotonicMs, (now) =>
              provider.complete(fate._tag === "Answered" && now >= at + fate.durationMs ? task : nothing, now)
            )
          )
          return deltasOf(task, fate, at)
        })
      )

    const client: PlatformClient = {
      id,
      settings,
      stream,
      complete: (asked, call) => gatherAnswer(client, asked, call, () => Effect.void, MutableRef.make(Option.none())),
      listModels: Effect.succeed([model]),
      check: Effect.gen(function* () {
        yield* Effect.sleep(ROUND_TRIP_MS)
        const now = yield* monotonicMs
        if (troubleAt("down", now) !== undefined) return yield* isDown.failure
        return { models: [model], readings: settings.quotasUrl === undefined ? [] : provider.readings(now) }
      })
    }
    return client
  }

  return {
    clients: platforms.map(clientOf),
    callOf: (task) => {
      const call: Call = {
        messages: [{ role: "user", content: "x".repeat(4 * task.estimatedInput) }],
        maxOutputTokens: task.maxOutput
      }
      tasks.set(call, task)
      return call
    },
    attempts: () => attempts,
    refused: () => refused
  }
}

export const platformIds: ReadonlyArray<PlatformId> = platforms.map(({ id }) => id)
