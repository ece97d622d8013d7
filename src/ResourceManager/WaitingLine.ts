import type { PlatformId } from "../Domain/Platform.js"
import type { Priority, TenantId } from "../Domain/Task.js"
import * as Heap from "./Heap.js"
import * as SortedQueue from "./SortedQueue.js"

/** A platform and model that could serve a waiting call, from `notBefore` (monotonic ms) on. */
export interface Option<S> {
  readonly slot: S
  readonly model: string
  readonly weight: number
  readonly notBefore: number
}

/** It waits for a platform of this weight: one of less than half of it stays closed to the call until `until`. */
export interface Patience {
  readonly weight: number
  /** Monotonic ms. */
  readonly until: number
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
  /** Memory that the call takes up while it waits. */
  readonly bytes: number
  patience: Patience | undefined
}

/** Calls of one priority that the same platforms and models could serve now: only its head is ever looked at. */
export interface Class<S, W> {
  readonly options: ReadonlyArray<Option<S>>
  readonly head: () => W | undefined
  /** Its calls that give up before `instant` (all of them before Infinity), in no order. */
  readonly givingUpBefore: (instant: number) => ReadonlyArray<W>
}

export const priorities: ReadonlyArray<Priority> = ["HIGH", "MEDIUM", "LOW"]

/** From when on the option is open to the call, monotonic ms. */
export const opensAt = <S>({ patience }: Pick<Waiter<S>, "patience">, { notBefore, weight }: Option<S>): number =>
  patience !== undefined && weight * 2 < patience.weight ? Math.max(notBefore, patience.until) : notBefore

interface Tenant<Q> {
  /** Turns taken so far, on the level's scale: the fewest goes first. */
  turns: number
  readonly queues: Set<Q>
}

/** Idle tenants whose turns are remembered at most. */
const TENANTS_REMEMBERED = 1_000
const NEVER = Number.POSITIVE_INFINITY

/** Where a member of a heap stands, kept in a field of its own. */
const positionsIn = <A>(
  read: (item: A) => number | undefined,
  write: (item: A, position: number | undefined) => void
): Heap.Positions<A> => ({ get: read, set: write, delete: (item) => write(item, undefined) })

/**
 * Who waits, in order: by priority; inside a priority in turn by tenant; inside a tenant by arrival. A waiter stands in
 * the class of those of its options that are open, and changes class when another one opens.
 */
