import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import {
  Cause,
  Clock,
  Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  identity,
  Layer,
  Option,
  type Scope,
  Tracer
} from "effect"
import type { YieldWrap } from "effect/Utils"
import { ServiceUnavailable } from "../Domain/ApiError.js"
import { supervised } from "../Telemetry/supervised.js"
import { isTraced } from "../Telemetry/traced.js"
import { inTurn } from "./inTurn.js"
import { codeOf, DatabaseUnavailable, type Fate, Ownership, rootOf } from "./Ownership.js"
import { makeRefusals } from "./Refusals.js"

/** Writes that may wait for their commit; the next one waits for room. */
const maxQueued = 4096
/** Writes committed together at most, so that one group never holds the process up for long. */
const maxGroup = 256
/** While writes are refused, one is tried this often. */
const checkedEvery = Duration.seconds(1)
/** It needs as much room as many a submission, so that what is all but full is not held to be well. */
const filler = "-".repeat(64 * 1024)
/** Above what any group runs, so that nothing else of this process is seen between its statements. */
const opsWithoutYield = Number.MAX_SAFE_INTEGER

/** Part of what a write does, for use inside a generator of effects: it is none of its own, and so no step of it. */
export type Steps<A> = Generator<YieldWrap<Effect.Effect<unknown, SqlError>>, A>

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>
type Operation<A> = Effect.Effect<A, SqlError> | Steps<A>

/** A write in its place. */
interface Write {
  /** Runs it and keeps its result. */
  readonly run: () => Steps<void>
  /** Hands the kept result to the caller. */
  readonly committed: () => void
  readonly failed: (outcome: Effect.Effect<never, ServiceUnavailable>) => void
}

/** How far a transaction came. */
interface Progress {
  begun: boolean
  /** Asks what became of it, once nothing of it is left but its COMMIT. */
  fate: Effect.Effect<Fate>
}

// A class, for its generator: a generator function made anew for each write would cost more than what it does.
class WriteOf<A> implements Write {
  private readonly operation: () => Operation<A>
  private readonly answer: (outcome: Effect.Effect<A, ServiceUnavailable>) => void
  private result: Exit.Exit<A> | undefined

  constructor(operation: () => Operation<A>, answer: (outcome: Effect.Effect<A, ServiceUnavailable>) => void) {
    this.operation = operation
    this.answer = answer
    this.result = undefined
  }

  *run(): Steps<void> {
    this.result = Exit.succeed(yield* this.operation())
  }

  committed(): void {
    this.answer(this.result ?? Effect.dieMessage("a write was committed before it was run"))
  }

  failed(outcome: Effect.Effect<never, ServiceUnavailable>): void {
    this.answer(outcome)
  }
}

/** The one way by which the task database is written. */
export class SqlWriter extends Context.Tag("dream-team/SqlWriter")<
  SqlWriter,
  {
    /**
     * Commits what `operation` writes and answers once it is on disk. An operation that fails leaves nothing behind;
     * what it decides without failing (say, that the task is no longer its caller's) it returns as its value.
     * It may be run more than once; only its last run counts. A caller that is interrupted meanwhile changes nothing:
     * the write keeps its place.
     */
    readonly write: <A>(operation: Effect.Effect<A, SqlError>) => Effect.Effect<A, ServiceUnavailable>
    /** The same for steps, which get the wall time at which it was asked for, epoch ms. */
    readonly writeSteps: <A>(steps: (now: number) => Steps<A>) => Effect.Effect<A, ServiceUnavailable>
    /**
     * For use inside an operation: runs `effect` once the transaction it is part of is committed, before the callers are
     * answered. The same effect (the same value) asked for by several operations of one transaction runs once.
     */
    readonly afterCommit: (effect: Effect.Effect<void>) => Effect.Effect<void>
    /**
     * Why the database refused the latest writes; none while it takes them. While it refuses them one is tried every second,
     * so this is over soon after its reason is.
     */
    readonly refusal: Effect.Effect<Option.Option<ServiceUnavailable>>
  }
>() {
  static readonly layer: Layer.Layer<SqlWriter, never, Ownership | SqlClient.SqlClient> = Layer.scoped(
    SqlWriter,
    Effect.suspend(() => makeWriter)
  )
}

const turnOfTheEventLoop = Effect.async<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

/**
 * How the writer lets the process take in what has arrived, so that it becomes part of the next group: by default a turn
 * of the event loop. When that turn comes is nobody's to say, so where each run is to be like the other, give another.
 */
