import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { Array as Arr, Context, Effect, Layer, Option, type ParseResult, Schema } from "effect"
import { type PlatformEvent, PlatformEventBody } from "../Domain/Event.js"
import { Drained, LimitsPatch } from "../Domain/Lease.js"
import { PlatformId } from "../Domain/Platform.js"
import { Events, type NewPlatformEvent } from "../Events.js"
import { decodeColumn } from "../Sql/jsonColumn.js"
import { SqlWriter } from "../Sql/Writer.js"
import { SavedPlatform } from "./Saved.js"

/** What cannot be read or written just now; the log says more. */
export class ResourceStoreFailed extends Schema.TaggedError<ResourceStoreFailed>()("ResourceStoreFailed", {
  message: Schema.String,
  cause: Schema.Defect
}) {}

/** What was changed of a platform by hand; `null`: as the settings have it again. What is absent stays. */
export interface ChangeByHand {
  readonly limits?: LimitsPatch | null | undefined
  readonly drained?: Drained | null | undefined
}

/** Events of one platform that are kept; older ones are dropped. */
export const eventsKept = 1_000

const decodePlatform = Schema.decodeUnknown(PlatformId)
const decodeBooks = decodeColumn(SavedPlatform)
const decodePatch = decodeColumn(LimitsPatch)
const decodeDrained = decodeColumn(Drained)
const decodeBody = decodeColumn(PlatformEventBody)

/** What another version has written is passed over: no row may keep the service from starting. */
const readable = <A>(
  what: string,
  platform: string,
  decoded: Effect.Effect<A, ParseResult.ParseError>
): Effect.Effect<Option.Option<A>> =>
  Effect.matchEffect(decoded, {
    onSuccess: (value) => Effect.succeedSome(value),
    onFailure: (error) =>
      Effect.as(
        Effect.logWarning(`${what} cannot be read and are passed over`, error.message.slice(0, 500)).pipe(
          Effect.annotateLogs({ platform })
        ),
        Option.none()
      )
  })

