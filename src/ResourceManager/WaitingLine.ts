import type { PlatformId } from "../Domain/Platform.js"
import type { Priority, TenantId } from "../Domain/Task.js"
import * as Heap from "./Heap.js"

/** A platform and model that could serve a waiting call, from `notBefore` (monotonic ms) on. */
export interface Option<S> {
  readonly slot: S
  readonly model: string
  readonly weight: number
  readonly notBefore: number
}

export interface Waiter<S> {
  /** Order of arrival. */
  readonly order: number
  readonly priority: Priority
  readonly tenant: TenantId
  readonly options: ReadonlyArray<Option<S>>
  /** Monotonic ms. */
  readonly since: number
  readonly deadline: number
}

/** Calls of one priority that the same platforms and models could serve now: only its head is ever looked at. */
export interface Class<S, W> {
  readonly options: ReadonlyArray<Option<S>>
  readonly head: () => W | undefined
}

export const priorities: ReadonlyArray<Priority> = ["HIGH", "MEDIUM", "LOW"]

interface Tenant<Q> {
  /** Turns taken so far, on the level's scale: the fewest goes first. */
  turns: number
  readonly queues: Set<Q>
}

/** Idle tenants whose turns are remembered at most. */
const TENANTS_REMEMBERED = 1_000

/**
 * Who waits, in order: by priority; inside a priority in turn by tenant; inside a tenant by arrival. A waiter stands in
 * the class of those of its options whose `notBefore` has passed, and changes class when another one's does.
 */