export class Arrivals extends Context.Reference<Arrivals>()("dream-team/Sql/Arrivals", {
  defaultValue: (): Effect.Effect<void> => turnOfTheEventLoop
}) {}

/**
 * The one fiber that writes. It commits in one transaction whatever is queued when it looks, and what arrives while
 * it commits is its next group: alone a write waits for nobody, under load many share one flush of the disk.
 * A group that fails is undone and its writes are tried one by one, so each caller gets its own outcome; but where not
 * even a transaction can be begun, or another process owns the database now, they all fail with it. A COMMIT may be made
 * though its answer is lost, so the database is asked what became of it: to run its writes again would do them twice.
 * When the scope closes, what is queued is still committed and nothing more is taken.
 */
const makeWriter: Effect.Effect<SqlWriter["Type"], never, Ownership | SqlClient.SqlClient | Scope.Scope> = Effect.gen(
  function* () {
    const sql = yield* SqlClient.SqlClient
    const ownership = yield* Ownership
    const takeArrivals = yield* Arrivals
    const refusals = yield* makeRefusals
    /** In their order. Whoever finds it full waits here as well, but is gone if interrupted before there was room. */
    const queue: Array<Write> = []
    const state = { open: true, wake: () => {} }
    const afterwards = new Set<Effect.Effect<void>>()
    // A COMMIT that fails may leave an SQLite transaction open, and the next BEGIN on this connection needs it gone.
    const undo = sql.onDialectOrElse({ pg: () => Effect.void, orElse: () => Effect.ignore(sql`ROLLBACK`) })
    const committed = Effect.suspend(() => inTurn([...afterwards], identity))

    const transaction = (
      group: ReadonlyArray<Write>,
      progress: Progress
    ): Effect.Effect<void, SqlError | DatabaseUnavailable> =>
      Effect.suspend(() => {
        let reason = Option.none<Cause.Cause<SqlError | DatabaseUnavailable>>()
        const writes = Effect.gen(function* () {
          const fate = yield* ownership.check
          afterwards.clear()
          progress.begun = true
          for (const write of group) yield* write.run()
          progress.fate = fate
        }).pipe(
          Effect.tapErrorCause((cause) =>
            Effect.sync(() => {
              reason = Option.some(cause)
            })
          )
        )
        return sql.withTransaction(writes).pipe(
          // SQLite may have undone a failed transaction by itself; what then fails is only the second undoing.
          (all) => Effect.catchAllCause(all, (cause) => Effect.failCause(Option.getOrElse(reason, () => cause))),
          Effect.tapErrorCause(() => undo)
        )
      })

    const announce = (group: ReadonlyArray<Write>): Effect.Effect<void> => {
      const announced = Effect.zipRight(
        committed,
        Effect.sync(() => {
          for (const write of group) write.committed()
        })
      )
      return Option.isNone(refusals.current()) ? announced : Effect.zipRight(refusals.end, announced)
    }

    const refuse = (group: ReadonlyArray<Write>, cause: Cause.Cause<SqlError | DatabaseUnavailable>) =>
      Effect.suspend(() => {
        const fail = (outcome: Effect.Effect<never, ServiceUnavailable>): void => {
          for (const write of group) write.failed(outcome)
        }
        const error = Cause.squash(cause)
        if (error instanceof SqlError) {
          const answer = refusal(error)
          return Effect.map(refusals.add(group.length, codeOf(rootOf(error)), answer, cause), () => fail(answer))
        }
        if (error instanceof DatabaseUnavailable) {
          const answer = new ServiceUnavailable({ message: error.message })
          refusals.addTold(answer)
          fail(answer)
        } else fail(Effect.die(error))
        return Effect.void
      })

    const commit = (group: ReadonlyArray<Write>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const progress: Progress = { begun: false, fate: Effect.succeed("undone") }
        return Effect.matchCauseEffect(transaction(group, progress), {
          onSuccess: () => announce(group),
          onFailure: (cause) =>
            Effect.flatMap(progress.fate, (fate) => {
              switch (fate) {
                case "committed":
                  return announce(group)
                case "unknown":
                  return Effect.zipRight(
                    Effect.logError("The task database was lost in the midst of a commit", cause),
                    Effect.sync(() => {
                      refusals.addTold(unavailable)
                      for (const write of group) write.failed(unknownFate)
                    })
                  )
                case "undone":
                  return group.length === 1 || !progress.begun
                    ? refuse(group, cause)
                    : Effect.forEach(group, (write) => commit([write]), { discard: true })
              }
            })
        })
      })

    const somethingToDo = Effect.async<void>((resume) => {
      state.wake = () => resume(Effect.void)
      if (queue.length > 0 || !state.open) state.wake()
    })

    const loop: Effect.Effect<void> = Effect.gen(function* () {
      yield* somethingToDo
      yield* takeArrivals
      const group = queue.splice(0, maxGroup)
      if (group.length > 0) yield* Effect.withMaxOpsBeforeYield(commit(group), opsWithoutYield)
      return state.open || queue.length > 0
    }).pipe(Effect.repeat({ while: (goOn) => goOn }), Effect.asVoid)

    yield* Effect.acquireRelease(Effect.forkDaemon(Effect.interruptible(loop)), (fiber) =>
      Effect.suspend(() => {
        state.open = false
        state.wake()
        return Fiber.join(fiber)
      })
    )

    // One step to queue it and one to wait, for this is done several times for every task.
    const queued = <A>(operationOf: (fiber: AnyFiber) => () => Operation<A>): Effect.Effect<A, ServiceUnavailable> =>
      Effect.async((resume) => {
        if (!state.open) return resume(new ServiceUnavailable({ message: "The service is shutting down" }))
        const own = new WriteOf(operationOf(Option.getOrThrow(Fiber.getCurrentFiber())), resume)
        queue.push(own)
        state.wake()
        if (queue.length <= maxQueued) return
        return Effect.sync(() => {
          const place = queue.indexOf(own)
          if (place >= maxQueued) queue.splice(place, 1)
        })
      })

    const write = <A>(operation: Effect.Effect<A, SqlError>) =>
      queued((fiber) => {
        const own = withSpanOf(fiber, operation)
        return () => own
      })

    yield* supervised(
      "Whether the task database takes writes again could not be tried",
      refusals.begun.pipe(
        // Two commits, so that its room is none that it has left behind itself.
        Effect.zipRight(
          write(sql`
            INSERT INTO write_checks (one, filler) VALUES (1, ${filler})
            ON CONFLICT (one) DO UPDATE SET filler = excluded.filler`)
        ),
        Effect.zipRight(write(sql`DELETE FROM write_checks`)),
        Effect.ignore,
        Effect.zipRight(Effect.sleep(checkedEvery)),
        Effect.forever,
        Effect.interruptible
      )
    )

    return {
      write,
      writeSteps: (steps) =>
        queued((fiber) => {
          const now = Context.get(fiber.currentDefaultServices, Clock.Clock).unsafeCurrentTimeMillis()
          const run = () => steps(now)
          return isTraced(fiber) ? () => withSpanOf(fiber, Effect.gen(run)) : run
        }),
      afterCommit: (effect) =>
        Effect.sync(() => {
          afterwards.add(effect)
        }),
      refusal: Effect.sync(refusals.current)
    }
  }
)

