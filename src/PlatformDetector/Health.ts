import { DateTime, Option } from "effect"
import { percentile } from "../Benchmark/percentile.js"
import type { AttemptFailure } from "../Domain/Failure.js"
import {
  type BreakerView,
  drainedInWords,
  type ModelHealth,
  type Performance,
  type PlatformResources
} from "../Domain/Lease.js"
import type { PlatformStatus } from "../Domain/Platform.js"

/** What checks and real attempts have shown of one platform so far. */
export interface Signs {
  /** When it was last checked or used, epoch ms. */
  readonly checkedAt: number | undefined
  /** Whether it has answered a real attempt since the start. */
  readonly answered: boolean
  readonly failedChecks: { readonly inARow: number; readonly message: string }
  /** It answers, but will not have this kind of check. */
  readonly refusedCheck: string | undefined
  readonly credential: { readonly message: string; readonly passesNeeded: number } | undefined
  /** Attempts refused for the key since the last answer, counted once for each time the platform went out. */
  readonly credentialOutages: number
  readonly modelsOut: ReadonlyMap<string, { readonly message: string; readonly until: number | undefined }>
}

export const noSigns: Signs = {
  checkedAt: undefined,
  answered: false,
  failedChecks: { inARow: 0, message: "" },
  refusedCheck: undefined,
  credential: undefined,
  credentialOutages: 0,
  modelsOut: new Map()
}

const noFailedChecks = noSigns.failedChecks

/** Failed checks in a row after which a platform gets no calls until one passes. */
const failedChecksUntilOut = 2

/** Models of one platform that are remembered as out. */
const maxModelsOut = 64

/** Attempts below which an error rate says nothing. */
const minAttempts = 5
/** Above `bad` it is a reason, from then on until it is no more than `well`: a rate on the edge makes no status flap. */
const errorRates = { bad: 0.2, well: 0.15 } as const

/** Answers of the latest minutes below which their speed says nothing, and below which what it said before is over. */
const answersNeeded = { bad: 3, well: 1 } as const
/** How many times its own average of about an hour, and the median of its peers, is far above it. */
const timesItself = { bad: 3, well: 2 } as const
const timesPeers = { bad: 5, well: 3 } as const
/** Platforms whose median says what is usual; of two alone nobody knows which one is odd. */
const peersNeeded = 2
/** A call of 500 output tokens that takes less than this longer is not far above anything, ms. */
const noticeableMs = 1_000

/** Checks that must pass before a refused key is tried again, at most. */
const maxPassesNeeded = 64

export const afterPassedCheck = (signs: Signs, now: number): Signs => {
  const passesNeeded = (signs.credential?.passesNeeded ?? 0) - 1
  return {
    ...signs,
    checkedAt: now,
    failedChecks: noFailedChecks,
    refusedCheck: undefined,
    credential: signs.credential !== undefined && passesNeeded > 0 ? { ...signs.credential, passesNeeded } : undefined
  }
}

export const afterFailedCheck = (signs: Signs, failure: AttemptFailure, now: number): Signs => {
  const checked: Signs = { ...signs, checkedAt: now }
  switch (failure._tag) {
    case "PlatformFailure":
      return { ...checked, failedChecks: { inARow: signs.failedChecks.inARow + 1, message: failure.message } }
    case "CredentialFailure":
      return {
        ...checked,
        failedChecks: noFailedChecks,
        credential: { message: failure.message, passesNeeded: signs.credential?.passesNeeded ?? 1 }
      }
    case "QuotaFailure":
      return { ...checked, failedChecks: noFailedChecks, refusedCheck: undefined }
    case "RequestFailure":
    case "ModelFailure":
      return { ...checked, failedChecks: noFailedChecks, refusedCheck: failure.message }
  }
}

export const afterAnswer = (signs: Signs, model: string, now: number): Signs => ({
  checkedAt: now,
  answered: true,
  failedChecks: noFailedChecks,
  refusedCheck: undefined,
  credential: undefined,
  credentialOutages: 0,
  modelsOut: signs.modelsOut.has(model)
    ? new Map([...signs.modelsOut].filter(([name]) => name !== model))
    : signs.modelsOut
})

