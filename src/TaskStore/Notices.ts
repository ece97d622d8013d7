import { Chunk, Effect, Queue, Stream } from "effect"

/** Values to be told to one reader once what they tell of is committed; each at most once until it is read. */
export interface Notices<A> {
  /** For use inside a write. */
  readonly add: (values: Iterable<A>) => Effect.Effect<void>
  /** For one reader. */
  readonly stream: Stream.Stream<A>
}

/** `afterCommit` runs an effect once the write at hand is committed. There are never more than there are values. */
export const makeNotices = <A>(
  afterCommit: (effect: Effect.Effect<void>) => Effect.Effect<void>
): Effect.Effect<Notices<A>> =>
  Effect.map(Queue.sliding<void>(1), (signal) => {
    const pending = new Set<A>()
    const announce = Effect.asVoid(Queue.offer(signal, undefined))
    const take = Effect.map(Queue.take(signal), () => {
      const values = Chunk.fromIterable(pending)
      pending.clear()
      return values
    })
    return {
      add: (values) =>
        Effect.suspend(() => {
          for (const value of values) pending.add(value)
          return pending.size === 0 ? Effect.void : afterCommit(announce)
        }),
      stream: Stream.repeatEffectChunk(take)
    }
  })