/** An operation whose spans are part of that of who asked for it, where anybody sees them. */
const withSpanOf = <A, E>(fiber: AnyFiber, operation: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  if (!isTraced(fiber)) return operation
  const span = Context.getOption(fiber.currentContext, Tracer.ParentSpan)
  return Option.isSome(span) ? Effect.withParentSpan(operation, span.value) : operation
}

/** What callers are told when the database refuses a write; the log has the whole. */
const refusal = (error: SqlError): ServiceUnavailable => {
  const code = codeOf(rootOf(error))
  if (code.startsWith("SQLITE_FULL") || code === "53100") {
    return new ServiceUnavailable({
      message: "The disk of the task database is full. Nothing was changed; try again once there is room."
    })
  }
  if (code.startsWith("SQLITE_CORRUPT") || code.startsWith("SQLITE_NOTADB")) {
    return new ServiceUnavailable({
      message: "The task database is damaged. Nothing was changed; whoever runs the service has to restore it."
    })
  }
  return unavailable
}

/** What callers are told when the database went away before it said whether it has committed their write. */
const unknownFate = new ServiceUnavailable({
  message:
    "The task database does not answer, and nobody can say whether it has stored this. Look, or repeat it under the same idempotency key."
})

/** What callers are told when the database fails; the log has the cause. */
export const unavailable = new ServiceUnavailable({
  message: "The task database does not answer. Nothing was changed; try again later."
})