export const afterFailedAttempt = (signs: Signs, model: string, failure: AttemptFailure, now: number): Signs => {
  const used: Signs = { ...signs, checkedAt: now }
  switch (failure._tag) {
    case "CredentialFailure": {
      // Some refusals (an unpaid account, a key without rights to the model) leave the check passing: each time the
      // key fails again, twice as many checks must pass, so that such a platform does not use up tasks' attempts.
      if (signs.credential !== undefined) return used
      const credentialOutages = signs.credentialOutages + 1
      const passesNeeded = Math.min(maxPassesNeeded, 2 ** (credentialOutages - 1))
      return { ...used, credentialOutages, credential: { message: failure.message, passesNeeded } }
    }
    case "ModelFailure": {
      const others = [...signs.modelsOut].filter(([name]) => name !== model).slice(1 - maxModelsOut)
      return {
        ...used,
        modelsOut: new Map([...others, [model, { message: failure.message, until: failure.resetsAt }]])
      }
    }
    case "RequestFailure":
    case "QuotaFailure":
    case "PlatformFailure":
      return used
  }
}

/** Why the platform is to get no calls at all, or `undefined`. */
export const outReason = (signs: Signs): string | undefined =>
  signs.credential !== undefined
    ? `its key is refused: ${signs.credential.message}`
    : signs.failedChecks.inARow >= failedChecksUntilOut
      ? `its health checks fail: ${signs.failedChecks.message}`
      : undefined

/** Whether an attempt showed that the platform, or a model of it, is out or back. */
export const isOutChanged = (before: Signs, after: Signs): boolean =>
  before.credential !== after.credential ||
  before.modelsOut !== after.modelsOut ||
  before.failedChecks !== after.failedChecks

const untilInWords = (epochMs: number): string =>
  Option.match(DateTime.make(epochMs), { onNone: () => "", onSome: (at) => ` until ${DateTime.formatIso(at)}` })

/** What a breaker holds back, or `undefined` where it lets everything through. */
const breakerReason = (
  { capacityPercent, state }: Pick<BreakerView, "capacityPercent" | "state">,
  breaker: string,
  guarded: string
): string | undefined =>
  state !== "closed"
    ? `${breaker} is ${state}`
    : capacityPercent < 100
      ? `${guarded} recovers and gets ${Math.round(capacityPercent)} % of its capacity`
      : undefined

/** What was measured of one model of late. */
export interface ModelReading {
  readonly model: string
  readonly performance: Performance
  /** Answers of late, as `RecentPerformance` counts them. */
  readonly answers: number
  /** How long a call of 500 output tokens takes, ms, averaged over them. */
  readonly callMs?: number | undefined
  /** The same, averaged over about an hour. */
  readonly baselineMs?: number | undefined
}

export interface Measured {
  /** Of all its models together. */
  readonly performance: Performance
  /** The one used last first. */
  readonly models: ReadonlyArray<ModelReading>
  /** How long a call of 500 output tokens takes on the other platforms, ms: each one's, where enough is known of it. */
  readonly peersMs: ReadonlyArray<number>
  readonly resources: PlatformResources
  /** Its configured model. */
  readonly model: string
  /** Epoch ms. */
  readonly now: number
}

/** What was found wrong and holds until it is clearly better. */
export interface Troubles {
  /** Whether the platform as a whole fails too often. */
  readonly failing: boolean
  readonly failingModels: ReadonlySet<string>
  readonly slowModels: ReadonlySet<string>
}

export const noTroubles: Troubles = { failing: false, failingModels: new Set(), slowModels: new Set() }

export interface Diagnosis {
  readonly status: PlatformStatus
  /** In words, why it is not `available`. */
  readonly reasons: ReadonlyArray<string>
  /** Each model that was used or is spoken of. */
  readonly models: ReadonlyArray<ModelHealth>
  readonly troubles: Troubles
}

/** How long a call of ordinary length takes on a platform, ms, where enough is known of it for others to be compared. */
export const usualMs = (models: ReadonlyArray<Pick<ModelReading, "answers" | "callMs">>): number | undefined =>
  percentile(
    models.flatMap(({ answers, callMs }) => (answers >= answersNeeded.bad ? (callMs ?? []) : [])),
    0.5
  )

const isFailing = ({ attempts, errorRate }: Performance, was: boolean): boolean =>
  attempts >= minAttempts && errorRate > (was ? errorRates.well : errorRates.bad)

const failingInWords = (whose: string, { attempts, errorRate }: Performance): string =>
  `${Math.round(errorRate * 100)} % of ${whose} last ${attempts} attempts failed`

const inSeconds = (ms: number): string => `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`

/** Against what, and by how much, a model is slow, or `undefined`. */
const slowness = (
  { answers, baselineMs, callMs, model }: ModelReading,
  peersMs: ReadonlyArray<number>,
  was: boolean
): string | undefined => {
  const bound = was ? "well" : "bad"
  if (callMs === undefined || answers < answersNeeded[bound]) return undefined
  const than = (otherMs: number | undefined, times: number, name: string): string | undefined =>
    otherMs !== undefined && otherMs > 0 && callMs > otherMs * times && callMs - otherMs >= noticeableMs
      ? `${(callMs / otherMs).toFixed(1)} times ${name} of ${inSeconds(otherMs)}`
      : undefined
  const against = [
    than(baselineMs, timesItself[bound], "its own average"),
    than(
      peersMs.length < peersNeeded ? undefined : percentile(peersMs, 0.5),
      timesPeers[bound],
      "the other platforms' median"
    )
  ].filter((part) => part !== undefined)
  return against.length === 0
    ? undefined
    : `its model ${model} takes ${inSeconds(callMs)} for a call of 500 output tokens, ${against.join(" and ")}`
}

