import { Effect, Random } from "effect"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import type { Priority, TaskType, TenantId } from "../../../src/Domain/Task.js"
import { logNormal, somePriority, someTenant, someType } from "../support/Draw.js"

/** One call of a simulated load: what is known of it beforehand, and what only the simulation knows. All times in ms. */
export interface SimulatedCall {
  /** Counted from 0 in the order of arrival. */
  readonly id: number
  readonly type: TaskType
  readonly priority: Priority
  readonly tenant: TenantId
  /** Who can serve it. */
  readonly platforms: ReadonlyArray<PlatformId>
  readonly arrivesAt: number
  /** From the sending until the provider counts it; an answer takes as long on its way back. */
  readonly lagMs: number
  /** From the sending until the response's headers are back. */
  readonly headersMs: number
  /** From the sending until the whole answer is back. */
  readonly durationMs: number
  /** What the one who sends it believes its input to be, tokens. */
  readonly estimatedInput: number
  readonly inputTokens: number
  readonly maxOutput: number
  readonly outputTokens: number
}

export interface LoadSpec {
  readonly calls: number
  readonly platforms: ReadonlyArray<PlatformId>
  /** Of the calls' log-normal lengths, ms. */
  readonly medianMs: number
  readonly medianInput: number
  readonly medianOutput: number
  readonly maxOutput: number
  /** Until when HIGH calls arrive, evenly; the others are there from the beginning. */
  readonly arrivalsMs: number
  /** Platforms that cannot serve one call in eight, as if it needed what they lack. */
  readonly lacking?: ReadonlyArray<PlatformId>
}

/** Spread of the logarithm of lengths and of tokens. */
const SIGMA_LENGTH = 0.6
const SIGMA_TOKENS = 0.5
/** Estimates are wrong by up to this part, either way. */
const ESTIMATE_ERROR = 0.5

/** The times of one call: what the network takes, what the model takes. */
export const times = (medianMs: number) =>
  Effect.gen(function* () {
    const lagMs = yield* Random.nextIntBetween(20, 61)
    const durationMs = Math.max(4 * lagMs, yield* logNormal(medianMs, SIGMA_LENGTH))
    const thinkMs = yield* Random.nextIntBetween(20, 241)
    return { lagMs, durationMs, headersMs: Math.min(durationMs - lagMs, 2 * lagMs + thinkMs) }
  })

/** A load of many calls, the same for the same seed. */
export const makeLoad = (spec: LoadSpec, seed: string): ReadonlyArray<SimulatedCall> => {
  const able = spec.platforms.filter((platform) => !(spec.lacking ?? []).includes(platform))
  const one = Effect.gen(function* () {
    const priority = yield* somePriority
    const [type, scale] = yield* someType
    const inputTokens = yield* logNormal(spec.medianInput, SIGMA_TOKENS)
    const error = yield* Random.nextRange(-ESTIMATE_ERROR, ESTIMATE_ERROR)
    return {
      type,
      priority,
      tenant: yield* someTenant,
      platforms: (yield* Random.next) < 1 / 8 ? able : spec.platforms,
      arrivesAt: priority === "HIGH" ? yield* Random.nextIntBetween(0, spec.arrivalsMs) : 0,
      ...(yield* times(spec.medianMs)),
      inputTokens,
      estimatedInput: Math.max(1, Math.round(inputTokens * (1 + error))),
      maxOutput: spec.maxOutput,
      outputTokens: Math.min(spec.maxOutput, yield* logNormal(spec.medianOutput * scale, SIGMA_TOKENS))
    }
  })
  return Effect.runSync(Effect.withRandom(Effect.replicateEffect(one, spec.calls), Random.make(seed)))
    .sort((a, b) => a.arrivesAt - b.arrivesAt)
    .map((call, id) => ({ ...call, id }))
}
