import Sqlite from "better-sqlite3"
import type { Receiver } from "./Receiver.js"

/** What was promised to those who submitted. */
export interface Promised {
  readonly tasks: ReadonlySet<string>
  /** How many tasks each has. */
  readonly jobs: ReadonlyMap<string, number>
}

/** What a run came to. */
export interface Verdict {
  readonly kills: number
  readonly accepted: { readonly tasks: number; readonly jobs: number; readonly tasksOfJobs: number }
  /** Accepted tasks and jobs the database does not know, tasks missing from their job included. */
  readonly lost: number
  /** Tasks and jobs the database has and nobody was promised. */
  readonly unknown: number
  /** Tasks with more than one successful attempt, and tasks and jobs with more than one end. */
  readonly doubled: number
  /** Tasks, jobs, attempts and webhooks that have not ended. */
  readonly unfinished: number
  /** Jobs whose counts are not those of their tasks, or whose state does not follow from them. */
  readonly miscounted: number
  readonly states: Readonly<Record<string, number>>
  readonly jobStates: Readonly<Record<string, number>>
  /** Failed because their owners died three times during their attempts. */
  readonly poisoned: number
  /** Of these, those whose owners did not. */
  readonly poisonedTooSoon: number
  /** Tasks made for others when their attempts were used up, by kind and state, and the results that came of it. */
  readonly alternatives: Readonly<Record<string, number>>
  readonly attempts: {
    readonly all: number
    /** Under way when a kill came, by the journal as it stood right after it, summed over the kills. */
    readonly inFlightAtKills: number
    /** Cut by a death. */
    readonly interrupted: number
    /** Of these, those that were not under way at any kill. */
    readonly unexplained: number
    /** Of these, those made again, so that what they asked for was executed twice. */
    readonly executedTwice: number
    /** Calls the platforms answered whole and whose answer was not kept. */
    readonly answeredInVain: number
    /** Cut by a cancel, a deadline, or the end of what they were for: these may have been answered whole as well. */
    readonly ignored: number
  }
  readonly webhooks: {
    /** Ends that were to be told: of tasks and jobs with a `callbackUrl`. */
    readonly owed: number
    /** Of these, those nobody was told of. */
    readonly untold: number
    /** Ends told under more than one id. */
    readonly doubled: number
    /** Not signed well, or telling of something that is not so. */
    readonly wrong: number
    /** Came again under the same id. */
    readonly repeated: number
  }
  readonly budgets: {
    readonly used: number
    /** Tasks and jobs that used more than they may. */
    readonly exceeded: number
    /** Books that do not agree with each other. */
    readonly unbalanced: number
  }
  /** Processes that wrote the secret of the webhooks into their log. */
  readonly leaks: number
}

const open = (database: string) => {
  const sqlite = new Sqlite(database, { readonly: true })
  return {
    count: (sql: string): number => Number(sqlite.prepare(sql).pluck().get()),
    pairs: (sql: string): ReadonlyArray<readonly [string, string]> =>
      sqlite
        .prepare(sql)
        .raw()
        .all()
        .map((row) => (Array.isArray(row) ? [String(row[0]), String(row[1])] : ["", ""])),
    column: (sql: string): ReadonlyArray<string> => sqlite.prepare(sql).pluck().all().map(String),
    groups: (sql: string): Readonly<Record<string, number>> =>
      Object.fromEntries(
        sqlite
          .prepare(sql)
          .raw()
          .all()
          .map((row) => (Array.isArray(row) ? [String(row[0]), Number(row[1])] : ["", 0]))
      ),
    close: () => sqlite.close()
  }
}

/** The attempts under way, as the journal says it: those of a process that was just killed. */
export const inFlight = (database: string): ReadonlyArray<string> => {
  const journal = open(database)
  try {
    return journal.column(`
      SELECT task_id || '/' || number FROM tasks JOIN attempts ON attempts.task_id = tasks.id
      WHERE claim_epoch IS NOT NULL AND outcome = 'running'`)
  } finally {
    journal.close()
  }
}

/** Webhooks that are still to be delivered. */
export const undelivered = (database: string): number => {
  const journal = open(database)
  try {
    return journal.count("SELECT COUNT(*) FROM deliveries WHERE state = 'pending'")
  } finally {
    journal.close()
  }
}

const over = "('succeeded', 'failed', 'cancelled')"
const poisoned = "state = 'failed' AND json_extract(error, '$.type') = 'poison'"
const final = /\.(succeeded|failed|cancelled)$/
/** How many have had an end after which nothing had begun again but another end; `events` are of each in their order. */
const endedAgain = (events: ReadonlyArray<readonly [string, string]>): number => {
  const isOver = new Map<string, boolean>()
  const twice = new Set<string>()
  for (const [id, type] of events) {
    if (final.test(type) && isOver.get(id) === true) twice.add(id)
    isOver.set(id, final.test(type))
  }
  return twice.size
}