export const make = <S extends { readonly id: PlatformId }, W extends Waiter<S>>() => {
  interface Place {
    readonly waiter: W
    queue: Queue
    /** When its next option opens. */
    opening: number
    openingAt: number | undefined
  }
  interface Queue {
    readonly of: OpenClass
    readonly tenant: Tenant<Queue>
    readonly tenantId: TenantId
    /** Those who are not set aside. */
    readonly line: SortedQueue.SortedQueue<Place>
    size: number
    orderAt: number | undefined
  }
  interface OpenClass extends Class<S, W> {
    readonly key: string
    /** Each of its platforms once. */
    readonly slots: ReadonlyArray<S>
    readonly queues: Map<TenantId, Queue>
    readonly order: Heap.Heap<Queue>
    readonly deadlines: SortedQueue.SortedQueue<Place>
  }
  interface Level {
    readonly classes: Map<string, OpenClass>
    readonly tenants: Map<TenantId, Tenant<Queue>>
    /** How many wait for each platform. */
    readonly waiting: Map<S, number>
    /** The turn being served: a tenant that was idle starts here and not in the past. */
    turn: number
    depth: number
  }
  const level = (): Level => ({ classes: new Map(), tenants: new Map(), waiting: new Map(), turn: 0, depth: 0 })
  const levels: Record<Priority, Level> = { HIGH: level(), MEDIUM: level(), LOW: level() }

  const nobody: ReadonlyArray<W> = []
  const places = new Map<W, Place>()
  let bytes = 0
  const deferred = Heap.make<Place>(
    (a, b) => a.opening < b.opening || (a.opening === b.opening && a.waiter.order < b.waiter.order),
    positionsIn(
      (place) => place.openingAt,
      (place, position) => {
        place.openingAt = position
      }
    )
  )
  const queuePositions = positionsIn<Queue>(
    (queue) => queue.orderAt,
    (queue, position) => {
      queue.orderAt = position
    }
  )

  const headOrder = (queue: Queue): number => queue.line.peek()?.waiter.order ?? NEVER
  const goesBefore = (a: Queue, b: Queue): boolean =>
    a.tenant.turns < b.tenant.turns || (a.tenant.turns === b.tenant.turns && headOrder(a) < headOrder(b))
  const arrivedBefore = (a: Place, b: Place): boolean => a.waiter.order < b.waiter.order
  const givesUpBefore = (a: Place, b: Place): boolean =>
    a.waiter.deadline < b.waiter.deadline ||
    (a.waiter.deadline === b.waiter.deadline && a.waiter.order < b.waiter.order)

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

  const openOptions = (waiter: W, at: number): ReadonlyArray<Option<S>> => {
    for (const option of waiter.options) {
      if (opensAt(waiter, option) > at) return waiter.options.filter((each) => opensAt(waiter, each) <= at)
    }
    return waiter.options
  }

  const nameOf = ({ model, slot }: Option<S>): string => `${slot.id}/${model}`

  const keyOf = (options: ReadonlyArray<Option<S>>): string => {
    const [only] = options
    return only !== undefined && options.length === 1 ? nameOf(only) : options.map(nameOf).sort().join(" ")
  }

  const slotOf = ({ slot }: Option<S>): S => slot

  const classOf = (at: Level, options: ReadonlyArray<Option<S>>): OpenClass => {
    const key = keyOf(options)
    const known = at.classes.get(key)
    if (known !== undefined) return known
    const order = Heap.make<Queue>(goesBefore, queuePositions)
    const deadlines = SortedQueue.make<Place>(givesUpBefore)
    const made: OpenClass = {
      key,
      options,
      slots: options.length === 1 ? options.map(slotOf) : [...new Set(options.map(slotOf))],
      queues: new Map(),
      order,
      deadlines,
      head: () => order.peek()?.line.peek()?.waiter,
      givingUpBefore: (instant) =>
        deadlines.front(({ waiter }) => waiter.deadline < instant || instant === NEVER).map(({ waiter }) => waiter)
    }
    at.classes.set(key, made)
    return made
  }

  const queueOf = (waiter: W, at: number): Queue => {
    const its = levels[waiter.priority]
    const ofClass = classOf(its, openOptions(waiter, at))
    const known = ofClass.queues.get(waiter.tenant)
    if (known !== undefined) return known
    const line = SortedQueue.make<Place>(arrivedBefore)
    const tenant = tenantOf(its, waiter.tenant)
    const queue = { of: ofClass, tenant, tenantId: waiter.tenant, line, size: 0, orderAt: undefined }
    tenant.queues.add(queue)
    ofClass.queues.set(waiter.tenant, queue)
    return queue
  }

  const stepIn = (place: Place): void => {
    const { queue } = place
    const isFirst = queue.line.size() === 0
    queue.line.add(place)
    if (isFirst) queue.of.order.add(queue)
    else queue.of.order.update(queue)
  }

  const stepOut = (place: Place): void => {
    const { queue } = place
    queue.line.remove(place)
    if (queue.line.size() === 0) queue.of.order.remove(queue)
    else queue.of.order.update(queue)
  }

  const count = ({ queue: { of }, waiter }: Place, change: 1 | -1): void => {
    const { waiting } = levels[waiter.priority]
    for (const slot of of.slots) waiting.set(slot, (waiting.get(slot) ?? 0) + change)
  }

  const enqueue = (place: Place, at: number): void => {
    const { queue, waiter } = place
    queue.size += 1
    stepIn(place)
    queue.of.deadlines.add(place)
    count(place, 1)
    let opening = NEVER
    for (const option of waiter.options) {
      const opens = opensAt(waiter, option)
      if (opens > at && opens < opening) opening = opens
    }
    place.opening = opening
    if (opening < NEVER) deferred.add(place)
  }

  const dequeue = (place: Place): void => {
    const { queue, waiter } = place
    deferred.remove(place)
    count(place, -1)
    queue.of.deadlines.remove(place)
    stepOut(place)
    queue.size -= 1
    if (queue.size > 0) return
    queue.of.queues.delete(queue.tenantId)
    queue.tenant.queues.delete(queue)
    if (queue.of.queues.size === 0) levels[waiter.priority].classes.delete(queue.of.key)
  }

  const move = (place: Place, at: number): void => {
    dequeue(place)
    place.queue = queueOf(place.waiter, at)
    enqueue(place, at)
  }

  const remove = (waiter: W): void => {
    const place = places.get(waiter)
    if (place === undefined) return
    places.delete(waiter)
    dequeue(place)
    levels[waiter.priority].depth -= 1
    bytes -= waiter.bytes
  }

  return {
    size: (): number => places.size,
    depth: (priority: Priority): number => levels[priority].depth,
    /** Of all who wait together. */
    bytes: (): number => bytes,
    /** Since when the one of that priority waits that has waited longest, monotonic ms. */
    oldest: (priority: Priority): number | undefined => {
      let oldest: W | undefined
      for (const { queues } of levels[priority].classes.values()) {
        for (const { line } of queues.values()) {
          const first = line.peek()?.waiter
          if (first !== undefined && first.order < (oldest?.order ?? NEVER)) oldest = first
        }
      }
      return oldest?.since
    },

    add: (waiter: W, at: number): void => {
      const queue = queueOf(waiter, at)
      const place: Place = {
        waiter,
        queue,
        opening: NEVER,
        openingAt: undefined
      }
      places.set(waiter, place)
      levels[waiter.priority].depth += 1
      bytes += waiter.bytes
      enqueue(place, at)
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
    setAside: (waiter: W): void => {
      const place = places.get(waiter)
      if (place !== undefined) stepOut(place)
    },
    putBack: (waiter: W): void => {
      const place = places.get(waiter)
      if (place !== undefined) stepIn(place)
    },

    /** From now on it waits, or waits no longer, for a platform of more weight. */
    setPatience: (waiter: W, patience: Patience | undefined, at: number): void => {
      waiter.patience = patience
      const place = places.get(waiter)
      if (place !== undefined) move(place, at)
    },

    /** Waiters one of whose options has opened change class. */
    promote: (at: number): void => {
      for (let place = deferred.peek(); place !== undefined && place.opening <= at; place = deferred.peek()) {
        if (place.waiter.patience !== undefined && place.waiter.patience.until <= at) place.waiter.patience = undefined
        move(place, at)
      }
    },

    /** Those who have to give up now. */
    expired: (at: number): ReadonlyArray<W> => {
      let expired: Array<W> | undefined
      for (const priority of priorities) {
        for (const { deadlines } of levels[priority].classes.values()) {
          if ((deadlines.peek()?.waiter.deadline ?? NEVER) > at) continue
          expired ??= []
          for (const { waiter } of deadlines.front(({ waiter }) => waiter.deadline <= at)) expired.push(waiter)
        }
      }
      return expired?.sort((a, b) => a.order - b.order) ?? nobody
    },

    /** The next deadline or opening of an option. */
    nextInstant: (): number => {
      let next = deferred.peek()?.opening ?? NEVER
      for (const priority of priorities) {
        for (const { deadlines } of levels[priority].classes.values()) {
          next = Math.min(next, deadlines.peek()?.waiter.deadline ?? NEVER)
        }
      }
      return next
    },

    classes: (priority: Priority): Iterable<Class<S, W>> => levels[priority].classes.values(),

    /** The class of the best-ranked head among those that `may`. */
    best: (priority: Priority, may: (candidate: Class<S, W>) => boolean): Class<S, W> | undefined => {
      let best: Queue | undefined
      for (const ofClass of levels[priority].classes.values()) {
        const queue = ofClass.order.peek()
        if (queue === undefined || (best !== undefined && !goesBefore(queue, best)) || !may(ofClass)) continue
        best = queue
      }
      return best?.of
    },

    /** How many calls of that priority wait that the platform could serve. */
    waitingFor: (slot: S, priority: Priority): number => levels[priority].waiting.get(slot) ?? 0,

    /** How many calls wait of its priority and tenant that the same platforms and models could serve. */
    alike: (waiter: W, at: number): number => {
      const its =
        places.get(waiter)?.queue ??
        levels[waiter.priority].classes.get(keyOf(openOptions(waiter, at)))?.queues.get(waiter.tenant)
      return its?.size ?? 0
    }
  }
}
