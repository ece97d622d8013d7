import type { AccountView, HandoffPolicy, HandoffView, SessionView, WindowView } from "../Domain/Session.js"
import type { HandoffRecord } from "../SessionStore/Handoffs.js"
import type { SessionRecord } from "../SessionStore.js"
import { highest, type WindowState } from "./Levels.js"

export const handoffView = (record: HandoffRecord): HandoffView => ({
  id: record.id,
  sessionId: record.sessionId,
  account: record.account,
  window: record.window,
  windowResetsAt: record.windowResetsAt,
  cause: record.cause,
  state: record.state,
  why: record.why,
  mode: record.mode,
  to: record.to,
  chain: record.chain,
  conveyance: record.conveyance,
  leftOut: record.leftOut,
  transcriptHash: record.transcriptHash,
  transcriptPath: record.transcriptPath,
  context: record.context,
  carried: record.carried,
  launcher: record.launcher,
  newSessionId: record.newSessionId,
  attempts: record.attempts,
  nextAt: record.nextAt,
  answeredBy: record.answeredBy,
  createdAt: record.createdAt,
  updatedAt: record.updatedAt
})

const windowView = ({ level, reading, window }: WindowState): WindowView => ({
  window,
  level,
  usedPercent: reading?.usedPercent,
  resetsAt: reading?.resetsAt,
  source: reading?.source,
  at: reading?.at
})

export const accountView = (account: string, windows: ReadonlyArray<WindowState>, away: boolean): AccountView => ({
  account,
  level: highest(windows.map(({ level }) => level)),
  windows: windows.map(windowView),
  away
})

export const sessionView = (
  session: SessionRecord,
  policy: HandoffPolicy,
  busy: string | undefined,
  last: HandoffRecord | undefined
): SessionView => ({
  id: session.id,
  account: session.account,
  cwd: session.cwd,
  model: session.model,
  status: session.status,
  contextUsedPercent: session.contextUsedPercent,
  contextTokens: session.contextTokens,
  contextWindow: session.contextWindow,
  inputTokens: session.inputTokens,
  outputTokens: session.outputTokens,
  costUsd: session.costUsd,
  launchedBy: session.launchedBy,
  handoff: policy,
  busy,
  lastHandoff: last === undefined ? undefined : handoffView(last),
  startedAt: session.startedAt,
  endedAt: session.endedAt,
  updatedAt: session.updatedAt
})