/** What the database says in the end; nothing may run any more. */
export const judge = (
  database: string,
  seen: {
    readonly kills: number
    readonly promised: Promised
    readonly inFlightAtKills: ReadonlySet<string>
    /** By the platforms. */
    readonly answered: number
    readonly receiver: Receiver
    readonly leaks: number
  }
): Verdict => {
  const { close, column, count, groups, pairs } = open(database)
  const { promised, receiver } = seen
  const ids = new Set(column("SELECT id FROM tasks WHERE parent_id IS NULL AND job_id IS NULL"))
  const jobs = groups("SELECT job_id, COUNT(*) FROM tasks WHERE job_id IS NOT NULL GROUP BY job_id")
  const known = new Set(column("SELECT id FROM jobs"))
  const lostTasks = [...promised.tasks].filter((id) => !ids.has(id)).length
  const lostOfJobs = [...promised.jobs].reduce((sum, [id, tasks]) => sum + Math.abs(tasks - (jobs[id] ?? 0)), 0)
  const lostJobs = [...promised.jobs.keys()].filter((id) => !known.has(id)).length
  const cut = column("SELECT task_id || '/' || number FROM attempts WHERE outcome = 'interrupted'")

  const owed = column(`
    SELECT id || ' task.' || state FROM tasks WHERE callback_url IS NOT NULL AND parent_id IS NULL
    UNION ALL SELECT id || ' job.' || state FROM jobs WHERE callback_url IS NOT NULL`)
  const ends = groups(`
    SELECT COALESCE(task_id, job_id) || ' ' || type, COUNT(*) FROM events
    WHERE type IN ('task.succeeded', 'task.failed', 'task.cancelled', 'job.succeeded', 'job.failed', 'job.cancelled')
    GROUP BY 1`)
  const tellings = new Map<string, number>()
  for (const { of, type } of receiver.told.values()) {
    const end = `${of} ${type}`
    tellings.set(end, (tellings.get(end) ?? 0) + 1)
  }

  const kept = count("SELECT COUNT(*) FROM attempts WHERE outcome = 'succeeded'")
  const tokens = count("SELECT COALESCE(SUM(spent_tokens), 0) FROM tasks WHERE parent_id IS NULL")
  const nanoUsd = count("SELECT COALESCE(SUM(spent_nano_usd), 0) FROM tasks WHERE parent_id IS NULL")
  const books = ["platform", "key"].map((kind) => [
    count(`SELECT COALESCE(SUM(tokens), 0) FROM spending WHERE kind = '${kind}'`),
    count(`SELECT COALESCE(SUM(nano_usd), 0) FROM spending WHERE kind = '${kind}'`)
  ])
  const verdict: Verdict = {
    kills: seen.kills,
    accepted: {
      tasks: promised.tasks.size,
      jobs: promised.jobs.size,
      tasksOfJobs: [...promised.jobs.values()].reduce((sum, tasks) => sum + tasks, 0)
    },
    lost: lostTasks + lostOfJobs + lostJobs,
    unknown:
      [...ids].filter((id) => !promised.tasks.has(id)).length +
      [...known, ...Object.keys(jobs)].filter((id) => !promised.jobs.has(id)).length,
    doubled:
      count(`
        SELECT COUNT(*) FROM tasks WHERE
          (SELECT COUNT(*) FROM attempts WHERE task_id = tasks.id AND outcome = 'succeeded') > 1
          OR (state = 'succeeded') <> (result IS NOT NULL)`) +
      endedAgain(
        pairs(`SELECT task_id, type FROM events WHERE type IN
          ('task.succeeded', 'task.failed', 'task.cancelled', 'task.retried') ORDER BY id`)
      ) +
      endedAgain(
        pairs(`SELECT job_id, type FROM events WHERE type IN
          ('job.succeeded', 'job.failed', 'job.cancelled', 'job.reopened') ORDER BY id`)
      ),
    unfinished:
      count(`SELECT COUNT(*) FROM tasks WHERE state NOT IN ${over}`) +
      count(`SELECT COUNT(*) FROM jobs WHERE state NOT IN ${over}`) +
      count("SELECT COUNT(*) FROM attempts WHERE outcome = 'running'") +
      count("SELECT COUNT(*) FROM deliveries WHERE state = 'pending'") +
      count("SELECT COUNT(*) FROM settling") +
      count(`SELECT COUNT(*) FROM tasks WHERE state IN ${over} AND NOT EXISTS (
        SELECT 1 FROM events WHERE task_id = tasks.id AND type = 'task.' || tasks.state)`),
    miscounted: count(`
      SELECT COUNT(*) FROM jobs WHERE
        succeeded <> (SELECT COUNT(*) FROM tasks WHERE job_id = jobs.id AND state = 'succeeded')
        OR failed <> (SELECT COUNT(*) FROM tasks WHERE job_id = jobs.id AND state = 'failed')
        OR cancelled <> (SELECT COUNT(*) FROM tasks WHERE job_id = jobs.id AND state = 'cancelled')
        OR (state = 'succeeded') <> (succeeded = total)`),
    states: groups("SELECT state, COUNT(*) FROM tasks GROUP BY state"),
    jobStates: groups("SELECT state, COUNT(*) FROM jobs GROUP BY state"),
    poisoned: count(`SELECT COUNT(*) FROM tasks WHERE ${poisoned}`),
    poisonedTooSoon: count(`
      SELECT COUNT(*) FROM tasks WHERE ${poisoned}
        AND (SELECT COUNT(*) FROM attempts WHERE task_id = tasks.id AND outcome = 'interrupted') < 3`),
    alternatives: {
      ...groups(`
        SELECT json_extract(alternative, '$.step') || ' ' || state, COUNT(*) FROM tasks
        WHERE parent_id IS NOT NULL GROUP BY 1 ORDER BY 1`),
      ...groups(`
        SELECT 'tasks that went through them: ' || CASE partial WHEN 1 THEN 'partial' ELSE state END, COUNT(*)
        FROM tasks WHERE children > 0 GROUP BY 1`)
    },
    attempts: {
      all: count("SELECT COUNT(*) FROM attempts"),
      inFlightAtKills: seen.inFlightAtKills.size,
      interrupted: cut.length,
      unexplained: cut.filter((attempt) => !seen.inFlightAtKills.has(attempt)).length,
      executedTwice: count(`
        SELECT COUNT(*) FROM attempts WHERE outcome = 'interrupted' AND EXISTS (
          SELECT 1 FROM attempts AS later WHERE later.task_id = attempts.task_id AND later.number > attempts.number)`),
      answeredInVain: Math.max(0, seen.answered - kept),
      ignored: count("SELECT COUNT(*) FROM attempts WHERE outcome = 'ignored'")
    },
    webhooks: {
      owed: owed.length,
      untold: owed.filter((end) => !tellings.has(end)).length,
      doubled: [...tellings].filter(([end, times]) => times > (ends[end] ?? 0)).length,
      wrong: receiver.wrong,
      repeated: receiver.repeated
    },
    budgets: {
      used: count(`
        SELECT (SELECT COUNT(*) FROM tasks WHERE max_tokens IS NOT NULL OR max_nano_usd IS NOT NULL)
          + (SELECT COUNT(*) FROM jobs WHERE max_tokens IS NOT NULL OR max_cost_usd IS NOT NULL)`),
      exceeded: count(`
        SELECT (SELECT COUNT(*) FROM tasks WHERE spent_tokens > max_tokens OR spent_nano_usd > max_nano_usd)
          + (SELECT COUNT(*) FROM jobs WHERE spent_tokens > max_tokens OR spent_nano_usd > max_cost_usd * 1e9 + 1)`),
      unbalanced:
        books.filter(([ofTokens, ofUsd]) => ofTokens !== tokens || ofUsd !== nanoUsd).length +
        count(`
          SELECT COUNT(*) FROM jobs WHERE spent_tokens <> (
            SELECT COALESCE(SUM(spent_tokens), 0) FROM tasks WHERE job_id = jobs.id)`)
    },
    leaks: seen.leaks
  }
  close()
  return verdict
}

