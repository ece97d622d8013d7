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

const number = (text: string | undefined): number | undefined => {
  if (text === undefined || !/^\d+(?:\.\d+)?$/.test(text.trim())) {
    return undefined
  }
  const value = Number(text)
  return Number.isFinite(value) ? value : undefined
}

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

const minuteMs = 60_000

/**
 * The window of an `x-ratelimit-*` limit, which no header names. OpenAI lets a limit come back evenly, so that the used
 * part of it and the time until it is whole show how long the whole takes; others count otherwise, and then the same
 * figures mean something else. So a minute is told only where both agree on it: what is used takes more than half a
 * minute to come back, and the whole would take one. Everything else is left open, such as a reset of 8.64 s, which is
 * one of 10,000 requests a day as well as the rest of a fixed minute.
 */
const windowOf = (
  limit: number | undefined,
  remaining: number | undefined,
  resetsInMs: number | undefined
): number | undefined => {
  if (limit === undefined || remaining === undefined || resetsInMs === undefined || remaining >= limit) {
    return undefined
  }
  const wholeMs = (resetsInMs * limit) / (limit - remaining)
  const isMinute = resetsInMs > minuteMs / 2 && resetsInMs <= minuteMs && Math.abs(wholeMs - minuteMs) <= minuteMs / 10
  return isMinute ? minuteMs : undefined
}

/** The limits that `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` tell of (OpenAI and those who follow it). */
const apiLimits = (headers: ResponseHeaders, nowMs: number): ReadonlyArray<LimitReading> =>
  (["requests", "tokens"] as const).flatMap((unit) => {
    const limit = number(headers[`x-ratelimit-limit-${unit}`])
    const remaining = number(headers[`x-ratelimit-remaining-${unit}`])
    const reset = headers[`x-ratelimit-reset-${unit}`]
    const resetsInMs = reset === undefined ? undefined : parseReset(reset, nowMs)
    return limit === undefined && remaining === undefined && resetsInMs === undefined
      ? []
      : [{ unit, windowMs: windowOf(limit, remaining, resetsInMs), limit, remaining, resetsInMs }]
  })

/**
 * The windows of a ChatGPT plan that `x-codex-{primary,secondary}-{used-percent,window-minutes,reset-at}` tell of: the
 * shorter one first, some hours and a week as a rule.
 */
export const planLimits = (headers: ResponseHeaders, nowMs: number): ReadonlyArray<LimitReading> =>
  (["primary", "secondary"] as const).flatMap((name) => {
    const usedPercent = number(headers[`x-codex-${name}-used-percent`])
    if (usedPercent === undefined) {
      return []
    }
    const minutes = number(headers[`x-codex-${name}-window-minutes`]) ?? 0
    const resetAt = number(headers[`x-codex-${name}-reset-at`]) ?? 0
    return [
      {
        unit: "percent",
        name,
        windowMs: minutes > 0 ? bounded(minutes * minuteMs) : undefined,
        limit: 100,
        remaining: Math.max(0, 100 - usedPercent),
        resetsInMs: resetAt > 0 ? bounded(epochMs(resetAt) - nowMs) : undefined
      }
    ]
  })

/** What a response's headers tell of the provider's limits; empty where they tell nothing, and what is no value is not told. */
export const readLimits = (headers: ResponseHeaders, nowMs: number): ReadonlyArray<LimitReading> => [
  ...apiLimits(headers, nowMs),
  ...planLimits(headers, nowMs)
]
