import { Array as Arr, Either, Schema } from "effect"
import type { FieldProblem } from "../Domain/ApiError.js"
import type { JobMode, JobSubmission, JobTaskSubmission } from "../Domain/Job.js"
import { TaskId, type TaskType } from "../Domain/Task.js"

/** What one task of a job waits for, and what it sees. */
export interface PlannedTask {
  /** Tasks of the same job, by their place in it. */
  readonly inside: ReadonlyArray<number>
  /** Earlier tasks. */
  readonly outside: ReadonlyArray<TaskId>
  /** Whether it sees the results of all such tasks before it. */
  readonly chained: boolean
}

/** Earlier tasks that one job may name in all. */
const maxOutside = 1_000

const isTaskId = Schema.is(TaskId)

/** Types of tasks that need nothing of those before them. */
const independent: ReadonlySet<TaskType> = new Set<TaskType>(["documentation", "question-answering"])

const isChained = (mode: JobMode, task: JobTaskSubmission): boolean =>
  mode === "sequential" || (mode === "auto" && !independent.has(task.type ?? "question-answering"))

/** A way round along what tasks wait for, first task first and last; none where there is no such way. */
const cycleIn = (tasks: ReadonlyArray<PlannedTask>): ReadonlyArray<number> => {
  const waiting = tasks.map(({ inside }) => inside.length)
  const dependants = tasks.map((): Array<number> => [])
  tasks.forEach(({ inside }, index) => {
    for (const place of inside) dependants[place]?.push(index)
  })
  const free = waiting.flatMap((count, index) => (count === 0 ? [index] : []))
  for (let next = free.pop(); next !== undefined; next = free.pop()) {
    for (const dependant of dependants[next] ?? []) {
      const left = (waiting[dependant] ?? 0) - 1
      waiting[dependant] = left
      if (left === 0) free.push(dependant)
    }
  }
  // Whoever still waits, waits for one who still waits, so going on along these comes back at last.
  const path: Array<number> = []
  const seen = new Map<number, number>()
  let at = waiting.findIndex((count) => count > 0)
  while (at >= 0) {
    const before = seen.get(at)
    if (before !== undefined) return [...path.slice(before), at]
    seen.set(at, path.length)
    path.push(at)
    at = tasks[at]?.inside.find((place) => (waiting[place] ?? 0) > 0) ?? -1
  }
  return []
}

/** Who waits for whom in a job, by its mode and by what its tasks say; or every reason why it cannot be so. */
export const planOf = ({
  mode = "auto",
  tasks
}: JobSubmission): Either.Either<ReadonlyArray<PlannedTask>, ReadonlyArray<FieldProblem>> => {
  const problems: Array<FieldProblem> = []
  const places = new Map<string, number>()
  tasks.forEach(({ name }, index) => {
    if (name === undefined) return
    const other = places.get(name)
    if (other === undefined) places.set(name, index)
    else problems.push({ field: `tasks.${index}.name`, problem: `tasks.${other} is called ${name} too` })
  })

  let lastChained: number | undefined
  const planned = tasks.map((task, index): PlannedTask => {
    const inside: Array<number> = []
    const outside: Array<TaskId> = []
    task.dependsOn?.forEach((given, which) => {
      const place = places.get(given)
      if (place !== undefined) inside.push(place)
      else if (isTaskId(given)) outside.push(given)
      else {
        problems.push({
          field: `tasks.${index}.dependsOn.${which}`,
          problem: `there is no task called ${given} in this job`
        })
      }
    })
    const chained = isChained(mode, task)
    if (chained) {
      if (lastChained !== undefined) inside.push(lastChained)
      lastChained = index
    }
    return { inside: Arr.dedupe(inside), outside: Arr.dedupe(outside), chained }
  })

  if (new Set(planned.flatMap(({ outside }) => outside)).size > maxOutside) {
    problems.push({ field: "tasks", problem: `they depend on more than ${maxOutside} earlier tasks` })
  }
  const cycle = cycleIn(planned)
  const [first] = cycle
  if (first !== undefined) {
    const named = cycle.map((place) => tasks[place]?.name ?? `tasks.${place}`)
    const isByMode = cycle.some((place, index) => {
      const next = cycle[index + 1]
      return next !== undefined && tasks[place]?.dependsOn?.some((given) => places.get(given) === next) !== true
    })
    problems.push({
      field: `tasks.${first}.dependsOn`,
      problem:
        `these tasks would wait for each other: ${named.slice(0, 20).join(" -> ")}` +
        (isByMode ? ` (in the mode ${mode} tasks wait for those before them, too)` : "")
    })
  }
  return problems.length === 0 ? Either.right(planned) : Either.left(problems)
}
