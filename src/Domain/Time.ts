import { Clock, Context, Effect, Exit, ParseResult, Schema } from "effect"

/** An instant: milliseconds since the Unix epoch in programs, an ISO 8601 UTC string on the wire. */
export const Instant = Schema.transformOrFail(
  Schema.String.annotations({ jsonSchema: { type: "string", format: "date-time" } }),
  Schema.Number,
  {
    strict: true,
    decode: (text, _, ast) => {
      const epochMs = Date.parse(text)
      return Number.isNaN(epochMs)
        ? ParseResult.fail(new ParseResult.Type(ast, text, "expected an ISO 8601 instant such as 2026-11-22T12:00:00Z"))
        : ParseResult.succeed(epochMs)
    },
    encode: (epochMs) => ParseResult.succeed(new Date(epochMs).toISOString())
  }
).annotations({ identifier: "Instant" })
export type Instant = typeof Instant.Type

/** The same instant kept as text, with its zone: for requests, where it stands beside a number of seconds. */
export const InstantText = Schema.String.pipe(
  Schema.filter(
    (text) =>
      /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) && /(Z|[+-]\d\d:\d\d)$/.test(text) && !Number.isNaN(Date.parse(text)),
    {
      message: () => "expected an ISO 8601 instant such as 2026-11-22T12:00:00Z",
      jsonSchema: { format: "date-time" }
    }
  ),
  Schema.annotations({ identifier: "InstantText" })
)

/** Epoch ms of a decoded `InstantText`. */
export const epochMsOf = (instant: typeof InstantText.Type): number => Date.parse(instant)

/** Now on the clock that wall-clock changes do not move, ms; its zero means nothing, only differences do. */
export const monotonicMsOf = (clock: Clock.Clock): number => Number(clock.unsafeCurrentTimeNanos()) / 1e6

// Read of the fiber itself: this is done for every step of every task, and `Clock`'s own accessors take far longer.
const ofClock = (read: (clock: Clock.Clock) => number): Effect.Effect<number> =>
  Effect.withFiberRuntime((fiber) => Exit.succeed(read(Context.get(fiber.currentDefaultServices, Clock.Clock))))

/** The same of the clock at hand. */
export const monotonicMs: Effect.Effect<number> = ofClock(monotonicMsOf)

/** Now on the wall clock at hand, epoch ms. */
export const epochMs: Effect.Effect<number> = ofClock((clock) => clock.unsafeCurrentTimeMillis())

/** A wall clock set back by more than this has moved away the instants that somebody waits for, ms. */
const setBackMs = 1_000

/** How far the wall clock is ahead of the one that nobody can set, ms. */
const wallLead = Effect.zipWith(epochMs, monotonicMs, (wall, monotonic) => wall - monotonic)

/**
 * A look at the wall clock that does what is to be done where it was set back by more than a second since the look
 * before. `onSetBack` is given by how much, ms; where it fails, the next look does it again.
 */
export const makeClockLook = <E, R>(
  onSetBack: (backMs: number) => Effect.Effect<unknown, E, R>
): Effect.Effect<Effect.Effect<void, E, R>> =>
  Effect.map(wallLead, (atFirst) => {
    let lead = atFirst
    return Effect.gen(function* () {
      const leadNow = yield* wallLead
      const backMs = Math.round(lead - leadNow)
      if (backMs > setBackMs) yield* onSetBack(backMs)
      lead = leadNow
    })
  })
