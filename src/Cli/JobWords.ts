import type { Job, JobResult } from "../Domain/Job.js"
import { counted, oneLine, relative, table } from "./Output.js"
import { webhookWords } from "./TaskWords.js"

/** How far a job is, such as `3 of 5 ended, 1 failed`. */
const progress = ({ counts: { cancelled, failed, open, total } }: Pick<Job, "counts">): string =>
  [
    `${total - open} of ${total} ended`,
    ...(failed === 0 ? [] : [`${failed} failed`]),
    ...(cancelled === 0 ? [] : [`${cancelled} cancelled`])
  ].join(", ")

export const jobTable = (jobs: ReadonlyArray<Job>, now: number): string =>
  table(
    ["ID", "STATE", "MODE", "TASKS", "SUBMITTED"],
    jobs.map((job) => [job.id, job.state, job.mode, progress(job), relative(job.createdAt, now)])
  )

const outcome = ({ error, result, waiting }: JobResult["tasks"][number]): string =>
  oneLine(error?.message ?? result?.text ?? waiting ?? "", 80)

/** A job and a page of its tasks, as a person reads it. */
export const jobText = (job: JobResult, now: number): string =>
  [
    `Job ${job.id}: ${job.state}, ${progress(job)}`,
    `${job.mode}, on failure ${job.onFailure}, at most ${counted(job.maxParallel, "task")} at a time`,
    `submitted ${relative(job.createdAt, now)}${job.finishedAt === undefined ? "" : `, ended ${relative(job.finishedAt, now)}`}`,
    `used ${counted(job.usage.inputTokens, "input token")} and ${counted(job.usage.outputTokens, "output token")}, $${job.costUsd.toFixed(6)}`,
    ...(job.callbackUrl === undefined ? [] : [`webhook ${webhookWords(job, now)}`]),
    "",
    table(
      ["TASK", "NAME", "STATE", "OUTCOME"],
      job.tasks.map((task) => [task.id, task.name ?? "-", task.state, outcome(task)])
    )
  ].join("\n")