/** What must not be, and is; empty where all is well. */
export const violations = (verdict: Verdict): ReadonlyArray<string> => {
  const { attempts, budgets, webhooks } = verdict
  const none: Readonly<Record<string, number>> = {
    lost: verdict.lost,
    unknown: verdict.unknown,
    "with two results": verdict.doubled,
    unfinished: verdict.unfinished,
    "jobs miscounted": verdict.miscounted,
    "given up as poison too soon": verdict.poisonedTooSoon,
    "attempts cut by no kill": attempts.unexplained,
    "ends untold": webhooks.untold,
    "ends told twice": webhooks.doubled,
    "webhooks wrong": webhooks.wrong,
    "budgets exceeded": budgets.exceeded,
    "books that do not agree": budgets.unbalanced,
    "secrets in logs": verdict.leaks
  }
  return [
    ...Object.entries(none).flatMap(([what, count]) => (count === 0 ? [] : [`${what}: ${count}`])),
    ...(attempts.executedTwice > attempts.inFlightAtKills
      ? [`${attempts.executedTwice} attempts executed twice, but only ${attempts.inFlightAtKills} in flight at kills`]
      : []),
    ...(attempts.answeredInVain > attempts.inFlightAtKills + attempts.ignored
      ? [`${attempts.answeredInVain} answers in vain, more than attempts that were cut`]
      : [])
  ]
}
