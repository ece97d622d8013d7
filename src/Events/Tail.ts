import type { EventKind, EventTypeFilter, ServiceEvent } from "../Domain/Event.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { SessionId } from "../Domain/Session.js"
import type { JobId, TaskId, TenantId } from "../Domain/Task.js"

/** What a reader of the service's events asks for; what is absent does not matter. */
export interface EventFilter {
  /** The tenant that asks: it sees the events of its own tasks, jobs and API key, and those of every platform and session. */
  readonly tenant: TenantId
  /** Types, each whole (`task.failed`) or a family (`task.*`); any of them. */
  readonly types?: ReadonlyArray<EventTypeFilter> | undefined
  readonly kind?: EventKind | undefined
  readonly task?: TaskId | undefined
  /** The job's own events, and those of its tasks. */
  readonly job?: JobId | undefined
  /** The platform's own events. */
  readonly platform?: PlatformId | undefined
  /** The events of this Claude Code session. */
  readonly session?: SessionId | undefined
}

/** Whose a stored event is, by its columns. */
export interface Belonging {
  readonly tenant: TenantId | null
  readonly task_id: TaskId | null
  readonly job_id: JobId | null
  readonly platform: PlatformId | null
  readonly session_id: SessionId | null
  readonly type: string
}

const kindOf = ({ job_id, platform, session_id, task_id }: Belonging): EventKind => {
  if (platform !== null) return "platform"
  if (session_id !== null) return "session"
  if (task_id !== null) return "task"
  return job_id !== null ? "job" : "key"
}

const isOfType = (type: string, wanted: string): boolean =>
  wanted.endsWith("*") ? type.startsWith(wanted.slice(0, -1)) : type === wanted

/** Whether an event is what a reader asks for. */
export const matches = (filter: EventFilter, event: Belonging): boolean =>
  (event.tenant === null || event.tenant === filter.tenant) &&
  (filter.kind === undefined || filter.kind === kindOf(event)) &&
  (filter.task === undefined || filter.task === event.task_id) &&
  (filter.job === undefined || filter.job === event.job_id) &&
  (filter.platform === undefined || filter.platform === event.platform) &&
  (filter.session === undefined || filter.session === event.session_id) &&
  (filter.types === undefined || filter.types.some((wanted) => isOfType(event.type, wanted)))

/** An event of the tail, as it is stored. */
export interface TailEntry extends Belonging {
  readonly id: number
  readonly at: number
  readonly body: string
  /** Known once somebody has asked for it; null where another version wrote what cannot be read. */
  read?: ServiceEvent | null
}

const maxEntries = 2_000
const maxSize = 4 * 1024 * 1024

/**
 * The latest events of the service, read once for all who follow them. Bounded; whoever falls behind what is kept here
 * reads the store.
 */
export interface Tail {
  /** Every event up to this id is committed, and what of them is kept is here. */
  readonly last: () => number
  /** Whether everything after the event `after` is here. */
  readonly reaches: (after: number) => boolean
  readonly add: (entries: ReadonlyArray<TailEntry>) => void
  /** At most `limit` entries after the event `after`. */
  readonly after: (after: number, limit: number) => ReadonlyArray<TailEntry>
}

/** Begins after the event `start`. */
export const make = (start: number): Tail => {
  let entries: Array<TailEntry> = []
  let size = 0
  let floor = start
  let last = start

  /** The place of the first entry after an id. */
  const placeAfter = (id: number): number => {
    let low = 0
    let high = entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((entries[middle]?.id ?? 0) <= id) low = middle + 1
      else high = middle
    }
    return low
  }

  const trim = (): void => {
    let dropped = 0
    while (entries.length - dropped > maxEntries || size > maxSize) {
      const oldest = entries[dropped]
      if (oldest === undefined) break
      size -= oldest.body.length
      floor = oldest.id
      dropped += 1
    }
    if (dropped > 0) entries = entries.slice(dropped)
  }

  return {
    last: () => last,
    reaches: (after) => after >= floor,
    add: (added) => {
      for (const entry of added) {
        entries.push(entry)
        size += entry.body.length
        last = entry.id
      }
      trim()
    },
    after: (after, limit) => {
      const from = placeAfter(after)
      return entries.slice(from, from + limit)
    }
  }
}
