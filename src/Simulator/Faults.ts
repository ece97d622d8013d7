import { Schema } from "effect"
import { ErrorShape } from "./Errors.js"
import { type Seeded, seeded } from "./Seeded.js"

const common = {
  /** A platform's id, or `*` for each. */
  platform: Schema.String,
  /** Which requests it strikes: only calls to a model (the default), or lists of models and quotas too. */
  routes: Schema.optional(Schema.Literal("calls", "all")),
  /** Only calls of whose texts one contains this. Default: all. */
  containing: Schema.optional(Schema.NonEmptyString),
  /** Share of the requests it strikes, 0 to 1, drawn from the simulator's seed. Default 1. */
  rate: Schema.optional(Schema.Number.pipe(Schema.between(0, 1))),
  /** It ends after striking so many requests. Default: it does not. */
  count: Schema.optional(Schema.Int.pipe(Schema.positive())),
  /** It ends after so long, ms. Default: it does not. */
  forMs: Schema.optional(Schema.Number.pipe(Schema.positive(), Schema.finite()))
}

/** Share of the answer that is sent before it strikes, 0 to 1. */
const after = Schema.optional(Schema.Number.pipe(Schema.between(0, 1)))

/** A trouble to make, until it is used up (`count`), over (`forMs`) or cleared. */
export const Fault = Schema.Union(
  /** Answers with a status; the body is the platform's own for it, or for `errorShape`, unless given. */
  Schema.Struct({
    fault: Schema.Literal("status"),
    ...common,
    /** Default: that of `errorShape`, else 500. */
    status: Schema.optional(Schema.Int.pipe(Schema.between(200, 599))),
    errorShape: Schema.optional(ErrorShape),
    /** Sent as it is where it is a string, else as JSON. */
    body: Schema.optional(Schema.Unknown),
    /** In place of the platform's own headers of the same name. */
    headers: Schema.optional(
      Schema.Record({
        key: Schema.String.pipe(Schema.pattern(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/)),
        value: Schema.String.pipe(Schema.pattern(/^[\t\x20-\x7e]*$/))
      })
    )
  }),
  /** Resets the connection. `after` defaults to 0: before the response begins. */
  Schema.Struct({ fault: Schema.Literal("reset"), ...common, after }),
  /** Says nothing more and keeps the connection open. `after` defaults to 0: before the response begins. */
  Schema.Struct({ fault: Schema.Literal("hang"), ...common, after }),
  /** Sends the answer in small pieces, `everyMs` apart (default 1,000 ms). */
  Schema.Struct({
    fault: Schema.Literal("drip"),
    ...common,
    everyMs: Schema.optional(Schema.Number.pipe(Schema.positive(), Schema.finite()))
  }),
  /** Ends the body in good order before it is whole. `after` defaults to 0.5. */
  Schema.Struct({ fault: Schema.Literal("truncate"), ...common, after }),
  /** A 200 whose body is not what its type says: cut JSON, or `body`. */
  Schema.Struct({ fault: Schema.Literal("malformed"), ...common, body: Schema.optional(Schema.String) }),
  /** A 200 that tells of an error in its body; a stream does so after `after` of it (default 0.5). */
  Schema.Struct({
    fault: Schema.Literal("stream-error"),
    ...common,
    after,
    /** Default `server-error`. */
    errorShape: Schema.optional(ErrorShape)
  }),
  /** No trouble: the model says this, whole and at its own pace. What is no string is said as JSON. */
  Schema.Struct({
    fault: Schema.Literal("answer"),
    ...common,
    says: Schema.Unknown.pipe(Schema.filter((said) => said !== undefined, { message: () => "expected what it says" }))
  })
).annotations({ identifier: "Fault", parseOptions: { onExcessProperty: "error", errors: "all" } })
export type Fault = typeof Fault.Type

/** A fault that is set. */
export interface ActiveFault {
  readonly id: number
  readonly fault: Fault
  /** Requests it has struck. */
  readonly struck: number
}

/** Faults that can be set at once. */
export const maxFaults = 1_000

interface Entry {
  readonly id: number
  readonly fault: Fault
  readonly endsAt: number
  readonly random: Seeded
  struck: number
}

/** The faults that are set, oldest first. Times are ms and must not go back. */
export class FaultBoard {
  private readonly seed: number
  private entries: Array<Entry> = []
  private lastId = 0

  constructor(seed: number) {
    this.seed = seed
  }

  /** `undefined` where there are too many already. */
  add(fault: Fault, now: number): ActiveFault | undefined {
    this.forget(now)
    if (this.entries.length >= maxFaults) return undefined
    this.lastId++
    const entry: Entry = {
      id: this.lastId,
      fault,
      endsAt: fault.forMs === undefined ? Number.POSITIVE_INFINITY : now + fault.forMs,
      random: seeded(this.seed, ["fault", String(this.lastId)]),
      struck: 0
    }
    this.entries.push(entry)
    return { id: entry.id, fault, struck: 0 }
  }

  /** The fault that strikes this request, if any does; it counts as struck. `texts`: of a call to a model. */
  draw(platform: string, texts: ReadonlyArray<string> | undefined, now: number): Fault | undefined {
    if (this.entries.length === 0) return undefined
    this.forget(now)
    for (const entry of this.entries) {
      const { fault } = entry
      if (fault.platform !== "*" && fault.platform !== platform) continue
      if (texts === undefined && fault.routes !== "all") continue
      const { containing } = fault
      if (containing !== undefined && texts?.some((text) => text.includes(containing)) !== true) continue
      if (fault.rate !== undefined && entry.random.next() >= fault.rate) continue
      entry.struck++
      return fault
    }
    return undefined
  }

  list(now: number): ReadonlyArray<ActiveFault> {
    this.forget(now)
    return this.entries.map(({ id, fault, struck }) => ({ id, fault, struck }))
  }

  /** Ends the faults set for one platform (not those set for `*`), or all of them; says how many there were. */
  clear(platform: string | undefined, now: number): number {
    this.forget(now)
    const before = this.entries.length
    this.entries = platform === undefined ? [] : this.entries.filter(({ fault }) => fault.platform !== platform)
    return before - this.entries.length
  }

  private forget(now: number): void {
    this.entries = this.entries.filter(
      (entry) => entry.endsAt > now && (entry.fault.count === undefined || entry.struck < entry.fault.count)
    )
  }
}
