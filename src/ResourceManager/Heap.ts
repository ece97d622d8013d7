/** A binary heap that also removes and re-ranks any of its members in O(log n). Members are compared by identity. */
export interface Heap<A> {
  readonly size: () => number
  readonly peek: () => A | undefined
  readonly add: (item: A) => void
  /** No effect where it is not a member. */
  readonly remove: (item: A) => void
  /** The member's rank has changed. */
  readonly update: (item: A) => void
}

/** Where each member stands: a `Map`, or a field of the members themselves, which takes less memory and time. */
export interface Positions<A> {
  readonly get: (item: A) => number | undefined
  readonly set: (item: A, position: number) => unknown
  readonly delete: (item: A) => unknown
}

/** `before(a, b)`: a ranks strictly before b. */
export const make = <A>(before: (a: A, b: A) => boolean, positions: Positions<A> = new Map<A, number>()): Heap<A> => {
  const items: Array<A> = []

  const place = (item: A, index: number): void => {
    items[index] = item
    positions.set(item, index)
  }

  const rise = (item: A, from: number): number => {
    let index = from
    while (index > 0) {
      const parent = (index - 1) >> 1
      const above = items[parent]
      if (above === undefined || !before(item, above)) break
      place(above, index)
      index = parent
    }
    place(item, index)
    return index
  }

  const sink = (item: A, from: number): void => {
    let index = from
    for (;;) {
      const left = items[2 * index + 1]
      if (left === undefined) break
      const right = items[2 * index + 2]
      const isRight = right !== undefined && before(right, left)
      const below = isRight ? right : left
      if (!before(below, item)) break
      place(below, index)
      index = 2 * index + (isRight ? 2 : 1)
    }
    place(item, index)
  }

  const settle = (item: A, index: number): void => {
    if (rise(item, index) === index) sink(item, index)
  }

  return {
    size: () => items.length,
    peek: () => items[0],
    add: (item) => {
      rise(item, items.length)
    },
    remove: (item) => {
      const index = positions.get(item)
      if (index === undefined) return
      positions.delete(item)
      const last = items.pop()
      if (last !== undefined && last !== item) settle(last, index)
    },
    update: (item) => {
      const index = positions.get(item)
      if (index !== undefined) settle(item, index)
    }
  }
}