/** Where the books of the resource manager outlive the process. */
export class ResourceStore extends Context.Tag("dream-team/ResourceStore")<
  ResourceStore,
  {
    /** Whether what is stored outlives the process: only then are books saved at all. */
    readonly isDurable: boolean
    readonly load: Effect.Effect<ReadonlyMap<PlatformId, SavedPlatform>, ResourceStoreFailed>
    readonly save: (platforms: ReadonlyMap<PlatformId, SavedPlatform>) => Effect.Effect<void, ResourceStoreFailed>
    /** Changes of limits made while the service ran, by platform. */
    readonly patches: Effect.Effect<ReadonlyMap<PlatformId, LimitsPatch>, ResourceStoreFailed>
    /** Platforms that are out of service by hand. */
    readonly drains: Effect.Effect<ReadonlyMap<PlatformId, Drained>, ResourceStoreFailed>
    /** Stores the change and the events that tell of it in one transaction. */
    readonly change: (
      platform: PlatformId,
      change: ChangeByHand,
      events: ReadonlyArray<NewPlatformEvent>
    ) => Effect.Effect<void, ResourceStoreFailed>
    readonly record: (events: ReadonlyArray<NewPlatformEvent>) => Effect.Effect<void, ResourceStoreFailed>
    /** The latest first; those before the event `before`, where it is given. */
    readonly history: (
      platform: PlatformId,
      page: { readonly before?: number | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<PlatformEvent>, ResourceStoreFailed>
  }
>() {
  /** In memory: gone with the process. */
  static readonly layerMemory: Layer.Layer<ResourceStore> = Layer.sync(ResourceStore, () => {
    const saved = new Map<PlatformId, SavedPlatform>()
    const patches = new Map<PlatformId, LimitsPatch>()
    const drains = new Map<PlatformId, Drained>()
    const setOrDelete = <A>(map: Map<PlatformId, A>, platform: PlatformId, value: A | null | undefined): void => {
      if (value === null) map.delete(platform)
      else if (value !== undefined) map.set(platform, value)
    }
    const events = new Map<PlatformId, Array<PlatformEvent>>()
    let ids = 0
    const add = ({ at, body, platform }: NewPlatformEvent): void => {
      ids += 1
      const own = events.get(platform) ?? []
      events.set(platform, own)
      own.push({ ...body, id: ids, platform, at })
      if (own.length > eventsKept) own.shift()
    }
    return {
      isDurable: false,
      load: Effect.sync(() => new Map(saved)),
      save: (platforms) =>
        Effect.sync(() => {
          for (const [platform, books] of platforms) saved.set(platform, books)
        }),
      patches: Effect.sync(() => new Map(patches)),
      drains: Effect.sync(() => new Map(drains)),
      change: (platform, { drained, limits }, added) =>
        Effect.sync(() => {
          setOrDelete(patches, platform, limits)
          setOrDelete(drains, platform, drained)
          added.forEach(add)
        }),
      record: (added) => Effect.sync(() => added.forEach(add)),
      history: (platform, { before = Number.POSITIVE_INFINITY, limit }) =>
        Effect.sync(() =>
          (events.get(platform) ?? [])
            .filter(({ id }) => id < before)
            .slice(-limit)
            .reverse()
        )
    }
  })

  /** In the database, on disk before it is answered. */
  static readonly layer: Layer.Layer<ResourceStore, never, SqlClient.SqlClient | SqlWriter | Events> = Layer.effect(
    ResourceStore,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const writer = yield* SqlWriter
      const stored = yield* Events

      const failed = (cause: SqlError) =>
        new ResourceStoreFailed({ message: "The database does not answer", cause: cause.cause })

      const write = (writes: Effect.Effect<void, SqlError>): Effect.Effect<void, ResourceStoreFailed> =>
        Effect.mapError(
          writer.write(writes),
          (cause) => new ResourceStoreFailed({ message: "The database does not answer", cause })
        )

      /** Every row of a table with one JSON text for a platform. */
      const byPlatform = <A>(
        what: string,
        rows: Effect.Effect<ReadonlyArray<{ readonly platform: string; readonly json: string }>, SqlError>,
        decode: (json: string) => Effect.Effect<A, ParseResult.ParseError>
      ): Effect.Effect<ReadonlyMap<PlatformId, A>, ResourceStoreFailed> =>
        Effect.flatMap(Effect.mapError(rows, failed), (found) =>
          Effect.map(
            Effect.forEach(found, ({ json, platform }) =>
              readable(what, platform, Effect.all([decodePlatform(platform), decode(json)]))
            ),
            (entries) => new Map(Arr.getSomes(entries))
          )
        )

      const saveBooks = ([platform, books]: readonly [PlatformId, SavedPlatform]) => sql`
        INSERT INTO platform_books (platform, books) VALUES (${platform}, ${JSON.stringify(books)})
        ON CONFLICT (platform) DO UPDATE SET books = excluded.books`

      const savePatch = (platform: PlatformId, patch: LimitsPatch | null) =>
        patch === null
          ? sql`DELETE FROM platform_limits WHERE platform = ${platform}`
          : sql`INSERT INTO platform_limits (platform, patch) VALUES (${platform}, ${JSON.stringify(patch)})
              ON CONFLICT (platform) DO UPDATE SET patch = excluded.patch`

      const saveDrained = (platform: PlatformId, drained: Drained | null) =>
        drained === null
          ? sql`DELETE FROM platform_drains WHERE platform = ${platform}`
          : sql`INSERT INTO platform_drains (platform, drained) VALUES (${platform}, ${JSON.stringify(drained)})
              ON CONFLICT (platform) DO UPDATE SET drained = excluded.drained`

      const prune = (platform: PlatformId) => sql`
        DELETE FROM events WHERE platform = ${platform} AND id <= (
          SELECT id FROM events WHERE platform = ${platform} ORDER BY id DESC LIMIT 1 OFFSET ${eventsKept}
        )`

      const append = (events: ReadonlyArray<NewPlatformEvent>): Effect.Effect<void, SqlError> =>
        Effect.zipRight(
          stored.appendPlatform(events),
          Effect.forEach(new Set(events.map(({ platform }) => platform)), prune, { discard: true })
        )

      const history = (
        platform: PlatformId,
        before: number,
        limit: number
      ): Effect.Effect<ReadonlyArray<PlatformEvent>, ResourceStoreFailed> =>
        Effect.gen(function* () {
          const rows = yield* Effect.mapError(
            sql<{ readonly id: number; readonly at: number; readonly body: string }>`
              SELECT id, at, body FROM events WHERE platform = ${platform} AND id < ${before}
              ORDER BY id DESC LIMIT ${limit}`,
            failed
          )
          const read = yield* Effect.forEach(rows, ({ at, body, id }) =>
            Effect.map(
              readable("Events of a platform", platform, decodeBody(body)),
              Option.map((known): PlatformEvent => ({ ...known, id, platform, at }))
            )
          )
          const events = Arr.getSomes(read)
          const last = rows.at(-1)
          // A page is short only where there is nothing more, so what could not be read is made up for.
          return events.length === limit || rows.length < limit || last === undefined
            ? events
            : [...events, ...(yield* history(platform, last.id, limit - events.length))]
        })

      return {
        isDurable: true,
        load: byPlatform(
          "The books of a platform",
          sql<{ readonly platform: string; readonly json: string }>`
            SELECT platform, books AS json FROM platform_books`,
          decodeBooks
        ),
        save: (platforms) => write(Effect.forEach(platforms, saveBooks, { discard: true })),
        patches: byPlatform(
          "The changed limits of a platform",
          sql<{ readonly platform: string; readonly json: string }>`
            SELECT platform, patch AS json FROM platform_limits`,
          decodePatch
        ),
        drains: byPlatform(
          "Whether a platform is drained",
          sql<{ readonly platform: string; readonly json: string }>`
            SELECT platform, drained AS json FROM platform_drains`,
          decodeDrained
        ),
        change: (platform, { drained, limits }, events) =>
          write(
            Effect.gen(function* () {
              if (limits !== undefined) yield* savePatch(platform, limits)
              if (drained !== undefined) yield* saveDrained(platform, drained)
              yield* append(events)
            })
          ),
        record: (events) => (events.length === 0 ? Effect.void : write(append(events))),
        history: (platform, { before = Number.MAX_SAFE_INTEGER, limit }) => history(platform, before, limit)
      }
    })
  )
}