const unmeasured: Performance = { attempts: 0, errorRate: 0, tokens: 0 }

/** The status that everything known of a platform comes to, in words why it is not `available`, and so of its models. */
export const diagnose = (
  signs: Signs,
  { model: configured, models, now, peersMs, performance, resources }: Measured,
  before: Troubles
): Diagnosis => {
  const unavailable: Array<string> = []
  const degraded: Array<string> = []
  const ofModels = new Map<string, { readonly unavailable: Array<string>; readonly degraded: Array<string> }>(
    models.map(({ model }) => [model, { unavailable: [], degraded: [] }])
  )
  const ofModel = (name: string) => {
    const found = ofModels.get(name) ?? { unavailable: [], degraded: [] }
    ofModels.set(name, found)
    return found
  }
  const { breaker, drained, exhausted, modelBreakers } = resources

  if (drained !== undefined) unavailable.push(drainedInWords(drained))
  if (signs.credential !== undefined) unavailable.push(`its key is refused: ${signs.credential.message}`)
  const { inARow, message } = signs.failedChecks
  if (inARow >= failedChecksUntilOut) unavailable.push(`${inARow} health checks in a row failed: ${message}`)
  else if (inARow > 0) degraded.push(`its last health check failed: ${message}`)
  for (const [name, out] of signs.modelsOut) {
    if (out.until !== undefined && out.until <= now) continue
    const until = out.until === undefined ? "" : untilInWords(out.until)
    const why = `its model ${name} is out${until}: ${out.message}`
    const where = name === configured ? unavailable : degraded
    where.push(why)
    ofModel(name).unavailable.push(why)
  }
  const guarded = breakerReason(breaker, "its circuit breaker", "it")
  if (guarded !== undefined) degraded.push(guarded)
  for (const own of modelBreakers) {
    const why = breakerReason(own, `the circuit breaker of its model ${own.model}`, `its model ${own.model}`)
    if (why === undefined) continue
    degraded.push(why)
    ofModel(own.model).degraded.push(why)
  }
  for (const quota of exhausted) {
    if (quota.until <= now) continue
    const name = quota.window === "quota" ? "quota" : `quota ${quota.window}`
    const whose = quota.model === undefined ? `its ${name}` : `the ${name} of its model ${quota.model}`
    const why = `${whose} is used up${untilInWords(quota.until)}: ${quota.why}`
    degraded.push(why)
    if (quota.model !== undefined) ofModel(quota.model).degraded.push(why)
  }

  const failing = isFailing(performance, before.failing)
  if (failing) degraded.push(failingInWords("its", performance))
  const failingModels = new Set<string>()
  const slowModels = new Set<string>()
  for (const reading of models) {
    const { model } = reading
    if (isFailing(reading.performance, before.failingModels.has(model))) {
      failingModels.add(model)
      const why = failingInWords(`its model ${model}'s`, reading.performance)
      // where the platform as a whole fails, which model was asked says no more
      if (!failing) degraded.push(why)
      ofModel(model).degraded.push(why)
    }
    const slow = slowness(reading, peersMs, before.slowModels.has(model))
    if (slow !== undefined) {
      slowModels.add(model)
      degraded.push(slow)
      ofModel(model).degraded.push(slow)
    }
  }
  if (signs.refusedCheck !== undefined && !signs.answered) {
    degraded.push(`it refuses the health check: ${signs.refusedCheck}`)
  }

  const reasons = [...unavailable, ...degraded]
  const isKnown = signs.checkedAt !== undefined
  return {
    status:
      unavailable.length > 0 ? "unavailable" : degraded.length > 0 ? "degraded" : isKnown ? "available" : "unknown",
    reasons: reasons.length > 0 || isKnown ? reasons : ["it has not been checked yet"],
    models: [...ofModels].map(([model, found]) => ({
      model,
      status: found.unavailable.length > 0 ? "unavailable" : found.degraded.length > 0 ? "degraded" : "available",
      reasons: [...found.unavailable, ...found.degraded],
      performance: models.find((reading) => reading.model === model)?.performance ?? unmeasured
    })),
    troubles: { failing, failingModels, slowModels }
  }
}
