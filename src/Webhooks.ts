import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Cause, Clock, Duration, Effect, Layer, Option, Schedule, type Scope } from "effect"
import type { ServiceUnavailable } from "./Domain/ApiError.js"
import { isFinal, isFinalOfJob } from "./Domain/Event.js"
import type { TenantId } from "./Domain/Task.js"
import { makeClockLook } from "./Domain/Time.js"
import { Events, type StoredEvents } from "./Events.js"
import { hostOf } from "./Settings/CallbackUrl.js"
import { Settings } from "./Settings.js"
import { SqlWriter } from "./Sql/Writer.js"
import { TaskStore } from "./TaskStore.js"
import { supervised } from "./Telemetry/supervised.js"
import { backoffMs, retryAfterMs } from "./Webhooks/Backoff.js"
import { payloadOf } from "./Webhooks/Payload.js"
import { type DeliveryRow, rowColumns, webhookIdOf } from "./Webhooks/Rows.js"
import { WebhookSender } from "./Webhooks/Sender.js"
import { signedHeaders } from "./Webhooks/Signature.js"

export { type WebhookAnswer, type WebhookRequest, WebhookSender, WebhookUnanswered } from "./Webhooks/Sender.js"

/** Deliveries under way at once, to all hosts and to one. */
const maxUnderWay = 32
const maxUnderWayPerHost = 4

/** A delivery that was made is written down, however long the database takes to answer, at distances of up to 10 s. */
const untilStored = Schedule.exponential("100 millis").pipe(Schedule.union(Schedule.spaced("10 seconds")))

/** A host that has something to be delivered. */
interface Host {
  /** When the first delivery that is not under way is due, epoch ms. */
  nextAt: number
  readonly underWay: Set<number>
}

/** What becomes of a delivery after an attempt. */
type Outcome =
  | { readonly _tag: "Delivered"; readonly status: number }
  | { readonly _tag: "Failed"; readonly status?: number | undefined; readonly why: string }
  | { readonly _tag: "Again"; readonly status?: number | undefined; readonly why: string; readonly at: number }

const statusWords = (status: number): string =>
  status >= 300 && status < 400 ? `it answered ${status}, and redirects are not followed` : `it answered ${status}`

/**
 * Tells the ends of tasks and jobs to whoever asked for it, over HTTP. A delivery is a row written in the transaction
 * of the end itself; it is tried until the receiver accepts it or its time is over, over restarts too, always under the
 * same id. Without a secret in the settings nothing is told.
 */
const layer: Layer.Layer<
  never,
  never,
  Events | Settings | SqlClient.SqlClient | SqlWriter | TaskStore | WebhookSender
> = Layer.scopedDiscard(
  Effect.suspend(() =>
    Effect.flatMap(Settings, ({ webhooks }) => (webhooks.secrets.length === 0 ? Effect.void : start))
  )
)

const start: Effect.Effect<
  void,
  never,
  Events | Settings | SqlClient.SqlClient | SqlWriter | TaskStore | WebhookSender | Scope.Scope
> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const writer = yield* SqlWriter
  const events = yield* Events
  const store = yield* TaskStore
  const sender = yield* WebhookSender
  const { webhooks } = yield* Settings
  const scope = yield* Effect.scope

  const hosts = new Map<string, Host>()
  const news = yield* Effect.makeLatch(true)
  let underWay = 0

  const expect = (name: string, at: number): void => {
    const host = hosts.get(name) ?? { nextAt: at, underWay: new Set<number>() }
    host.nextAt = Math.min(host.nextAt, at)
    hosts.set(name, host)
    news.unsafeOpen()
  }

  /** Hosts of deliveries whose commit was not announced yet; one too many does no harm. */
  const written = new Map<string, number>()
  const announce = Effect.sync(() => {
    for (const [name, at] of written) expect(name, at)
    written.clear()
  })

  const isTold = (isAttention: boolean): boolean => webhooks.urlFor === "all" || isAttention

  const write = (
    end: { readonly tenant: TenantId; readonly type: string; readonly at: number },
    of: { readonly task_id: string } | { readonly job_id: string },
    urls: ReadonlyArray<string | null | undefined>
  ): Effect.Effect<void, SqlError> => {
    const rows = [...new Set(urls)].flatMap((url) => {
      if (url === null || url === undefined) return []
      const host = hostOf(new URL(url))
      written.set(host, end.at)
      const expires_at = end.at + webhooks.expireMs
      return { ...end, ...of, url, host, state: "pending", next_at: end.at, expires_at, updated_at: end.at }
    })
    return rows.length === 0
      ? Effect.void
      : Effect.zipRight(writer.afterCommit(announce), Effect.asVoid(sql`INSERT INTO deliveries ${sql.insert(rows)}`))
  }

  /** What was not told yet of an end that was undone is not told any more. */
  const forget = (column: "task_id" | "job_id", id: string): Effect.Effect<void, SqlError> =>
    Effect.asVoid(sql`DELETE FROM deliveries WHERE ${sql(column)} = ${id} AND state = 'pending'`)

  const note = (stored: StoredEvents): Effect.Effect<void, SqlError> => {
    const { at, id } = stored
    if (stored.kind === "task" && !stored.bodies.some((body) => body.type === "task.retried" || isFinal(body))) {
      return Effect.void
    }
    return Effect.gen(function* () {
      if (stored.kind === "task") {
        if (stored.bodies.some(({ type }) => type === "task.retried")) yield* forget("task_id", id)
        const end = stored.bodies.find(isFinal)
        if (end === undefined) return
        const [task] = yield* sql<{
          readonly tenant: TenantId
          readonly callback_url: string | null
          readonly attention: number
        }>`
          SELECT tenant, callback_url, attention FROM tasks WHERE id = ${id} AND parent_id IS NULL`
        // What is tried for a task is told by that task's own end.
        if (task === undefined) return
        const { attention, callback_url, tenant } = task
        const own = isTold(attention === 1) ? webhooks.url : undefined
        return yield* write({ tenant, type: end.type, at }, { task_id: id }, [callback_url, own])
      }
      if (stored.bodies.some(({ type }) => type === "job.reopened")) yield* forget("job_id", id)
      const end = stored.bodies.find(isFinalOfJob)
      if (end === undefined) return
      const [job] = yield* sql<{ readonly callback_url: string | null }>`SELECT callback_url FROM jobs WHERE id = ${id}`
      const own = isTold(false) ? webhooks.url : undefined
      yield* write({ tenant: stored.tenant, type: end.type, at }, { job_id: id }, [job?.callback_url, own])
    })
  }

  /** What an answer means, or none. */
  const outcomeOf = (
    row: DeliveryRow,
    now: number,
    answer: { readonly status?: number | undefined; readonly retryAfter?: string | undefined; readonly why: string }
  ): Effect.Effect<Outcome> => {
    const { status, why } = answer
    if (status !== undefined && status >= 200 && status < 300) return Effect.succeed({ _tag: "Delivered", status })
    if (status === 410) return Effect.succeed({ _tag: "Failed", status, why: "it answered 410: it is gone for good" })
    const asked = status === 429 || status === 503 ? retryAfterMs(answer.retryAfter, now) : 0
    return Effect.map(backoffMs(row.attempts + 1), (backoff) => {
      const at = now + Math.max(asked, backoff)
      return at >= row.expires_at
        ? { _tag: "Failed", status, why: `${why}; its time is over` }
        : { _tag: "Again", status, why, at }
    })
  }

  const record = (row: DeliveryRow, outcome: Outcome, now: number): Effect.Effect<void, ServiceUnavailable> => {
    const attempts = row.attempts + 1
    const state = { Delivered: "delivered", Failed: "failed", Again: "pending" }[outcome._tag]
    const webhook = { webhookId: webhookIdOf(row), attempts }
    return writer.write(
      Effect.gen(function* () {
        const changed = yield* sql`
          UPDATE deliveries SET state = ${state}, attempts = ${attempts}, last_status = ${outcome.status ?? null},
            last_error = ${outcome._tag === "Delivered" ? null : outcome.why},
            next_at = ${outcome._tag === "Again" ? outcome.at : null}, updated_at = ${now}
          WHERE seq = ${row.seq} AND state = 'pending' RETURNING seq`
        if (changed.length === 0 || outcome._tag === "Again") return
        const body =
          outcome._tag === "Delivered"
            ? { type: "webhook.delivered" as const, ...webhook, status: outcome.status }
            : { type: "webhook.failed" as const, ...webhook, why: outcome.why }
        if (row.task_id !== null) yield* events.append(row.task_id, now, [body])
        else if (row.job_id !== null) yield* events.appendJob(row.job_id, row.tenant, now, [body])
      })
    )
  }

  /** One attempt, and what becomes of it. What was answered is written down even where the service is about to end. */
  const attempt = (row: DeliveryRow): Effect.Effect<void> =>
    Effect.uninterruptibleMask((restore) => {
      // The schedule never ends.
      const untilAnswered = <A>(effect: Effect.Effect<A, ServiceUnavailable>): Effect.Effect<A> =>
        restore(Effect.orDie(Effect.retry(effect, untilStored)))
      return Effect.gen(function* () {
        const payload = yield* untilAnswered(
          Effect.catchTag(Effect.asSome(payloadOf(store, row)), "NotFound", () => Effect.succeedNone)
        )
        // The task or job is gone, and with it whatever was to be told of it.
        if (Option.isNone(payload)) return
        const body = payload.value
        const sentAt = yield* Clock.currentTimeMillis
        const headers = {
          "content-type": "application/json",
          "user-agent": "dream-team",
          ...signedHeaders(webhooks.secrets, webhookIdOf(row), sentAt, body)
        }
        const answer = yield* restore(sender.send({ url: row.url, headers, body })).pipe(
          Effect.map((got) => ({ ...got, why: statusWords(got.status) })),
          Effect.catchTag("WebhookUnanswered", ({ message }) => Effect.succeed({ why: message }))
        )
        const now = yield* Clock.currentTimeMillis
        const outcome = yield* outcomeOf(row, now, answer)
        if (outcome._tag === "Failed") {
          yield* Effect.logWarning(
            `A webhook was given up after ${row.attempts === 0 ? "1 attempt" : `${row.attempts + 1} attempts`}: ${outcome.why}`
          )
        }
        const stored = record(row, outcome, now)
        yield* Effect.catchTag(stored, "ServiceUnavailable", () => untilAnswered(stored))
      })
    })

  const deliver = Effect.fn("Webhooks.deliver", { root: true })(function* (row: DeliveryRow, host: Host) {
    yield* Effect.annotateCurrentSpan({ "webhook.id": webhookIdOf(row), "server.address": row.host })
    yield* attempt(row).pipe(
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause)
          ? Effect.failCause(cause)
          : // It keeps its place for a while, so that a mistake of ours is not made over and over.
            Effect.zipRight(
              Effect.logError("A webhook could not be delivered by a defect", cause),
              Effect.sleep("1 minute")
            )
      ),
      Effect.annotateLogs({ webhook: webhookIdOf(row), host: row.host }),
      Effect.ensuring(
        Effect.sync(() => {
          underWay -= 1
          host.underWay.delete(row.seq)
          expect(row.host, 0)
        })
      )
    )
  })

  /** Starts what of a host is due, as far as there is room, and looks when the rest is. */
  const begin = (name: string, host: Host, now: number): Effect.Effect<void, SqlError> =>
    Effect.gen(function* () {
      // Before the rows are read, so that what is announced meanwhile is looked at anew.
      host.nextAt = Number.POSITIVE_INFINITY
      // One that ends while the rows are read may still be among them as it was before: its end has it looked at anew.
      const before = new Set(host.underWay)
      const rows = yield* sql<DeliveryRow>`
        SELECT ${sql.literal(rowColumns)} FROM deliveries WHERE state = 'pending' AND host = ${name}
        ORDER BY next_at, seq LIMIT ${maxUnderWayPerHost + host.underWay.size + 1}`
      for (const row of rows) {
        if (before.has(row.seq)) continue
        if (row.next_at > now || host.underWay.size >= maxUnderWayPerHost || underWay >= maxUnderWay) {
          host.nextAt = Math.min(host.nextAt, row.next_at)
          break
        }
        host.underWay.add(row.seq)
        underWay += 1
        yield* Effect.forkIn(deliver(row, host), scope)
      }
      if (host.underWay.size === 0 && host.nextAt === Number.POSITIVE_INFINITY) hosts.delete(name)
    })

  /** Deliveries wait for time to pass, not for a clock that was set back to come there again. */
  const followClock = yield* makeClockLook((backMs) =>
    Effect.map(writer.write(sql`UPDATE deliveries SET next_at = next_at - ${backMs} WHERE state = 'pending'`), () => {
      for (const host of hosts.values()) host.nextAt -= backMs
    })
  )

  const hasRoom = ({ underWay }: Host): boolean => underWay.size < maxUnderWayPerHost

  const look = Effect.gen(function* () {
    news.unsafeClose()
    yield* followClock
    const now = yield* Clock.currentTimeMillis
    const due = [...hosts].filter(([, host]) => host.nextAt <= now && hasRoom(host))
    due.sort(([, one], [, other]) => one.nextAt - other.nextAt)
    for (const [name, host] of due) {
      if (underWay >= maxUnderWay) break
      yield* begin(name, host, now)
    }
    if (underWay >= maxUnderWay) return yield* news.await
    const next = [...hosts.values()].reduce(
      (earliest, host) => (hasRoom(host) ? Math.min(earliest, host.nextAt) : earliest),
      Number.POSITIVE_INFINITY
    )
    yield* next === Number.POSITIVE_INFINITY
      ? news.await
      : Effect.race(news.await, Effect.sleep(Duration.millis(Math.max(0, next - now))))
  })

  const unfinished = Effect.map(
    sql<{ readonly host: string; readonly next_at: number }>`
      SELECT host, MIN(next_at) AS next_at FROM deliveries WHERE state = 'pending' GROUP BY host`,
    (rows) => {
      for (const row of rows) expect(row.host, row.next_at)
    }
  )

  yield* events.onStored(note)
  yield* supervised("Webhooks cannot be delivered just now", Effect.zipRight(unfinished, Effect.forever(look)))
})

/** Tells the ends of tasks and jobs over HTTP. */
export const Webhooks = { layer }
