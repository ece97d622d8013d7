/**
 * What a feed reports, and how it is read from what Claude Code gives. Plain TypeScript without packages: the feed's
 * program loads nothing else, so that it costs Claude Code next to nothing.
 */

/** Where a report comes from. */
export type FeedSource = "probe" | "rate_limit_event" | "statusline" | "hook" | "transcript" | "table"

/** How much of one window of the account was used. */
export interface ReportedReading {
  /** The provider's name of it, such as `five_hour`. */
  readonly window: string
  /** 0 to 100. */
  readonly usedPercent?: number | undefined
  /** Epoch ms. */
  readonly resetsAt?: number | undefined
  readonly status: "allowed" | "warning" | "rejected"
}

/** Tokens of one answer of the model; told several times, it counts once. */
export interface ReportedUsage {
  /** The answer's own id, with that of its request where there is one. */
  readonly message: string
  /** Read from and written to the cache included. */
  readonly inputTokens: number
  readonly outputTokens: number
}

/** What one source tells of one session at one moment. What is absent is not known to it, and changes nothing. */
export interface SessionReport {
  readonly sessionId: string
  /** The Claude configuration folder, absolute: limits belong to the account that is logged in there. */
  readonly account: string
  readonly source: FeedSource
  /** When it was so, epoch ms. */
  readonly at: number
  /**
   * `started`: opened, new or again; `active`: it got an answer, so the refusal before is over; `limited`: refused by a
   * limit; `ended`: closed. Absent where the source says nothing of it.
   */
  readonly status?: "started" | "active" | "limited" | "ended" | undefined
  readonly transcriptPath?: string | undefined
  readonly cwd?: string | undefined
  readonly model?: string | undefined
  /** 0 to 100. */
  readonly contextUsedPercent?: number | undefined
  readonly contextTokens?: number | undefined
  readonly contextWindow?: number | undefined
  readonly costUsd?: number | undefined
  /** The window that refused. */
  readonly limit?:
    | { readonly window: string; readonly hitAt: number; readonly resetsAt?: number | undefined }
    | undefined
  /** The process of Claude Code. */
  readonly pid?: number | undefined
  readonly permissionMode?: string | undefined
  readonly allowedTools?: ReadonlyArray<string> | undefined
  readonly launchedBy?: "user" | "dream-team" | undefined
  readonly handoff?: "auto" | "ask" | undefined
  /**
   * Of a source that repeats its readings: changes with every answer they may have come with. While it is the same, what
   * is read again is as old as before.
   */
  readonly answersMark?: string | undefined
  readonly readings: ReadonlyArray<ReportedReading>
  readonly usage: ReadonlyArray<ReportedUsage>
}

/** What a feed knows besides what it is given. */
export interface FeedContext {
  /** Epoch ms. */
  readonly at: number
  readonly account: string
  readonly pid?: number | undefined
}

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const objectOf = (value: unknown): Json => (isObject(value) ? value : {})

/** A text that is there and not absurdly long. */
const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" && value.length <= 4096 ? value : undefined

const amountOf = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) && value >= 0 && value <= Number.MAX_SAFE_INTEGER
    ? value
    : undefined

const countOf = (value: unknown): number | undefined => {
  const amount = amountOf(value)
  return amount === undefined ? undefined : Math.round(amount)
}

const percentOf = (value: unknown): number | undefined => {
  const amount = amountOf(value)
  return amount === undefined ? undefined : Math.min(amount, 100)
}

/** The last instant that a JavaScript date can hold. */
const lastMs = 8.64e15

/** Epoch ms of an instant in seconds or milliseconds since the epoch, or as ISO 8601. */
const instantOf = (value: unknown): number | undefined => {
  const number = typeof value === "string" ? Date.parse(value) : value
  if (typeof number !== "number" || !Number.isFinite(number) || number <= 0) return undefined
  const ms = Math.round(typeof value === "string" || number > 1e11 ? number : number * 1000)
  return ms <= lastMs ? ms : undefined
}

const sessionIdOf = (value: unknown): string | undefined =>
  typeof value === "string" && /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/.test(value) ? value : undefined

const windowOf = (value: unknown): string | undefined =>
  typeof value === "string" && /^[a-z0-9][a-z0-9_]{0,63}$/.test(value) ? value : undefined

/** Windows looked at in one report. */
const maxWindows = 16

/**
 * The JSON that Claude Code gives its status line on stdin. Its `rate_limits` are there for subscribers only, after the
 * first answer, and name no status: a window that is full has refused, or does so next.
 */
