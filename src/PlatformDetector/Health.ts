import { DateTime, Option } from "effect"
import type { AttemptFailure } from "../Domain/Failure.js"
import type { Performance, PlatformResources } from "../Domain/Lease.js"
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

/** Attempts below which an error rate says nothing. */
const minAttempts = 5
const maxErrorRate = 0.2

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
    case "ModelFailure":
      return {
        ...used,
        modelsOut: new Map([...signs.modelsOut, [model, { message: failure.message, until: failure.resetsAt }]])
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

const untilInWords = (epochMs: number): string =>
  Option.match(DateTime.make(epochMs), { onNone: () => "", onSome: (at) => ` until ${DateTime.formatIso(at)}` })

export interface Measured {
  readonly performance: Performance
  readonly resources: PlatformResources
  /** Its configured model. */
  readonly model: string
  /** Epoch ms. */
  readonly now: number
}

/** The status that everything known of a platform comes to, and in words why it is not `available`. */
export const diagnose = (
  signs: Signs,
  { performance, resources, model, now }: Measured
): { readonly status: PlatformStatus; readonly reasons: ReadonlyArray<string> } => {
  const unavailable: Array<string> = []
  const degraded: Array<string> = []
  if (signs.credential !== undefined) unavailable.push(`its key is refused: ${signs.credential.message}`)
  const { inARow, message } = signs.failedChecks
  if (inARow >= failedChecksUntilOut) unavailable.push(`${inARow} health checks in a row failed: ${message}`)
  else if (inARow > 0) degraded.push(`its last health check failed: ${message}`)
  for (const [name, out] of signs.modelsOut) {
    if (out.until !== undefined && out.until <= now) continue
    const until = out.until === undefined ? "" : untilInWords(out.until)
    const where = name === model ? unavailable : degraded
    where.push(`its model ${name} is out${until}: ${out.message}`)
  }
  if (resources.breaker.state !== "closed") degraded.push(`its circuit breaker is ${resources.breaker.state}`)
  if (resources.exhaustedUntil !== undefined && resources.exhaustedUntil > now) {
    degraded.push(`its quota is used up${untilInWords(resources.exhaustedUntil)}`)
  }
  if (performance.attempts >= minAttempts && performance.errorRate > maxErrorRate) {
    const percent = Math.round(performance.errorRate * 100)
    degraded.push(`${percent} % of its last ${performance.attempts} attempts failed`)
  }
  if (signs.refusedCheck !== undefined && !signs.answered) {
    degraded.push(`it refuses the health check: ${signs.refusedCheck}`)
  }
  const reasons = [...unavailable, ...degraded]
  if (unavailable.length > 0) return { status: "unavailable", reasons }
  if (degraded.length > 0) return { status: "degraded", reasons }
  return signs.checkedAt === undefined
    ? { status: "unknown", reasons: ["it has not been checked yet"] }
    : { status: "available", reasons: [] }
}
