import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, renameSync, unlinkSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { Clock, Effect, Either, Option, Random, Schema } from "effect"
import { HandoffPolicy, LimitStatus, LimitWindow, ReadingSource, SessionId } from "../Domain/Session.js"
import type { SessionReport } from "../Feed/Report.js"
import { maxSpoolBytes, spoolOf } from "../Feed/Spool.js"

const Amount = Schema.NonNegative.pipe(Schema.finite())

const Report = Schema.Struct({
  sessionId: SessionId,
  account: Schema.String,
  source: ReadingSource,
  at: Amount,
  status: Schema.optional(Schema.Literal("started", "active", "limited", "ended")),
  transcriptPath: Schema.optional(Schema.String),
  cwd: Schema.optional(Schema.String),
  model: Schema.optional(Schema.String),
  contextUsedPercent: Schema.optional(Amount),
  contextTokens: Schema.optional(Amount),
  contextWindow: Schema.optional(Amount),
  costUsd: Schema.optional(Amount),
  limit: Schema.optional(Schema.Struct({ window: LimitWindow, hitAt: Amount, resetsAt: Schema.optional(Amount) })),
  pid: Schema.optional(Amount),
  permissionMode: Schema.optional(Schema.String),
  allowedTools: Schema.optional(Schema.Array(Schema.String)),
  launchedBy: Schema.optional(Schema.Literal("user", "dream-team")),
  handoff: Schema.optional(HandoffPolicy),
  answersMark: Schema.optional(Schema.String),
  readings: Schema.Array(
    Schema.Struct({
      window: LimitWindow,
      usedPercent: Schema.optional(Amount),
      resetsAt: Schema.optional(Amount),
      status: LimitStatus
    })
  ),
  usage: Schema.Array(Schema.Struct({ message: Schema.String, inputTokens: Amount, outputTokens: Amount }))
})

const decodeReport = Schema.decodeUnknownEither(Schema.parseJson(Report))

/** Reports stored by one transaction. */
const batch = 200

/**
 * Stores what feeds left beside the database. The file is renamed before it is read, so that feeds begin a new one, and
 * deleted once its reports are stored: what a crash leaves is read again, and changes nothing the second time. Lines
 * that are no reports, such as half a one, are passed over.
 */
export const drain = Effect.fn("Spool.drain")(function* <E>(
  database: string,
  store: (reports: ReadonlyArray<SessionReport>) => Effect.Effect<void, E>
) {
  const spool = spoolOf(database)
  const taken = `${spool}.${yield* Clock.currentTimeMillis}-${yield* Random.nextIntBetween(0, 1_000_000)}`
  // Nothing is there most of the time.
  yield* Effect.ignore(Effect.try(() => renameSync(spool, taken)))
  const files = yield* Effect.orElseSucceed(
    Effect.try(() => readdirSync(dirname(spool)).filter((name) => name.startsWith(`${basename(spool)}.`))),
    (): ReadonlyArray<string> => []
  )
  let count = 0
  for (const name of files.toSorted()) {
    const file = join(dirname(spool), name)
    const text = yield* Effect.option(Effect.try(() => readWhole(file)))
    if (Option.isNone(text)) continue
    const reports = text.value.split("\n").flatMap((line) =>
      Either.match(decodeReport(line), {
        onLeft: () => [],
        onRight: (report): ReadonlyArray<SessionReport> => [report]
      })
    )
    for (let start = 0; start < reports.length; start += batch) yield* store(reports.slice(start, start + batch))
    count += reports.length
    yield* Effect.ignore(Effect.try(() => unlinkSync(file)))
  }
  return count
})

/** A file that somebody put there is not followed elsewhere, and not read without end. */
const readWhole = (file: string): string => {
  const opened = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const buffer = Buffer.alloc(Math.min(fstatSync(opened).size, 2 * maxSpoolBytes))
    return buffer.toString("utf8", 0, readSync(opened, buffer, 0, buffer.length, 0))
  } finally {
    closeSync(opened)
  }
}
