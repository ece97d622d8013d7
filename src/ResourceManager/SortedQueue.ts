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

/** `before(a, b)`: a ranks strictly before b. No two members may rank the same, and no member's rank may change. */
export const make = <A>(before: (a: A, b: A) => boolean): SortedQueue<A> => {
  let items: Array<A | undefined> = []
  let head = 0

  /** The first place from `head` on whose item does not rank before this one. */
  const placeOf = (item: A): number => {
    let low = head
    let high = items.length
    while (low < high) {
      const middle = (low + high) >> 1
      const other = items[middle]
      if (other !== undefined && before(other, item)) low = middle + 1
      else high = middle
    }
    return low
  }

  return {
    size: () => items.length - head,
    peek: () => items[head],
    add: (item) => {
      const last = items.length === head ? undefined : items[items.length - 1]
      const first = items[head]
      if (last === undefined || before(last, item)) items.push(item)
      else if (head > 0 && first !== undefined && before(item, first)) {
        head -= 1
        items[head] = item
      } else items.splice(placeOf(item), 0, item)
    },
    remove: (item) => {
      const place = placeOf(item)
      if (items[place] !== item) return
      if (place > head) {
        items.splice(place, 1)
        return
      }
      items[head] = undefined
      head += 1
      if (head > EMPTY_KEPT && head * 2 > items.length) {
        items = items.slice(head)
        head = 0
      }
    },
    front: (isIn) => {
      const found: Array<A> = []
      for (let place = head; place < items.length; place++) {
        const item = items[place]
        if (item === undefined || !isIn(item)) break
        found.push(item)
      }
      return found
    }
  }
}
