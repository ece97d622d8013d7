/** What an attempt holds of one window. */
export interface Entry {
  amount: number
  /** Where it ages; not yet where undefined. */
  slice: Slice | undefined
  /** It counts no more, or never did. */
  isGone: boolean
  /** The amount is final. */
  isFinal: boolean
  /** What we had in the window when it was granted, itself included. */
  readonly ownAtGrant: number
}

/** Entries that began to age within one thousandth of the window; all of them leave with the latest. */
interface Slice {
  readonly from: number
  /** When its latest entry began to age, monotonic ms. */
  since: number
  amount: number
  /** The part of `amount` that is not final yet. */
  open: number
  unsettled: number
  isGone: boolean
}

/** A part of the window that others hold, and until when (monotonic ms). */
export interface Held {
  readonly until: number
  readonly amount: number
}

/** How a window's whole is to be shared out. */
export interface Levels {
  readonly capacity: number
  /** What only HIGH may draw, at any time; where it is not `isLasting`, only while HIGH calls draw anything. */
  readonly reserve: number
  readonly isLasting: boolean
  /**
   * Of what is left, what lower calls may not draw at once: it comes to them evenly until what was drawn comes free
   * again, so that after a burst neither they nor HIGH calls wait for a whole window.
   */
  readonly spread: number
  /** The same while they are held back, and served evenly anyway. */
  readonly pacedSpread: number
  /** How much of `spread` is too little to be kept; whole units are kept whole. */
  readonly rounding: number
  /** How far the even pace may fall behind and be caught up, ms. */
  readonly catchUpMs: number
}

/**
 * How much longer than its window an entry is kept: clocks of two machines drift apart by up to 100 millionths,
 * and what a provider's window includes at both its ends must not count as free.
 */
export const keptMs = (windowMs: number): number => windowMs + Math.ceil(windowMs / 10_000) + 1

/** A window's entries are kept in at most so many slices. */
const SLICES = 1_000
/** Slices as they are saved: fewer, because they are written often. */
const SAVED_SLICES = 100
/** The same in units of what is drawn, for windows in which a unit takes longer than that. */
const CATCH_UP_UNITS = 1
/** The same where HIGH calls have a lasting reserve, so that it costs them nothing. */
const CATCH_UP_UNITS_BESIDE_RESERVE = 4
/** Sums of fractions are exact to this part of a whole. */
const EXACT = 1e-9

/**
 * What counts against one limit over a rolling window: running attempts, aged ones, and what others hold. An entry counts
 * from its grant on and ages from the moment at which the provider has certainly counted it, so that no window of that
 * provider's holds more than the limit, wherever in between it counts. Every instant is monotonic ms.
 */
export interface Window {
  readonly capacity: () => number
  readonly used: (at: number) => number
  /** What running attempts and our own aged ones hold. */
  readonly own: (at: number) => number
  readonly pending: () => number
  readonly clamp: (amount: number) => number
  readonly fits: (amount: number, mayUseReserve: boolean, at: number) => boolean
  /**
   * When `amount` fits if nothing more is granted and running attempts keep what they hold; Infinity where that takes
   * the end of a running attempt. `taken` is what somebody else draws first, now.
   */
  readonly earliest: (amount: number, mayUseReserve: boolean, at: number, taken?: number) => number
  /** `amount` cannot fit into `capacity` before this instant, whatever running attempts give back. */
  readonly notBefore: (amount: number, capacity: number, at: number) => number
  /** What of `capacity` can come free until `until` at the most, whatever running attempts give back. */
  readonly room: (capacity: number, until: number, at: number) => number
  readonly take: (amount: number, isFinal: boolean, mayUseReserve: boolean, at: number) => Entry
  /** It was never sent. */
  readonly giveBack: (entry: Entry, at: number) => void
  readonly age: (entry: Entry, at: number) => void
  /** What it really came to; more than was reserved is a debt that ages like the rest. */
  readonly finish: (entry: Entry, amount: number, at: number) => void
  /** What others hold from now on. */
  readonly hold: (others: ReadonlyArray<Held>, at: number) => void
  /** Of what began to age before `before`, no more than `amount` counts any longer. */
  readonly keepAtMost: (amount: number, before: number, at: number) => void
  readonly keptForHigh: (at: number) => number
  readonly nextFreeAt: (at: number) => number | undefined
  readonly setLevels: (levels: Levels) => void
  readonly setLength: (windowMs: number) => void
  /** Whether lower calls wait: while they do, a window that holds them back serves them evenly. */
  readonly setBacklog: (isWaitedFor: boolean) => void
  /** What ages, in few slices, each with the instant of its latest entry. */
  readonly aged: (at: number) => ReadonlyArray<readonly [since: number, amount: number]>
  /** Counts what was spent since an earlier instant; in the order of the instants, before anything else. */
  readonly restore: (since: number, amount: number, at: number) => void
}

