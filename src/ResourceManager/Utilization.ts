import type { Utilization } from "../Domain/Lease.js"

const SLOT_MS = 5_000
const SLOTS = 61
const MINUTE_SLOTS = 12
const FIVE_MINUTES_SLOTS = 60

/** What was used over the last five minutes, in slots of five seconds. Instants are monotonic ms. */
export interface Meter {
  /** So much more was used at this instant; less than nothing where some of it was given back. */
  readonly add: (amount: number, at: number) => void
  /** `level` was in use all the time from `from` to `to`: amounts are level times ms. */
  readonly addLevel: (level: number, from: number, to: number) => void
  /** Which part of what is allowed per ms was used, 0 to 1. */
  readonly parts: (allowedPerMs: number, at: number) => Utilization
}

export const makeMeter = (): Meter => {
  const amounts: Array<number> = new Array(SLOTS).fill(0)
  /** Number of the latest slot, counted from the clock's zero. */
  let latest = Number.NEGATIVE_INFINITY

  const moveTo = (slot: number): void => {
    if (slot <= latest) return
    if (slot - latest >= SLOTS) amounts.fill(0)
    else for (let next = latest + 1; next <= slot; next++) amounts[next % SLOTS] = 0
    latest = slot
  }

  const add = (amount: number, at: number): void => {
    moveTo(Math.floor(at / SLOT_MS))
    amounts[latest % SLOTS] = (amounts[latest % SLOTS] ?? 0) + amount
  }

  /** The sum of the last `slots` slots' time up to now: the oldest slot counts in part. */
  const sum = (slots: number, at: number): number => {
    const current = Math.floor(at / SLOT_MS)
    let total = 0
    for (let back = 0; back < slots; back++) total += amounts[(current - back) % SLOTS] ?? 0
    return total + (1 - (at / SLOT_MS - current)) * (amounts[(current - slots) % SLOTS] ?? 0)
  }

  return {
    add,

    addLevel: (level, from, to) => {
      if (level === 0) {
        moveTo(Math.floor(to / SLOT_MS))
        return
      }
      for (let start = Math.max(from, to - SLOTS * SLOT_MS); start < to; ) {
        const end = Math.min(to, (Math.floor(start / SLOT_MS) + 1) * SLOT_MS)
        add(level * (end - start), start)
        start = end
      }
    },

    parts: (allowedPerMs, at) => {
      moveTo(Math.floor(at / SLOT_MS))
      const part = (slots: number): number => {
        const used = sum(slots, at) / (slots * SLOT_MS * allowedPerMs)
        return Number.isFinite(used) ? Math.min(1, Math.max(0, used)) : 0
      }
      return { oneMinute: part(MINUTE_SLOTS), fiveMinutes: part(FIVE_MINUTES_SLOTS) }
    }
  }
}
