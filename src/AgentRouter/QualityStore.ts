import * as SqlClient from "@effect/sql/SqlClient"
import { Context, Effect, Layer, Schema } from "effect"
import { PlatformId } from "../Domain/Platform.js"
import { SqlWriter } from "../Sql/Writer.js"

/** What the router had learned of a model when it was saved. */
export const SavedQuality = Schema.Struct({
  platform: PlatformId,
  model: Schema.String,
  reliability: Schema.Number.pipe(Schema.between(0.05, 1)),
  speed: Schema.Number.pipe(Schema.between(0.25, 2)),
  /** Epoch ms. */
  savedAt: Schema.Number
})
export type SavedQuality = typeof SavedQuality.Type

/** What cannot be read or written just now. */
export class QualityStoreFailed extends Schema.TaggedError<QualityStoreFailed>()("QualityStoreFailed", {
  message: Schema.String,
  cause: Schema.Defect
}) {}

const decode = Schema.decodeUnknown(Schema.Array(SavedQuality))

const failed = (message: string) => (cause: unknown) => new QualityStoreFailed({ message, cause })

/** Where what the router has learned outlives the process. */
export class QualityStore extends Context.Tag("dream-team/QualityStore")<
  QualityStore,
  {
    readonly load: Effect.Effect<ReadonlyArray<SavedQuality>, QualityStoreFailed>
    /** In place of everything saved before. */
    readonly save: (qualities: ReadonlyArray<SavedQuality>) => Effect.Effect<void, QualityStoreFailed>
  }
>() {
  /** In memory: gone with the process. */
  static readonly layerMemory: Layer.Layer<QualityStore> = Layer.sync(QualityStore, () => {
    let saved: ReadonlyArray<SavedQuality> = []
    return {
      load: Effect.sync(() => saved),
      save: (qualities) =>
        Effect.sync(() => {
          saved = qualities
        })
    }
  })

  /** In the database. */
  static readonly layer: Layer.Layer<QualityStore, never, SqlClient.SqlClient | SqlWriter> = Layer.effect(
    QualityStore,
    Effect.map(Effect.all([SqlClient.SqlClient, SqlWriter]), ([sql, writer]) => ({
      load: sql`SELECT platform, model, reliability, speed, saved_at AS "savedAt" FROM routing_quality`.pipe(
        Effect.flatMap(decode),
        Effect.mapError(failed("What the router has learned cannot be read"))
      ),
      save: (qualities) =>
        writer
          .write(
            Effect.zipRight(
              sql`DELETE FROM routing_quality`,
              qualities.length === 0
                ? Effect.void
                : sql`INSERT INTO routing_quality ${sql.insert(
                    qualities.map(({ model, platform, reliability, savedAt, speed }) => ({
                      platform,
                      model,
                      reliability,
                      speed,
                      saved_at: Math.round(savedAt)
                    }))
                  )}`
            )
          )
          .pipe(Effect.asVoid, Effect.mapError(failed("What the router has learned cannot be stored")))
    }))
  )
}