export const reportOfStatusline = (json: unknown, context: FeedContext): SessionReport | undefined => {
  const given = objectOf(json)
  const sessionId = sessionIdOf(given.session_id)
  if (sessionId === undefined) return undefined
  const window = objectOf(given.context_window)
  const cost = objectOf(given.cost)
  const used = percentOf(window.used_percentage)
  const size = countOf(window.context_window_size)
  const readings = Object.entries(objectOf(given.rate_limits))
    .slice(0, maxWindows)
    .flatMap(([name, value]): ReadonlyArray<ReportedReading> => {
      const limit = objectOf(value)
      const usedPercent = percentOf(limit.used_percentage)
      return windowOf(name) === undefined || usedPercent === undefined
        ? []
        : [
            {
              window: name,
              usedPercent,
              resetsAt: instantOf(limit.resets_at),
              status: usedPercent >= 100 ? "rejected" : "allowed"
            }
          ]
    })
  return {
    sessionId,
    account: context.account,
    source: "statusline",
    at: context.at,
    transcriptPath: textOf(given.transcript_path),
    cwd: textOf(given.cwd),
    model: textOf(objectOf(given.model).id),
    contextUsedPercent: used,
    contextTokens:
      tokensOf(window.current_usage)?.contextTokens ??
      (used === undefined || size === undefined ? undefined : Math.round((used * size) / 100)),
    contextWindow: size,
    costUsd: amountOf(cost.total_cost_usd),
    pid: context.pid,
    answersMark: [
      cost.total_cost_usd,
      cost.total_api_duration_ms,
      window.total_input_tokens,
      window.total_output_tokens
    ]
      .map((figure) => amountOf(figure) ?? "")
      .join(" "),
    readings,
    usage: []
  }
}

/** The tokens of one answer as Anthropic's API counts them. */
const tokensOf = (value: unknown) => {
  if (!isObject(value)) return undefined
  const input =
    (countOf(value.input_tokens) ?? 0) +
    (countOf(value.cache_creation_input_tokens) ?? 0) +
    (countOf(value.cache_read_input_tokens) ?? 0)
  const output = countOf(value.output_tokens) ?? 0
  return { input, output, contextTokens: input + output }
}

const statusOf = (status: unknown): ReportedReading["status"] | undefined =>
  status === "allowed"
    ? "allowed"
    : status === "allowed_warning"
      ? "warning"
      : status === "rejected"
        ? "rejected"
        : undefined

/** What `rate_limit_info` of an event, and `quotaLimits` of a transcript, say alike. */
const readingsOf = (value: unknown): ReadonlyArray<ReportedReading> => {
  const info = objectOf(value)
  const readings = new Map<string, ReportedReading>()
  const add = (name: unknown, limit: Json): void => {
    const window = windowOf(name)
    const status = statusOf(limit.status)
    if (window === undefined || status === undefined) return
    const utilization = amountOf(limit.utilization)
    readings.set(window, {
      window,
      usedPercent: utilization === undefined ? readings.get(window)?.usedPercent : percentOf(utilization * 100),
      resetsAt: instantOf(limit.resetsAt) ?? readings.get(window)?.resetsAt,
      status
    })
  }
  for (const [name, limit] of Object.entries(objectOf(info.unifiedWindows)).slice(0, maxWindows)) {
    add(name, objectOf(limit))
  }
  add(info.rateLimitType, info)
  return [...readings.values()]
}

/** The window that refused, where one did. */
const refusalOf = (
  info: unknown,
  readings: ReadonlyArray<ReportedReading>,
  at: number
): NonNullable<SessionReport["limit"]> | undefined => {
  const { rateLimitType, status } = objectOf(info)
  const refused = readings.find((reading) => reading.status === "rejected" && reading.window === rateLimitType)
  return status === "rejected" && refused !== undefined
    ? { window: refused.window, hitAt: at, resetsAt: refused.resetsAt }
    : undefined
}

/** A `rate_limit_event` of a headless session's stream. */
export const reportOfRateLimitEvent = (json: unknown, context: FeedContext): SessionReport | undefined => {
  const given = objectOf(json)
  const sessionId = sessionIdOf(given.session_id)
  if (given.type !== "rate_limit_event" || sessionId === undefined) return undefined
  const readings = readingsOf(given.rate_limit_info)
  const limit = refusalOf(given.rate_limit_info, readings, context.at)
  return {
    sessionId,
    account: context.account,
    source: "rate_limit_event",
    at: context.at,
    status: limit === undefined ? undefined : "limited",
    limit,
    pid: context.pid,
    readings,
    usage: []
  }
}

/** The window that a refusal's text means; only for want of a field. */
const windowInWords = (text: string): string | undefined => {
  if (!/\blimit\b/i.test(text)) return undefined
  if (/\bopus\b/i.test(text)) return "seven_day_opus"
  if (/\bsonnet\b/i.test(text)) return "seven_day_sonnet"
  if (/\bweekly\b|\b7-day\b/i.test(text)) return "seven_day"
  if (/\b5-hour\b|\bsession\b/i.test(text)) return "five_hour"
  if (/\bspend\b/i.test(text)) return "spend_limit"
  return undefined
}

/**
 * The JSON that Claude Code gives a hook on stdin. A hook is told of a refusal, but not of which window and until when:
 * that is in the session's transcript, whose end is `transcript`.
 */
