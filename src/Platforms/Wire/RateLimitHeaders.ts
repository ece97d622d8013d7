import type { LimitReading } from "../../Domain/Call.js"

/** Response headers by lower-case name. */
export type ResponseHeaders = Readonly<Record<string, string | undefined>>

/** The longest wait that is believed, ms: 400 days. A longer one is a provider's mistake. */
export const longestWaitMs = 400 * 86_400_000

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const bounded = (ms: number): number | undefined =>
  Number.isFinite(ms) ? Math.min(Math.max(Math.ceil(ms), 0), longestWaitMs) : undefined

/** A duration such as `120ms`, `6m0s`, `1h2m3.5s` or `34s`, in ms. */
export const parseDuration = (text: string): number | undefined => {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/.test(text)) {
    return undefined
  }
  let total = 0
  for (const [, count, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(count) * (unitMs[unit ?? ""] ?? 0)
  }
  return bounded(total)
}

const number = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d+(?:\.\d+)?$/.test(text.trim()) ? Number(text) : undefined

/** Epoch seconds or epoch milliseconds, told apart by their size, as ms. */
export const epochMs = (value: number): number => (value >= 1e11 ? value : value * 1_000)

/**
 * What `x-ratelimit-reset-*` says, as ms from now: a duration, seconds, or an instant (epoch s, epoch ms, ISO 8601).
 */
export const parseReset = (text: string, nowMs: number): number | undefined => {
  const trimmed = text.trim()
  const value = number(trimmed)
  if (value !== undefined) {
    return bounded(value >= 1e9 ? epochMs(value) - nowMs : value * 1_000)
  }
  return (
    parseDuration(trimmed) ?? (/^\d{4}-\d{2}-\d{2}T/.test(trimmed) ? bounded(Date.parse(trimmed) - nowMs) : undefined)
  )
}

/** What `retry-after-ms` or `retry-after` (seconds, or an HTTP date) says, ms from now. */
export const parseRetryAfter = (headers: ResponseHeaders, nowMs: number): number | undefined => {
  const ms = number(headers["retry-after-ms"])
  if (ms !== undefined) {
    return bounded(ms)
  }
  const text = headers["retry-after"]?.trim()
  if (text === undefined || text === "") {
    return undefined
  }
  const seconds = number(text)
  return seconds !== undefined
    ? bounded(seconds * 1_000)
    : (parseDuration(text) ?? (/ GMT$/.test(text) ? bounded(Date.parse(text) - nowMs) : undefined))
}

/**
 * The limits that `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` tell of (OpenAI and those who follow it);
 * empty where a provider sends none.
 */
export const readLimits = (headers: ResponseHeaders, nowMs: number): ReadonlyArray<LimitReading> => {
  const readings: Array<LimitReading> = []
  for (const unit of ["requests", "tokens"] as const) {
    const limit = number(headers[`x-ratelimit-limit-${unit}`])
    const remaining = number(headers[`x-ratelimit-remaining-${unit}`])
    const reset = headers[`x-ratelimit-reset-${unit}`]
    const resetsInMs = reset === undefined ? undefined : parseReset(reset, nowMs)
    if (limit !== undefined || remaining !== undefined || resetsInMs !== undefined) {
      readings.push({ unit, limit, remaining, resetsInMs })
    }
  }
  return readings
}
