/**
 * A queue kept in order. Made for members that mostly come in order and mostly leave from the front, which takes
 * constant time however many there are; anywhere else it is a search and one move of memory.
 */
export interface SortedQueue<A> {
  readonly size: () => number
  readonly peek: () => A | undefined
  readonly add: (item: A) => void
  /** No effect where it is not a member. */
  readonly remove: (item: A) => void
  /** The members at the front for which `isIn` holds. */
  readonly front: (isIn: (item: A) => boolean) => ReadonlyArray<A>
}

/** Places at the front that may be empty before the rest is moved up. */
const EMPTY_KEPT = 64

// A class, because the line of those who wait makes some for each call that finds it empty.
class Sorted<A> implements SortedQueue<A> {
  private readonly before: (a: A, b: A) => boolean
  private items: Array<A | undefined> = []
  private head = 0

  constructor(before: (a: A, b: A) => boolean) {
    this.before = before
  }

  size(): number {
    return this.items.length - this.head
  }

  peek(): A | undefined {
    return this.items[this.head]
  }

  add(item: A): void {
    const { before, head, items } = this
    const last = items.length === head ? undefined : items[items.length - 1]
    const first = items[head]
    if (last === undefined || before(last, item)) items.push(item)
    else if (head > 0 && first !== undefined && before(item, first)) {
      this.head -= 1
      items[this.head] = item
    } else items.splice(this.placeOf(item), 0, item)
  }

  remove(item: A): void {
    const { items } = this
    const place = items[this.head] === item ? this.head : this.placeOf(item)
    if (items[place] !== item) return
    if (place > this.head) {
      items.splice(place, 1)
      return
    }
    items[this.head] = undefined
    this.head += 1
    if (this.head > EMPTY_KEPT && this.head * 2 > items.length) {
      this.items = items.slice(this.head)
      this.head = 0
    }
  }

  front(isIn: (item: A) => boolean): ReadonlyArray<A> {
    const found: Array<A> = []
    for (let place = this.head; place < this.items.length; place++) {
      const item = this.items[place]
      if (item === undefined || !isIn(item)) break
      found.push(item)
    }
    return found
  }

  /** The first place from the head on whose item does not rank before this one. */
  private placeOf(item: A): number {
    let low = this.head
    let high = this.items.length
    while (low < high) {
      const middle = (low + high) >> 1
      const other = this.items[middle]
      if (other !== undefined && this.before(other, item)) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** `before(a, b)`: a ranks strictly before b. No two members may rank the same, and no member's rank may change. */
export const make = <A>(before: (a: A, b: A) => boolean): SortedQueue<A> => new Sorted(before)
