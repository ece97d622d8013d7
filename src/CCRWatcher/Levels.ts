import type { LimitLevel, LimitWindow, ReadingSource, SessionLimitReading } from "../Domain/Session.js"

/** From which used part of a window on a level begins, 0 to 1. */
export interface LevelBounds {
  readonly warning: number
  readonly critical: number
  readonly emergency: number
}

/** A reading older than this tells nothing any more, ms. */
export const staleMs = 10 * 60_000
/** Readings within this of the newest are of one moment: the source of higher rank decides among them, ms. */
const sameMomentMs = 15_000
/** A clock that runs ahead by more is not believed, ms. */
const maxAheadMs = 60_000
/** Two sources round one reset differently, by less than this, ms. */
const sameResetMs = 120_000
/** A level is left downwards only so far below its bound, percent points. */
const hysteresis = 5
/** A rise must last this long before it counts, ms; a refusal counts at once. */
export const debounceMs = 5_000

/** The provider's own answer first; what was derived or copied last. */
const ranks: Readonly<Record<ReadingSource, number>> = {
  probe: 0,
  rate_limit_event: 1,
  statusline: 2,
  hook: 3,
  transcript: 4,
  table: 5
}

/** Only these tell whether a request was let through; the others repeat a number. */
const isAnswer = ({ source }: SessionLimitReading): boolean => source === "probe" || source === "rate_limit_event"

const heights: Readonly<Record<LimitLevel, number>> = {
  unknown: 0,
  normal: 1,
  warning: 2,
  critical: 3,
  emergency: 4,
  rejected: 5
}

/** Whether a level is as high as another, or higher. */
export const reaches = (level: LimitLevel, other: LimitLevel): boolean => heights[level] >= heights[other]

/** The highest of some levels. */
export const highest = (levels: Iterable<LimitLevel>): LimitLevel => {
  let top: LimitLevel = "unknown"
  for (const level of levels) if (heights[level] > heights[top]) top = level
  return top
}

const isPastReset = ({ resetsAt }: SessionLimitReading, now: number): boolean =>
  resetsAt !== undefined && resetsAt <= now

/** A refusal with a known reset holds until then; everything else is worth little after ten minutes. */
const stillCounts = (reading: SessionLimitReading, now: number): boolean =>
  reading.at <= now + maxAheadMs &&
  !isPastReset(reading, now) &&
  (now - reading.at <= staleMs || (reading.status === "rejected" && reading.resetsAt !== undefined))

/** The newest reading, and among those of one moment that of the source of higher rank. */
const decisive = (readings: ReadonlyArray<SessionLimitReading>): SessionLimitReading | undefined => {
  const newest = Math.max(...readings.map(({ at }) => at))
  return readings
    .filter(({ at }) => at > newest - sameMomentMs)
    .sort((left, right) => ranks[left.source] - ranks[right.source] || right.at - left.at)[0]
}

/**
 * The one reading of a window that counts among those of several sources, or none: a later reset is a newer window; a
 * refusal stands until an answer after it says otherwise; else the newest, and among readings of one moment that of the
 * source of higher rank.
 */
export const resolve = (readings: ReadonlyArray<SessionLimitReading>, now: number): SessionLimitReading | undefined => {
  const counting = readings.filter((reading) => stillCounts(reading, now))
  const latestReset = Math.max(...counting.flatMap(({ resetsAt }) => resetsAt ?? []))
  const current = counting.filter(({ resetsAt }) => resetsAt === undefined || resetsAt > latestReset - sameResetMs)
  const isRefusal = ({ status }: SessionLimitReading): boolean => status === "rejected"
  const refusals = current.filter(isRefusal)
  const refusedAt = Math.max(...refusals.map(({ at }) => at))
  const isLifted = current.some((reading) => isAnswer(reading) && !isRefusal(reading) && reading.at > refusedAt)
  return decisive(refusals.length > 0 && !isLifted ? refusals : current.filter((reading) => !isRefusal(reading)))
}

