import { Chunk, Effect, Random } from "effect"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import type { TaskType, TenantId } from "../../../src/Domain/Task.js"
import type { Usage } from "../../../src/Domain/Usage.js"
import { logNormal, someTenant, someType } from "../support/Draw.js"

/** A task of a simulated day: what is known of it beforehand, and what only the simulation knows. */
export interface DayTask {
  /** Counted from 0 in the order of arrival. */
  readonly id: number
  readonly type: TaskType
  readonly tenant: TenantId
  /** Ms since the day began. */
  readonly arrivesAt: number
  /** What the one who sends it believes its input to be, tokens. */
  readonly estimatedInput: number
  readonly inputTokens: number
  readonly maxOutput: number
  readonly outputTokens: number
}

/** What can be wrong with a platform. */
export type TroubleKind =
  /** Every attempt fails at once, health checks do too, and running calls break off. */
  | "down"
  /** Attempts get no answer until they time out; health checks pass. */
  | "hangs"
  /** 30 % of the attempts fail within seconds; health checks pass. */
  | "errors"
  /** Answers take four times as long. */
  | "slow"
  /** A quota is used up: a 429 that names its reset. */
  | "used up"

/** Instants are ms since the day began. */
export interface Trouble {
  readonly kind: TroubleKind
  readonly platform: PlatformId
  readonly from: number
  readonly to: number
}

export interface Day {
  readonly tasks: ReadonlyArray<DayTask>
  readonly troubles: ReadonlyArray<Trouble>
}

export type LoadName = "ordinary" | "heavy"

/** How much work a day brings. */
export interface Load {
  /** On average. */
  readonly tasksADay: number
  /** Of a task's answer, before its type makes it longer or shorter, tokens. */
  readonly medianOutput: number
  /** The most that an answer may have, tokens. */
  readonly maxOutput: number
}

/** All platforms being well, the busiest hour needs two fifths of their permits at the one load, three fifths at the other. */
export const loads: Readonly<Record<LoadName, Load>> = {
  ordinary: { tasksADay: 5_000, medianOutput: 2_500, maxOutput: 12_000 },
  heavy: { tasksADay: 5_000, medianOutput: 3_500, maxOutput: 32_768 }
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** The day begins at eight in the morning; work comes fastest six hours later and slowest at two in the night. */
export const dayBeginsAt = 8
const BUSIEST_AT = 6 * HOUR
/** At its busiest 1.6 times, and at its quietest 0.4 times as much as on average. */
const SWING = 0.6

const MEDIAN_INPUT = 3_000
const SIGMA_TOKENS = 0.5
/** Estimates of the input are wrong by up to this part, either way. */
const ESTIMATE_ERROR = 0.4

/** What happens in a day, and how long it lasts, minutes. */
const lasting: Readonly<Record<TroubleKind, readonly [least: number, most: number]>> = {
  down: [20, 60],
  hangs: [20, 60],
  errors: [30, 60],
  slow: [120, 120],
  "used up": [60, 180]
}
const ofADay: ReadonlyArray<TroubleKind> = [
  ...["down", "down", "down", "hangs", "hangs", "hangs"],
  ...["errors", "errors", "slow", "slow", "used up", "used up"]
] as const

const makeTasks = (
  hours: number,
  { maxOutput, medianOutput, tasksADay }: Load
): Effect.Effect<ReadonlyArray<DayTask>> =>
  Effect.gen(function* () {
    const tasks: Array<DayTask> = []
    // a Poisson process of the greatest rate, of which each arrival stays with the chance that its hour's rate is of that
    const everyMs = (24 * HOUR) / (tasksADay * (1 + SWING))
    for (let at = 0; ; ) {
      at += -Math.log(1 - (yield* Random.next)) * everyMs
      if (at >= hours * HOUR) return tasks
      const rate = 1 + SWING * Math.cos((2 * Math.PI * (at - BUSIEST_AT)) / (24 * HOUR))
      if ((yield* Random.next) * (1 + SWING) > rate) continue
      const [type, scale] = yield* someType
      const inputTokens = yield* logNormal(MEDIAN_INPUT, SIGMA_TOKENS)
      const error = yield* Random.nextRange(-ESTIMATE_ERROR, ESTIMATE_ERROR)
      tasks.push({
        id: tasks.length,
        type,
        tenant: yield* someTenant,
        arrivesAt: Math.ceil(at),
        estimatedInput: Math.round(inputTokens * (1 + error)),
        inputTokens,
        maxOutput,
        outputTokens: Math.min(maxOutput, yield* logNormal(medianOutput * scale, SIGMA_TOKENS))
      })
    }
  })

/** One after the other, each in a part of the day of its own; the platforms take turns, in an order that changes. */
const makeTroubles = (platforms: ReadonlyArray<PlatformId>): Effect.Effect<ReadonlyArray<Trouble>> =>
  Effect.gen(function* () {
    const kinds = Chunk.toReadonlyArray(yield* Random.shuffle(ofADay))
    const troubles: Array<Trouble> = []
    let turns: ReadonlyArray<PlatformId> = []
    for (const [index, kind] of kinds.entries()) {
      if (turns.length === 0) turns = Chunk.toReadonlyArray(yield* Random.shuffle(platforms))
      const [platform, ...others] = turns
      if (platform === undefined) return []
      turns = others
      const part = (24 * HOUR) / kinds.length
      const from = Math.round((index + (yield* Random.next)) * part)
      const [least, most] = lasting[kind]
      const to = from + Math.round((yield* Random.nextRange(least, most)) * MINUTE)
      troubles.push({ kind, platform, from, to })
    }
    return troubles
  })

/** The same for the same seed. `hours`: how much of the day there is, from its beginning. */
export const makeDay = (options: {
  readonly seed: string
  readonly hours: number
  readonly load: Load
  readonly platforms: ReadonlyArray<PlatformId>
}): Day => {
  const { hours, load, platforms, seed } = options
  return {
    tasks: Effect.runSync(Effect.withRandom(makeTasks(hours, load), Random.make(`${seed} tasks`))),
    troubles: Effect.runSync(Effect.withRandom(makeTroubles(platforms), Random.make(`${seed} troubles`))).filter(
      ({ from }) => from < hours * HOUR
    )
  }
}

export const usageOf = ({ inputTokens, outputTokens }: DayTask): Usage => ({
  inputTokens,
  cachedInputTokens: 0,
  outputTokens,
  reasoningTokens: 0
})
