import type { ModelLimits, PlatformLimits, WindowLimit } from "./Shape.js"

export const shortestWindowMs = 1_000
export const longestWindowMs = 31 * 86_400_000
export const windowText = "a duration from 1s to 31d, such as 30s, 5h or 7d"

const minuteMs = 60_000

/** What is wrong with one of a platform's limits. */
export interface LimitsProblem {
  /** Where it stands, such as `burst` or `windows`, `0`, `requests`. */
  readonly path: ReadonlyArray<string>
  /** The same with dots between. */
  readonly field: string
  readonly problem: string
  /** What would be right. */
  readonly expected: string
}

/** A limit of an amount in a window, under the path that sets it. */
interface Bound {
  readonly path: ReadonlyArray<string>
  readonly unit: keyof Omit<WindowLimit, "windowMs">
  readonly windowMs: number
}

const isWhole = (value: number): boolean => Number.isSafeInteger(value) && value > 0
const isPositive = (value: number): boolean => Number.isFinite(value) && value > 0

/**
 * Every way in which a platform's limits contradict themselves or say nothing; empty where they are sound. Pure: for the
 * settings' sources and for changes while the service runs alike.
 */
export const limitsProblems = (limits: PlatformLimits): ReadonlyArray<LimitsProblem> => {
  const problems: Array<LimitsProblem> = []
  const complain = (path: ReadonlyArray<string>, problem: string, expected: string): void => {
    problems.push({ path, field: path.join("."), problem, expected })
  }

  const whole = (path: ReadonlyArray<string>, value: number | undefined): void => {
    if (value !== undefined && !isWhole(value)) complain(path, "not a limit", "a whole number greater than 0")
  }

  const positive = (path: ReadonlyArray<string>, value: number | undefined): void => {
    if (value !== undefined && !isPositive(value)) complain(path, "not an amount", "a number greater than 0")
  }

  const length = (path: ReadonlyArray<string>, windowMs: number): void => {
    if (!(windowMs >= shortestWindowMs && windowMs <= longestWindowMs)) {
      complain(path, "a window of that length is not kept", windowText)
    }
  }

  /** The amounts of a list of windows, in the order in which they stand. */
  const boundsOf = (at: ReadonlyArray<string>, windows: ReadonlyArray<WindowLimit>): ReadonlyArray<Bound> =>
    windows.flatMap((window, index) => {
      const { costUsd, requests, tokens, windowMs } = window
      const path = [...at, "windows", String(index)]
      length([...path, "windowMs"], windowMs)
      whole([...path, "requests"], requests)
      whole([...path, "tokens"], tokens)
      positive([...path, "costUsd"], costUsd)
      if (requests === undefined && tokens === undefined && costUsd === undefined) {
        complain(path, "a window without an amount", "requests, tokens or costUsd beside its windowMs")
      }
      return (["requests", "tokens", "costUsd"] as const).flatMap((unit) =>
        window[unit] === undefined ? [] : [{ path: [...path, unit], unit, windowMs }]
      )
    })

  /** The amounts of a minute, and of the windows, of a platform or of one of its models. */
  const checked = (at: ReadonlyArray<string>, given: ModelLimits, further: ReadonlyArray<Bound>): void => {
    const bounds: Array<Bound> = []
    for (const [key, unit] of [
      ["requestsPerMinute", "requests"],
      ["tokensPerMinute", "tokens"]
    ] as const) {
      whole([...at, key], given[key])
      if (given[key] !== undefined) bounds.push({ path: [...at, key], unit, windowMs: minuteMs })
    }
    const seen = new Map<string, Bound>()
    for (const bound of [...bounds, ...further, ...boundsOf(at, given.windows ?? [])]) {
      const key = `${bound.unit}/${bound.windowMs}`
      const earlier = seen.get(key)
      if (earlier === undefined) seen.set(key, bound)
      else {
        complain(
          bound.path,
          `a second limit of the window that ${earlier.path.join(".")} bounds`,
          "one limit per unit and window"
        )
      }
    }
    whole([...at, "maxConcurrent"], given.maxConcurrent)
  }

  const { burst, models = {}, requestsPerMinute, windowMs, windowRequests, windowTokens } = limits
  whole(["burst"], burst)
  whole(["windowRequests"], windowRequests)
  whole(["windowTokens"], windowTokens)
  whole(["maxConcurrentPerModel"], limits.maxConcurrentPerModel)

  if (burst !== undefined && requestsPerMinute === undefined) {
    complain(["burst"], "a burst without a limit of requests per minute", "requests per minute beside it")
  }
  if (burst !== undefined && requestsPerMinute !== undefined && burst > requestsPerMinute) {
    complain(["burst"], "more than the requests per minute", `at most ${requestsPerMinute}, or none`)
  }

  const own: Array<Bound> = []
  for (const [key, unit] of [
    ["windowRequests", "requests"],
    ["windowTokens", "tokens"]
  ] as const) {
    if (limits[key] === undefined) continue
    if (windowMs === undefined) {
      complain([key], `${unit} of a window whose length is not known`, "the window's length beside it, such as 5h")
    } else own.push({ path: [key], unit, windowMs })
  }
  if (windowMs !== undefined) {
    length(["windowMs"], windowMs)
    if (windowRequests === undefined && windowTokens === undefined) {
      complain(["windowMs"], "a window without an amount", "the window's requests or tokens beside it, or none")
    }
  }
  checked([], limits, own)

  for (const [model, given] of Object.entries(models)) {
    const at = ["models", model]
    positive([...at, "requestCost"], given.requestCost)
    checked(at, given, [])
  }
  return problems
}
