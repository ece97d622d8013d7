import { Effect } from "effect"

/**
 * Runs one effect after another. In the writes of every task there are mostly one or two of them, which by
 * `Effect.forEach` take longer than the statements that they are.
 */
export const inTurn = <A, E, R>(
  items: ReadonlyArray<A>,
  run: (item: A) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, E, R> => {
  let all: Effect.Effect<unknown, E, R> | undefined
  if (items.length > 8) return Effect.forEach(items, run, { discard: true })
  for (const item of items) {
    all = all === undefined ? run(item) : Effect.flatMap(all, () => run(item))
  }
  return all === undefined ? Effect.void : Effect.asVoid(all)
}
