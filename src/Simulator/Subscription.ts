import { Schema } from "effect"

const WindowChange = Schema.Struct({
  /** Used part of the window: 1 is all of it. */
  utilization: Schema.optional(Schema.NonNegative),
  /** From now on; nothing is used of the window that follows. */
  resetsInMs: Schema.optional(Schema.Positive),
  /** Default: what goes with the utilization (1 = `rejected`, from 0.9 `allowed_warning`). */
  status: Schema.optional(Schema.Literal("allowed", "allowed_warning", "rejected"))
}).annotations({ identifier: "SubscriptionWindowChange" })

/** What is to be different in a subscription's windows; what is absent stays as it is. */
export const SubscriptionChange = Schema.Struct({
  five_hour: Schema.optional(WindowChange),
  seven_day: Schema.optional(WindowChange)
}).annotations({ identifier: "SubscriptionChange" })
export type SubscriptionChange = typeof SubscriptionChange.Type

type WindowName = keyof typeof lengths
type Status = "allowed" | "allowed_warning" | "rejected"

export interface SubscriptionWindow {
  readonly utilization: number
  /** Epoch ms. */
  readonly resetsAt: number
  readonly status: Status
}

const hourMs = 3_600_000
const lengths = { five_hour: 5 * hourMs, seven_day: 7 * 24 * hourMs } as const
/** As the headers abbreviate them. */
const abbreviations = { five_hour: "5h", seven_day: "7d" } as const
const names: ReadonlyArray<WindowName> = ["five_hour", "seven_day"]
const warningFrom = 0.9

const statusOf = (utilization: number): Status =>
  utilization >= 1 ? "rejected" : utilization >= warningFrom ? "allowed_warning" : "allowed"

const seconds = (epochMs: number): string => String(Math.floor(epochMs / 1_000))

/**
 * The windows of an Anthropic subscription, used as far as they are told to be. Times are epoch ms. What its answers say
 * of them is what Claude Code reads: the headers `anthropic-ratelimit-unified-*`.
 */
export class SubscriptionState {
  private windows: Record<WindowName, SubscriptionWindow>

  constructor(wallMs: number) {
    const whole = (name: WindowName): SubscriptionWindow => ({
      utilization: 0,
      resetsAt: wallMs + lengths[name],
      status: "allowed"
    })
    this.windows = { five_hour: whole("five_hour"), seven_day: whole("seven_day") }
  }

  change(change: SubscriptionChange, wallMs: number): void {
    for (const name of names) {
      const before = this.at(name, wallMs)
      const { utilization = before.utilization, resetsInMs, status } = change[name] ?? {}
      if (change[name] === undefined) continue
      this.windows[name] = {
        utilization,
        resetsAt: resetsInMs === undefined ? before.resetsAt : wallMs + resetsInMs,
        status: status ?? statusOf(utilization)
      }
    }
  }

  read(wallMs: number): Readonly<Record<WindowName, SubscriptionWindow>> {
    return { five_hour: this.at("five_hour", wallMs), seven_day: this.at("seven_day", wallMs) }
  }

  /** Whether a window refuses what comes now. */
  refuses(wallMs: number): boolean {
    return names.some((name) => this.at(name, wallMs).status === "rejected")
  }

  headers(wallMs: number): Readonly<Record<string, string>> {
    const rank = ({ status, utilization }: SubscriptionWindow): number =>
      utilization + (status === "rejected" ? 1_000 : 0)
    const windows = names.map((name) => ({ name, ...this.at(name, wallMs) }))
    const [first] = windows.toSorted((left, right) => rank(right) - rank(left))
    const headers: Record<string, string> = {}
    if (first !== undefined) {
      headers[`${prefix}-status`] = first.status
      headers[`${prefix}-reset`] = seconds(first.resetsAt)
      headers[`${prefix}-representative-claim`] = first.name
    }
    for (const { name, resetsAt, status, utilization } of windows) {
      const window = `${prefix}-${abbreviations[name]}`
      headers[`${window}-status`] = status
      headers[`${window}-utilization`] = String(utilization)
      headers[`${window}-reset`] = seconds(resetsAt)
      if (status === "allowed_warning") headers[`${window}-surpassed-threshold`] = String(warningFrom)
    }
    return headers
  }

  private at(name: WindowName, wallMs: number): SubscriptionWindow {
    const window = this.windows[name]
    if (wallMs < window.resetsAt) return window
    const missed = Math.floor((wallMs - window.resetsAt) / lengths[name])
    const fresh: SubscriptionWindow = {
      utilization: 0,
      resetsAt: window.resetsAt + (missed + 1) * lengths[name],
      status: "allowed"
    }
    this.windows[name] = fresh
    return fresh
  }
}

const prefix = "anthropic-ratelimit-unified"