export const reportOfHook = (json: unknown, context: FeedContext, transcript = ""): SessionReport | undefined => {
  const given = objectOf(json)
  const sessionId = sessionIdOf(given.session_id)
  if (sessionId === undefined) return undefined
  const report: SessionReport = {
    sessionId,
    account: context.account,
    source: "hook",
    at: context.at,
    transcriptPath: textOf(given.transcript_path),
    cwd: textOf(given.cwd),
    model: textOf(given.model),
    pid: context.pid,
    permissionMode: textOf(given.permission_mode),
    readings: [],
    usage: []
  }
  switch (given.hook_event_name) {
    case "SessionStart":
      return { ...report, status: "started" }
    case "Stop":
      return { ...report, status: "active" }
    case "SessionEnd": {
      // Claude Code does not wait for the hook that a headless session's refusal calls, but it does for this one.
      const refused = lastRefusal(transcript, context)
      return refused?.limit === undefined
        ? { ...report, status: "ended", pid: undefined }
        : { ...report, status: "limited", limit: refused.limit, readings: refused.readings, pid: undefined }
    }
    case "StopFailure": {
      if (given.error !== "rate_limit") return report
      const written = lastRefusal(transcript, context)
      if (written?.limit !== undefined) {
        return {
          ...report,
          status: "limited",
          limit: { ...written.limit, hitAt: context.at },
          readings: written.readings
        }
      }
      const words = textOf(given.last_assistant_message)
      const window = words === undefined ? undefined : windowInWords(words)
      if (window === undefined) return report
      return {
        ...report,
        status: "limited",
        limit: { window, hitAt: context.at },
        readings: [{ window, status: "rejected" }]
      }
    }
    default:
      return report
  }
}

/** A refusal written longer ago than this is not the one a hook tells of, ms. */
const sameRefusalMs = 60_000

/** The refusal that was the last answer, where it was one. */
const lastRefusal = (transcript: string, { account, at }: FeedContext): SessionReport | undefined => {
  for (const line of transcript.split("\n").reverse()) {
    if (!line.includes('"assistant"')) continue
    const report = reportOfTranscriptLine(parsed(line), { account, at })
    if (report?.status === undefined) continue
    return report.status === "limited" && at - report.at <= sameRefusalMs ? report : undefined
  }
  return undefined
}

/** What a text holds as JSON; undefined where it holds none. */
export const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * One line of a session's transcript. Answers tell what they used, in as many lines as they have parts; a refusal tells
 * its window and reset. `sessionId` is whose transcript it is, where that is known: copied lines name another one.
 */
export const reportOfTranscriptLine = (
  json: unknown,
  context: FeedContext & { readonly sessionId?: string | undefined; readonly transcriptPath?: string | undefined }
): SessionReport | undefined => {
  const line = objectOf(json)
  const sessionId = context.sessionId ?? sessionIdOf(line.sessionId)
  const at = instantOf(line.timestamp)
  if (sessionId === undefined || at === undefined || (line.type !== "user" && line.type !== "assistant")) {
    return undefined
  }
  const isMain = line.isSidechain !== true
  const report: SessionReport = {
    sessionId,
    account: context.account,
    source: "transcript",
    at: Math.min(at, context.at),
    transcriptPath: context.transcriptPath,
    cwd: isMain ? textOf(line.cwd) : undefined,
    permissionMode: isMain ? textOf(line.permissionMode) : undefined,
    readings: [],
    usage: []
  }
  if (line.type === "user") return report
  if (line.isApiErrorMessage === true) {
    const readings = readingsOf(line.quotaLimits)
    const limit = refusalOf(line.quotaLimits, readings, report.at)
    return { ...report, readings, limit, status: limit === undefined ? undefined : "limited" }
  }
  const message = objectOf(line.message)
  const id = textOf(message.id)
  const tokens = tokensOf(message.usage)
  if (id === undefined || tokens === undefined || message.model === "<synthetic>") return report
  return {
    ...report,
    status: isMain ? "active" : undefined,
    model: isMain ? textOf(message.model) : undefined,
    contextTokens: isMain ? tokens.contextTokens : undefined,
    usage: [
      {
        message: [id, textOf(line.requestId)].filter((part) => part !== undefined).join(" "),
        inputTokens: tokens.input,
        outputTokens: tokens.output
      }
    ]
  }
}

/** Reports of one session and source, in the order in which things happened, as one; undefined where there is none. */
export const merged = (reports: ReadonlyArray<SessionReport>): SessionReport | undefined => {
  const [first] = reports
  if (first === undefined) return undefined
  const told: Record<string, unknown> = {}
  const usage = new Map<string, ReportedUsage>()
  const readings = new Map<string, ReportedReading>()
  let { at, limit, status } = first
  for (const report of reports) {
    for (const [key, value] of Object.entries(report)) if (value !== undefined) told[key] = value
    at = Math.max(at, report.at)
    if (report.status !== undefined) {
      status = report.status
      limit = report.limit
    }
    for (const reading of report.readings) readings.set(reading.window, reading)
    for (const { inputTokens, message, outputTokens } of report.usage) {
      const known = usage.get(message)
      usage.set(message, {
        message,
        inputTokens: Math.max(inputTokens, known?.inputTokens ?? 0),
        outputTokens: Math.max(outputTokens, known?.outputTokens ?? 0)
      })
    }
  }
  return { ...first, ...told, at, status, limit, readings: [...readings.values()], usage: [...usage.values()] }
}
