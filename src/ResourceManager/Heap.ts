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

// A class, because the line of those who wait makes one for each call that finds it empty.
class BinaryHeap<A> implements Heap<A> {
  private readonly before: (a: A, b: A) => boolean
  private readonly positions: Positions<A>
  private readonly items: Array<A> = []

  constructor(before: (a: A, b: A) => boolean, positions: Positions<A>) {
    this.before = before
    this.positions = positions
  }

  size(): number {
    return this.items.length
  }

  peek(): A | undefined {
    return this.items[0]
  }

  add(item: A): void {
    this.rise(item, this.items.length)
  }

  remove(item: A): void {
    const index = this.positions.get(item)
    if (index === undefined) return
    this.positions.delete(item)
    const last = this.items.pop()
    if (last !== undefined && last !== item) this.settle(last, index)
  }

  update(item: A): void {
    const index = this.positions.get(item)
    if (index !== undefined) this.settle(item, index)
  }

  private place(item: A, index: number): void {
    this.items[index] = item
    this.positions.set(item, index)
  }

  private rise(item: A, from: number): number {
    let index = from
    while (index > 0) {
      const parent = (index - 1) >> 1
      const above = this.items[parent]
      if (above === undefined || !this.before(item, above)) break
      this.place(above, index)
      index = parent
    }
    this.place(item, index)
    return index
  }

  private sink(item: A, from: number): void {
    let index = from
    for (;;) {
      const left = this.items[2 * index + 1]
      if (left === undefined) break
      const right = this.items[2 * index + 2]
      const isRight = right !== undefined && this.before(right, left)
      const below = isRight ? right : left
      if (!this.before(below, item)) break
      this.place(below, index)
      index = 2 * index + (isRight ? 2 : 1)
    }
    this.place(item, index)
  }

  private settle(item: A, index: number): void {
    if (this.rise(item, index) === index) this.sink(item, index)
  }
}

/** `before(a, b)`: a ranks strictly before b. */
export const make = <A>(before: (a: A, b: A) => boolean, positions: Positions<A> = new Map<A, number>()): Heap<A> =>
  new BinaryHeap(before, positions)
