import * as Heap from "../../../src/ResourceManager/Heap.js"

interface Entry<A> {
  readonly at: number
  readonly order: number
  readonly event: A
}

/** What is to happen when, ms; of events of one instant the one written down first comes first. */
export interface Agenda<A> {
  readonly add: (at: number, event: A) => void
  /** Infinity where nothing is written down. */
  readonly nextAt: () => number
  /** Takes off the next event that is due at this instant. */
  readonly take: (at: number) => A | undefined
}

export const makeAgenda = <A>(): Agenda<A> => {
  const heap = Heap.make<Entry<A>>((a, b) => a.at < b.at || (a.at === b.at && a.order < b.order))
  let order = 0
  return {
    add: (at, event) => {
      order += 1
      heap.add({ at, order, event })
    },
    nextAt: () => heap.peek()?.at ?? Number.POSITIVE_INFINITY,
    take: (at) => {
      const next = heap.peek()
      if (next === undefined || next.at > at) return undefined
      heap.remove(next)
      return next.event
    }
  }
}

/** Runs what is on the agenda, event by event, until nothing is left; `act` may write down more. */
export const runAgenda = <A>(agenda: Agenda<A>, act: (event: A, at: number) => void): void => {
  for (let at = agenda.nextAt(); Number.isFinite(at); at = agenda.nextAt()) {
    for (let event = agenda.take(at); event !== undefined; event = agenda.take(at)) act(event, at)
  }
}
