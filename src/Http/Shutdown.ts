import { Context, Deferred, Effect, Layer } from "effect"

/** Whether the server is shutting down: from then on it takes no new work and ends its streams. */
export class Shutdown extends Context.Tag("dream-team/Http/Shutdown")<
  Shutdown,
  {
    readonly begin: Effect.Effect<void>
    readonly hasBegun: () => boolean
    /** Returns once it has begun. */
    readonly awaitBegin: Effect.Effect<void>
  }
>() {
  static readonly layer: Layer.Layer<Shutdown> = Layer.effect(
    Shutdown,
    Effect.map(Deferred.make<void>(), (signal) => {
      let begun = false
      return {
        begin: Effect.suspend(() => {
          begun = true
          return Effect.asVoid(Deferred.succeed(signal, undefined))
        }),
        hasBegun: () => begun,
        awaitBegin: Deferred.await(signal)
      }
    })
  )
}