export const make = (initialMs: number): Window => {
  let windowMs = initialMs
  let kept = keptMs(windowMs)
  let levels: Levels = {
    capacity: Number.POSITIVE_INFINITY,
    reserve: 0,
    isLasting: true,
    spread: 0,
    pacedSpread: 0,
    rounding: 0,
    catchUpMs: 0
  }
  let tolerance = 0
  /** In the order in which they began to age; `head` is the oldest that still counts. */
  let log: Array<Slice> = []
  let head = 0
  let aged = 0
  let agedOpen = 0
  let pending = 0
  let pendingCount = 0
  let others: ReadonlyArray<Held> = []
  let othersHead = 0
  let othersHeld = 0
  let isBacklogged = false
  /** Whether it is this window that lower calls wait for: another limit of theirs must not slow down this one. */
  let isHeldBack = false
  /** On the even pace the next lower call is due at this instant. */
  let evenAt = 0
  /** HIGH calls have drawn something within a window's length before this. */
  let highUntil = Number.NEGATIVE_INFINITY
  /** What `shortfall` found since the last change of the log. */
  let known: { readonly at: number; readonly falling: number; readonly lasting: number } | undefined

  const leave = (slice: Slice): void => {
    aged -= slice.amount
    agedOpen -= slice.open
    slice.isGone = true
    head += 1
    known = undefined
  }

  const prune = (at: number): void => {
    for (let slice = log[head]; slice !== undefined && slice.since + kept <= at; slice = log[head]) leave(slice)
    if (head === log.length) {
      if (head > 0) {
        log = []
        head = 0
      }
      aged = 0
      agedOpen = 0
    } else if (head > 64 && head * 2 > log.length) {
      log = log.slice(head)
      head = 0
    }
    for (let held = others[othersHead]; held !== undefined && held.until <= at; held = others[othersHead]) {
      othersHeld -= held.amount
      othersHead += 1
      known = undefined
    }
    if (othersHead === others.length) othersHeld = 0
  }

  const used = (at: number): number => {
    prune(at)
    return aged + pending + othersHeld
  }

  const clamp = (amount: number): number => Math.min(amount, levels.capacity)

  /** Visits what comes free by age alone, in its order, until `visit` has seen enough; whether it has. */
  const visitReleases = (visit: (at: number, amount: number) => boolean): boolean => {
    let index = head
    let otherIndex = othersHead
    for (;;) {
      const slice = log[index]
      const held = others[otherIndex]
      if (slice !== undefined && (held === undefined || slice.since + kept <= held.until)) {
        index += 1
        if (visit(slice.since + kept, slice.amount)) return true
      } else if (held !== undefined) {
        otherIndex += 1
        if (visit(held.until, held.amount)) return true
      } else return false
    }
  }

  const spreadNow = (): number => (isHeldBack ? levels.pacedSpread : levels.spread)

  /**
   * By how much a steady draw of `spread` in a window would fall short of its need at some moment, if it had nothing but
   * what comes free by age: that much is kept, so that the draw can be met.
   */
  const shortfall = (at: number): number => {
    const spread = spreadNow()
    if (known === undefined) {
      const perMs = spread / kept
      let falling = Number.NEGATIVE_INFINITY
      let freed = 0
      // the same as `visitReleases`, for a window that nobody else draws on: this is looked at for every grant
      if (othersHead === others.length) {
        for (let index = head; index < log.length && freed < spread; index++) {
          const slice = log[index]
          if (slice === undefined) break
          falling = Math.max(falling, perMs * (slice.since + kept - at) - freed)
          freed += slice.amount
        }
      } else {
        visitReleases((freeAt, amount) => {
          falling = Math.max(falling, perMs * (freeAt - at) - freed)
          freed += amount
          return freed >= spread
        })
      }
      known = { at, falling, lasting: spread - freed }
    }
    return Math.max(0, known.lasting, known.falling - (spread * (at - known.at)) / kept)
  }

  const reserveAt = (at: number): number => (levels.isLasting || highUntil > at ? levels.reserve : 0)

  const keptFromLower = (at: number): number => reserveAt(at) + Math.max(0, shortfall(at) - levels.rounding)

  /** Time in which one unit comes free where all that lower calls may have is drawn evenly, ms. */
  const unitMs = (at: number): number => kept / (levels.capacity - reserveAt(at))

  const catchUpMs = (amount: number, at: number): number => {
    const units = levels.isLasting && levels.reserve > 0 ? CATCH_UP_UNITS_BESIDE_RESERVE : CATCH_UP_UNITS
    return Math.max(levels.catchUpMs, units * amount * unitMs(at))
  }

  const setHeldBack = (isHeld: boolean): void => {
    isHeldBack = isHeld
    known = undefined
  }

  /** On the even pace the schedule counts, not the moment at which a timer came. */
  const isTooEarly = (at: number): boolean => isHeldBack && evenAt > at

  const holdBack = (at: number): false => {
    if (isBacklogged && !isHeldBack) {
      setHeldBack(true)
      evenAt = Math.max(evenAt, at)
    }
    return false
  }

  const fits = (amount: number, mayUseReserve: boolean, at: number): boolean => {
    if (levels.capacity === Number.POSITIVE_INFINITY) return true
    const now = used(at)
    const free = levels.capacity + tolerance - now - clamp(amount)
    if (mayUseReserve) return free >= 0
    if (isTooEarly(at)) return false
    if (free < 0) return holdBack(at)
    if (now <= tolerance) return true
    const spare = free - reserveAt(at) + levels.rounding
    // never more than the whole spread is kept, and nothing of less than nothing
    return (spare >= levels.rounding && (spare >= spreadNow() || spare >= shortfall(at))) || holdBack(at)
  }

  const earliestForHigh = (amount: number, at: number, taken: number): number => {
    let missing = used(at) + taken + clamp(amount) - levels.capacity
    if (missing <= tolerance) return at
    let found = at
    const isEnough = visitReleases((freeAt, freed) => {
      found = freeAt
      missing -= freed
      return missing <= tolerance
    })
    return isEnough ? found : Number.POSITIVE_INFINITY
  }

  /** On the even pace, after `amount` is drawn. */
  const evenAfter = (amount: number, at: number): number =>
    Math.min(Math.max(evenAt, at - catchUpMs(amount, at)) + clamp(amount) * unitMs(at), at + windowMs)

  const earliestBeside = (reserve: number, amount: number, at: number, taken: number): number => {
    const { capacity, rounding } = levels
    const spread = spreadNow()
    let level = used(at) + taken
    const limit = capacity - clamp(amount) - reserve
    // from here on even the whole spread leaves room enough
    const isClear = (): boolean => level <= limit + tolerance && level + spread <= limit + rounding + tolerance
    let found = isHeldBack ? Math.max(at, taken > 0 ? evenAfter(taken, at) : evenAt) : at
    if (level <= tolerance || isClear()) return found
    const isEnough = visitReleases((freeAt, freed) => {
      const fitsAt = level > limit + tolerance ? freeAt : freeAt - ((limit + rounding - level) * kept) / spread
      found = Math.max(found, fitsAt)
      level -= freed
      if (isClear()) return true
      if (level > tolerance) return false
      // an empty window takes any call
      found = Math.max(found, freeAt)
      return true
    })
    return isEnough ? found : Number.POSITIVE_INFINITY
  }

  const earliestForLower = (amount: number, at: number, taken: number): number => {
    const reserve = reserveAt(at)
    const beside = earliestBeside(reserve, amount, at, taken)
    if (levels.isLasting || reserve === 0 || beside <= highUntil) return beside
    return Math.min(beside, Math.max(highUntil, earliestBeside(0, amount, at, taken)))
  }

  const addToLog = (amount: number, open: number, unsettled: number, at: number): Slice => {
    const last = log[log.length - 1]
    aged += amount
    agedOpen += open
    known = undefined
    if (last !== undefined && !last.isGone && at - last.from < windowMs / SLICES) {
      last.since = Math.max(last.since, at)
      last.amount += amount
      last.open += open
      last.unsettled += unsettled
      return last
    }
    const slice: Slice = { from: at, since: at, amount, open, unsettled, isGone: false }
    log.push(slice)
    return slice
  }

  /** Slices of which nothing is left and nothing will come must not look like something that comes free. */
  const dropEmpty = (): void => {
    for (let slice = log[head]; slice !== undefined && slice.unsettled === 0; slice = log[head]) {
      if (slice.amount > tolerance || head === log.length - 1) return
      leave(slice)
    }
  }

  return {
    capacity: () => levels.capacity,
    used,
    own: (at) => {
      prune(at)
      return aged + pending
    },
    pending: () => pending,
    clamp,
    fits,

    earliest: (amount, mayUseReserve, at, taken = 0) => {
      if (levels.capacity === Number.POSITIVE_INFINITY) return at
      if (taken === 0 && fits(amount, mayUseReserve, at)) return at
      return mayUseReserve ? earliestForHigh(amount, at, taken) : earliestForLower(amount, at, taken)
    },

    notBefore: (amount, capacity, at) => {
      if (capacity === Number.POSITIVE_INFINITY) return at
      prune(at)
      let missing = aged - agedOpen + Math.min(amount, capacity) - capacity
      if (missing <= tolerance) return at
      for (let index = head; index < log.length; index++) {
        const slice = log[index]
        if (slice === undefined) break
        missing -= slice.amount - slice.open
        if (missing <= tolerance) return slice.since + kept
      }
      return at
    },

    room: (capacity, until, at) => {
      prune(at)
      // what starts within one window's length counts at its end all at once, beside what has not come free by then
      const windows = Math.floor(Math.max(0, until - at) / windowMs)
      const firstEndsAt = until - windows * windowMs
      let still = 0
      for (let index = log.length - 1; index >= head; index--) {
        const slice = log[index]
        if (slice === undefined || slice.since + kept <= firstEndsAt) break
        still += slice.amount - slice.open
      }
      return Math.max(0, capacity - still) + windows * capacity
    },

    take: (amount, isFinal, mayUseReserve, at) => {
      prune(at)
      if (mayUseReserve) highUntil = at + kept
      pending += amount
      pendingCount += 1
      if (isHeldBack) evenAt = evenAfter(amount, at)
      return { amount, slice: undefined, isGone: false, isFinal, ownAtGrant: aged + pending }
    },

    giveBack: (entry, at) => {
      if (entry.isGone || entry.slice !== undefined) return
      entry.isGone = true
      pendingCount -= 1
      pending = pendingCount === 0 ? 0 : pending - entry.amount
      evenAt -= clamp(entry.amount) * unitMs(at)
    },

    age: (entry, at) => {
      if (entry.isGone || entry.slice !== undefined) return
      prune(at)
      pendingCount -= 1
      pending = pendingCount === 0 ? 0 : pending - entry.amount
      // what counts nothing needs no memory
      if (entry.amount === 0 && entry.isFinal) {
        entry.isGone = true
        return
      }
      entry.slice = addToLog(entry.amount, entry.isFinal ? 0 : entry.amount, entry.isFinal ? 0 : 1, at)
    },

    finish: (entry, amount, at) => {
      prune(at)
      if (entry.isGone || entry.isFinal) return
      const { slice } = entry
      const change = amount - entry.amount
      entry.isFinal = true
      entry.amount = amount
      evenAt += change * unitMs(at)
      if (slice === undefined) pending += change
      else if (!slice.isGone) {
        // what was taken from the slice meanwhile cannot be given back a second time
        const left = Math.max(0, slice.amount + change)
        aged += left - slice.amount
        slice.amount = left
        const open = Math.min(slice.open, amount - change)
        agedOpen -= open
        slice.open -= open
        slice.unsettled -= 1
        known = undefined
        dropEmpty()
      }
    },

    hold: (held, at) => {
      others = held.filter(({ amount }) => amount > 0)
      othersHead = 0
      othersHeld = others.reduce((sum, { amount }) => sum + amount, 0)
      known = undefined
      prune(at)
    },

    keepAtMost: (amount, before, at) => {
      prune(at)
      let surplus = -amount
      for (let index = head; index < log.length; index++) {
        const slice = log[index]
        if (slice === undefined || slice.since > before) break
        surplus += slice.amount
      }
      for (let index = head; index < log.length && surplus > tolerance; index++) {
        const slice = log[index]
        if (slice === undefined || slice.since > before) break
        const freed = Math.min(surplus, slice.amount)
        surplus -= freed
        slice.amount -= freed
        aged -= freed
        const closed = Math.min(slice.open, freed)
        slice.open -= closed
        agedOpen -= closed
        known = undefined
      }
      dropEmpty()
    },

    keptForHigh: (at) => {
      if (levels.capacity === Number.POSITIVE_INFINITY) return 0
      const free = Math.max(0, levels.capacity - used(at))
      const keptNow = keptFromLower(at)
      return Math.min(free, levels.rounding > 0 ? Math.ceil(keptNow) : keptNow)
    },

    nextFreeAt: (at) => {
      prune(at)
      let next: number | undefined
      visitReleases((freeAt) => {
        next = freeAt
        return true
      })
      return next
    },

    setLevels: (next) => {
      levels = next
      tolerance = next.capacity === Number.POSITIVE_INFINITY ? 0 : next.capacity * EXACT
      known = undefined
    },

    setLength: (next) => {
      windowMs = next
      kept = keptMs(next)
      known = undefined
    },

    setBacklog: (isWaitedFor) => {
      isBacklogged = isWaitedFor
      if (!isWaitedFor && isHeldBack) setHeldBack(false)
    },

    aged: (at) => {
      prune(at)
      const saved: Array<readonly [number, number]> = []
      let from = Number.NEGATIVE_INFINITY
      for (let index = head; index < log.length; index++) {
        const slice = log[index]
        if (slice === undefined || slice.amount <= 0) continue
        const last = saved.pop()
        if (last === undefined || slice.since - from >= windowMs / SAVED_SLICES) {
          if (last !== undefined) saved.push(last)
          from = slice.since
          saved.push([slice.since, slice.amount])
        } else saved.push([slice.since, last[1] + slice.amount])
      }
      return saved
    },

    restore: (since, amount, at) => {
      if (amount > 0 && since + kept > at) addToLog(amount, 0, 0, since)
    }
  }
}
