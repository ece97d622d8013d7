import { Cause, Chunk, Effect, Exit, Option, Queue, Stream } from "effect"

/**
 * A stream of what `run` gives, and of `last` once it has succeeded. It runs in a fiber of the stream's own: who stops
 * reading interrupts it, and it gets no further ahead of a slow reader than `ahead` chunks.
 */
export const streamOf = <A, B, E>(
  run: (give: (pieces: Chunk.Chunk<A>) => Effect.Effect<void>) => Effect.Effect<B, E>,
  last: (result: B) => Chunk.Chunk<A>,
  ahead: number
): Stream.Stream<A, E> =>
  Stream.unwrapScoped(
    Effect.gen(function* () {
      const given = yield* Queue.bounded<Chunk.Chunk<A> | Exit.Exit<B, E>>(ahead)
      yield* run((pieces) => Queue.offer(given, pieces)).pipe(
        Effect.exit,
        Effect.flatMap((ending) => Queue.offer(given, ending)),
        Effect.forkScoped
      )
      let isOver = false
      return Stream.repeatEffectChunkOption(
        Effect.suspend(() => (isOver ? Effect.fail(Option.none()) : Queue.take(given))).pipe(
          Effect.flatMap((next) => {
            if (Chunk.isChunk(next)) return Effect.succeed(next)
            isOver = true
            return Exit.match(next, {
              onSuccess: (result) => Effect.succeed(last(result)),
              onFailure: (cause) => Effect.failCause(Cause.map(cause, Option.some))
            })
          })
        )
      )
    })
  )