export const make = <S extends { readonly id: PlatformId }, W extends Waiter<S>>() => {
  interface Queue {
    readonly of: OpenClass
    readonly tenant: Tenant<Queue>
    readonly line: Heap.Heap<W>
  }
  interface OpenClass extends Class<S, W> {
    readonly key: string
    readonly queues: Map<TenantId, Queue>
    readonly order: Heap.Heap<Queue>
  }
  interface Level {
    readonly classes: Map<string, OpenClass>
    readonly tenants: Map<TenantId, Tenant<Queue>>
    /** The turn being served: a tenant that was idle starts here and not in the past. */
    turn: number
    depth: number
  }
  const level = (): Level => ({ classes: new Map(), tenants: new Map(), turn: 0, depth: 0 })
  const levels: Record<Priority, Level> = { HIGH: level(), MEDIUM: level(), LOW: level() }

  /** In the order of arrival. */
  const all = new Set<W>()
  const places = new Map<W, Queue>()
  const deadlines = Heap.make<W>((a, b) => a.deadline < b.deadline || (a.deadline === b.deadline && a.order < b.order))
  /** When a waiter's next option opens. */
  const openings = new Map<W, number>()
  const opening = (waiter: W): number => openings.get(waiter) ?? Number.POSITIVE_INFINITY
  const deferred = Heap.make<W>((a, b) => opening(a) < opening(b) || (opening(a) === opening(b) && a.order < b.order))

  const headOrder = (queue: Queue): number => queue.line.peek()?.order ?? Number.POSITIVE_INFINITY
  const goesBefore = (a: Queue, b: Queue): boolean =>
    a.tenant.turns < b.tenant.turns || (a.tenant.turns === b.tenant.turns && headOrder(a) < headOrder(b))

  const tenantOf = (at: Level, id: TenantId): Tenant<Queue> => {
    const known = at.tenants.get(id)
    if (known !== undefined) {
      if (known.queues.size === 0) known.turns = Math.max(known.turns, at.turn)
      return known
    }
    if (at.tenants.size >= TENANTS_REMEMBERED) {
      for (const [other, { queues }] of at.tenants) if (queues.size === 0) at.tenants.delete(other)
    }
    const tenant = { turns: at.turn, queues: new Set<Queue>() }
    at.tenants.set(id, tenant)
    return tenant
  }

  const classOf = (at: Level, options: ReadonlyArray<Option<S>>): OpenClass => {
    const key = options
      .map(({ model, slot }) => `${slot.id}/${model}`)
      .sort()
      .join(" ")
    const known = at.classes.get(key)
    if (known !== undefined) return known
    const order = Heap.make<Queue>(goesBefore)
    const made: OpenClass = { key, options, queues: new Map(), order, head: () => order.peek()?.line.peek() }
    at.classes.set(key, made)
    return made
  }

  const enqueue = (waiter: W, at: number): void => {
    const open = waiter.options.filter((option) => option.notBefore <= at)
    if (open.length < waiter.options.length) {
      const next = waiter.options.reduce(
        (earliest, { notBefore }) => (notBefore > at ? Math.min(earliest, notBefore) : earliest),
        Number.POSITIVE_INFINITY
      )
      openings.set(waiter, next)
      deferred.add(waiter)
    }
    if (open.length === 0) return
    const its = levels[waiter.priority]
    const ofClass = classOf(its, open)
    let queue = ofClass.queues.get(waiter.tenant)
    if (queue === undefined) {
      queue = { of: ofClass, tenant: tenantOf(its, waiter.tenant), line: Heap.make((a, b) => a.order < b.order) }
      queue.tenant.queues.add(queue)
      queue.line.add(waiter)
      ofClass.queues.set(waiter.tenant, queue)
      ofClass.order.add(queue)
    } else {
      queue.line.add(waiter)
      ofClass.order.update(queue)
    }
    places.set(waiter, queue)
  }

  const dequeue = (waiter: W): void => {
    if (openings.has(waiter)) {
      deferred.remove(waiter)
      openings.delete(waiter)
    }
    const queue = places.get(waiter)
    if (queue === undefined) return
    places.delete(waiter)
    queue.line.remove(waiter)
    if (queue.line.size() > 0) {
      queue.of.order.update(queue)
      return
    }
    queue.of.order.remove(queue)
    queue.of.queues.delete(waiter.tenant)
    queue.tenant.queues.delete(queue)
    if (queue.of.queues.size === 0) levels[waiter.priority].classes.delete(queue.of.key)
  }

  const remove = (waiter: W): void => {
    if (!all.delete(waiter)) return
    dequeue(waiter)
    deadlines.remove(waiter)
    levels[waiter.priority].depth -= 1
  }

  return {
    all: (): Iterable<W> => all,
    size: (): number => all.size,
    depth: (priority: Priority): number => levels[priority].depth,
    has: (waiter: W): boolean => all.has(waiter),

    add: (waiter: W, at: number): void => {
      all.add(waiter)
      deadlines.add(waiter)
      levels[waiter.priority].depth += 1
      enqueue(waiter, at)
    },
    remove,

    /** It leaves because its turn has come. */
    serve: (waiter: W): void => {
      const its = levels[waiter.priority]
      const tenant = its.tenants.get(waiter.tenant)
      remove(waiter)
      if (tenant === undefined) return
      its.turn = Math.max(its.turn, tenant.turns)
      tenant.turns += 1
      for (const queue of tenant.queues) queue.of.order.update(queue)
    },

    /** Steps out of its class, so that the next one is looked at; it keeps its deadline and its place. */
    setAside: dequeue,
    putBack: (waiter: W, at: number): void => {
      if (all.has(waiter)) enqueue(waiter, at)
    },

    /** Waiters one of whose options has opened change class. */
    promote: (at: number): void => {
      for (let waiter = deferred.peek(); waiter !== undefined && opening(waiter) <= at; waiter = deferred.peek()) {
        dequeue(waiter)
        enqueue(waiter, at)
      }
    },

    expired: (at: number): W | undefined => {
      const first = deadlines.peek()
      return first !== undefined && first.deadline <= at ? first : undefined
    },

    /** The next deadline or opening of an option. */
    nextInstant: (): number => {
      const first = deferred.peek()
      return Math.min(
        deadlines.peek()?.deadline ?? Number.POSITIVE_INFINITY,
        first === undefined ? Number.POSITIVE_INFINITY : opening(first)
      )
    },

    classes: (priority: Priority): Iterable<Class<S, W>> => levels[priority].classes.values(),

    /** The class of the best-ranked head among those that `may`. */
    best: (priority: Priority, may: (candidate: Class<S, W>) => boolean): Class<S, W> | undefined => {
      let best: { readonly ofClass: OpenClass; readonly queue: Queue } | undefined
      for (const ofClass of levels[priority].classes.values()) {
        const queue = ofClass.order.peek()
        if (queue === undefined || (best !== undefined && !goesBefore(queue, best.queue)) || !may(ofClass)) continue
        best = { ofClass, queue }
      }
      return best?.ofClass
    },

    /** Whether a call of that priority waits that the platform could serve. */
    isWaitedFor: (slot: S, priority: Priority): boolean => {
      for (const { options } of levels[priority].classes.values()) {
        if (options.some((option) => option.slot === slot)) return true
      }
      return false
    }
  }
}
