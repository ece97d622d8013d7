import { basename } from "node:path"
import type { SessionList } from "../CCRWatcher/Api.js"
import type { SessionEvent } from "../Domain/Event.js"
import type { AccountView, HandoffView, SessionView, WindowView } from "../Domain/Session.js"
import { duration, oneLine, relative, table } from "./Output.js"

const barWidth = 10

/** `[########--] 82 %`, and the level where it is one to know of. */
const bar = ({ level, usedPercent }: WindowView): string => {
  if (level === "unknown") return "unknown"
  if (level === "rejected") return `[${"#".repeat(barWidth)}] refused`
  const used = Math.max(0, Math.min(100, usedPercent ?? 0))
  const filled = Math.round((used / 100) * barWidth)
  const named = level === "normal" ? "" : ` ${level}`
  return `[${"#".repeat(filled)}${"-".repeat(barWidth - filled)}] ${Math.floor(used)} %${named}`
}

const windowNames: Readonly<Record<string, string>> = { five_hour: "5h", seven_day: "week" }

const windowName = (window: string): string => windowNames[window] ?? window.replace("seven_day_", "week ")

const limits = (account: AccountView | undefined): string =>
  account === undefined || account.windows.length === 0
    ? "unknown"
    : account.windows.map((window) => `${windowName(window.window)} ${bar(window)}`).join("  ")

/** Until the first of the windows resets. */
const resets = (account: AccountView | undefined, now: number): string => {
  const instants = (account?.windows ?? []).flatMap(({ resetsAt }) =>
    resetsAt !== undefined && resetsAt > now ? resetsAt : []
  )
  return instants.length === 0 ? "" : duration(Math.min(...instants) - now)
}

const lastHandoff = (handoff: HandoffView | undefined): string => {
  if (handoff === undefined) return ""
  const who = handoff.answeredBy ?? handoff.chain[0]
  return `${handoff.state}${who === undefined ? "" : ` (${who})`}`
}

/** The sessions as a table, with the limits of their accounts. */
export const sessionTable = ({ accounts, sessions }: SessionList, now: number): string => {
  const away = accounts.filter((account) => account.away)
  if (sessions.length === 0)
    return "No sessions were heard of yet. 'dream-team claude install' lets Claude Code report them."
  return [
    table(
      ["SESSION", "PROJECT", "STATUS", "LIMITS", "RESETS IN", "LAST HEARD OF", "LAST HAND-OFF"],
      sessions.map((session) => {
        const account = accounts.find((each) => each.account === session.account)
        return [
          session.id,
          session.cwd === undefined ? "" : oneLine(basename(session.cwd), 24),
          session.status,
          limits(account),
          resets(account, now),
          relative(session.updatedAt, now),
          lastHandoff(session.lastHandoff)
        ]
      })
    ),
    ...away.map(({ account }) => `\nThe work of ${account} goes on elsewhere, until its limits have reset.`)
  ].join("\n")
}

/** What became of a session's hand-off, and what to do. */
export const handoffWords = (session: SessionView, now: number): string => {
  const handoff = session.lastHandoff
  if (handoff === undefined) return "It has no hand-off."
  const { answeredBy, chain, context, conveyance, launcher, leftOut, newSessionId, nextAt, state, why } = handoff
  const reason = why === undefined ? "" : `: ${oneLine(why, 400)}`
  const again = nextAt === undefined || nextAt <= now ? "" : ` It is looked at again ${relative(nextAt, now)}.`
  const kept =
    context === undefined
      ? []
      : [
          `Kept: ${context.turns} messages, ${context.counts.toolPairs} tool calls with their results` +
            `${context.todos.length === 0 ? "" : `, ${context.todos.length} open to-dos`}` +
            `${context.git === undefined ? "" : `, git branch ${oneLine(context.git.branch, 60)}`}.`
        ]
  const lost =
    conveyance === "summary"
      ? [`Its conversation is too large there and goes as a summary: ${leftOut.join("; ") || "nothing is left out"}.`]
      : []
  switch (state) {
    case "ready":
      return launcher === undefined
        ? [`It is ready to go on with ${chain.join(", then ")}, and waits${reason}.${again}`, ...kept, ...lost].join(
            "\n"
          )
        : [
            `It is ready to go on with ${chain.join(", then ")}:`,
            `  dream-team sessions resume ${session.id}`,
            ...kept,
            ...lost
          ].join("\n")
    case "running":
      return [`It goes on with ${chain.join(", then ")} in session ${newSessionId ?? "?"}.`, ...kept, ...lost].join(
        "\n"
      )
    case "succeeded":
      return [
        `It went on${answeredBy === undefined ? "" : ` with ${answeredBy}`}${newSessionId === undefined ? "" : ` in session ${newSessionId}`}.`,
        ...kept,
        ...lost
      ].join("\n")
    default:
      return [`Its hand-off is ${state}${reason}.${again}`, ...kept].join("\n")
  }
}

/** An event of a session. */
export const sessionEventWords = (event: SessionEvent): string => {
  switch (event.type) {
    case "session.level":
      return `limit ${windowName(event.window)}: ${event.from} -> ${event.to}${event.usedPercent === undefined ? "" : ` (${Math.floor(event.usedPercent)} %)`}`
    case "session.reading":
      return `limit ${windowName(event.window)}: ${event.status}${event.usedPercent === undefined ? "" : `, ${Math.floor(event.usedPercent)} % used`}, by the ${event.source}`
    case "handoff.changed":
      return `hand-off ${event.state}${event.platform === undefined ? "" : ` (${event.platform})`}${event.why === undefined ? "" : `: ${oneLine(event.why, 200)}`}`
    case "claude.back":
      return `new work goes to Claude again: ${oneLine(event.why, 200)}`
  }
}