/** The level of a reading by itself. A warning of the provider without a number is a warning. */
export const levelOf = (reading: SessionLimitReading | undefined, bounds: LevelBounds): LimitLevel => {
  if (reading === undefined) return "unknown"
  if (reading.status === "rejected") return "rejected"
  const used = (reading.usedPercent ?? 0) / 100
  if (used >= bounds.emergency) return "emergency"
  if (used >= bounds.critical) return "critical"
  if (used >= bounds.warning || reading.status === "warning") return "warning"
  return "normal"
}

/** A window of an account as the watcher last saw it. */
export interface WindowState {
  readonly window: LimitWindow
  readonly level: LimitLevel
  /** What the level goes by. */
  readonly reading: SessionLimitReading | undefined
  /** A higher level that has not lasted long enough yet, and since when, epoch ms. */
  readonly rising: { readonly to: LimitLevel; readonly since: number } | undefined
}

export interface LevelChange {
  readonly window: LimitWindow
  readonly from: LimitLevel
  readonly to: LimitLevel
  readonly reading: SessionLimitReading | undefined
}

export interface Step {
  readonly state: WindowState
  readonly change: LevelChange | undefined
}

/** Of a window that nothing is known of. */
export const unseen = (window: LimitWindow): WindowState => ({
  window,
  level: "unknown",
  reading: undefined,
  rising: undefined
})

const boundOf = (level: LimitLevel, bounds: LevelBounds): number =>
  level === "warning" || level === "critical" || level === "emergency" ? bounds[level] * 100 : 0

const isNewWindow = (before: SessionLimitReading | undefined, after: SessionLimitReading): boolean =>
  before?.resetsAt !== undefined && after.resetsAt !== undefined && after.resetsAt > before.resetsAt + sameResetMs

/** Whether a level holds although the used part is below its bound by less than the hysteresis. */
const holds = (state: WindowState, reading: SessionLimitReading, bounds: LevelBounds): boolean =>
  reading.usedPercent !== undefined &&
  !isNewWindow(state.reading, reading) &&
  boundOf(state.level, bounds) > 0 &&
  reading.usedPercent > boundOf(state.level, bounds) - hysteresis

/** One look at a window: rises count when they last, falls when they are clear, refusals and resets at once. */
export const look = (
  state: WindowState,
  readings: ReadonlyArray<SessionLimitReading>,
  bounds: LevelBounds,
  now: number
): Step => {
  const reading = resolve(readings, now)
  const raw = levelOf(reading, bounds)
  const move = (to: LimitLevel): Step => ({
    state: { ...state, level: to, reading, rising: undefined },
    change: to === state.level ? undefined : { window: state.window, from: state.level, to, reading }
  })
  if (raw === "rejected" || reading === undefined || raw === state.level) return move(raw)
  if (heights[raw] < heights[state.level]) {
    return state.level !== "rejected" && holds(state, reading, bounds) ? move(state.level) : move(raw)
  }
  if (raw === "normal") return move(raw)
  const rising = state.rising !== undefined && reaches(raw, state.rising.to) ? state.rising : { to: raw, since: now }
  return now - rising.since >= debounceMs ? move(raw) : { state: { ...state, reading, rising }, change: undefined }
}

/** How long until the next look, ms, before jitter: soon near a limit, and when a window resets. */
export const pauseMs = (states: Iterable<WindowState>, pollMs: number, now: number): number => {
  const all = [...states]
  const top = highest(all.map(({ level, rising }) => rising?.to ?? level))
  // After a refusal nothing changes before the reset but by an answer, which the hand-off itself waits for.
  const share = top === "critical" || top === "emergency" ? 0.2 : top === "warning" ? 0.5 : 1
  const resets = all.flatMap(({ reading }) =>
    reading?.resetsAt !== undefined && reading.resetsAt > now ? reading.resetsAt - now : []
  )
  return Math.max(100, Math.min(pollMs * share, ...resets))
}
