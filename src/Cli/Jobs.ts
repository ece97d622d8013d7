import * as FileSystem from "@effect/platform/FileSystem"
import { Clock, Console, Effect, Option, ParseResult, Schema } from "effect"
import { JobBody, JobList } from "../Coordinator/Jobs/Api.js"
import { Job, type JobMode, JobResult, type JobState } from "../Domain/Job.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { CommandFailed } from "./Exit.js"
import { jobId } from "./Ids.js"
import { jobTable, jobText } from "./JobWords.js"
import { standardInput } from "./Submission.js"

export interface OneJob extends ServiceOptions {
  readonly id: string
}

export interface ShowOptions extends OneJob {
  readonly limit: number
  readonly cursor: Option.Option<string>
}

export interface ListOptions extends ServiceOptions {
  readonly state: Option.Option<JobState>
  readonly mode: Option.Option<JobMode>
  readonly limit: number
  readonly cursor: Option.Option<string>
}

export interface SubmitOptions extends ServiceOptions {
  /** `-`: standard input. */
  readonly file: string
  readonly idempotencyKey: Option.Option<string>
}

const readJob = (file: string) =>
  Effect.gen(function* () {
    const text =
      file === "-"
        ? yield* standardInput
        : yield* Effect.mapError(
            Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString(file)),
            () => new CommandFailed({ message: `The file ${file} cannot be read.` })
          )
    return yield* Effect.mapError(
      Schema.decode(Schema.parseJson(JobBody))(text),
      (error) =>
        new CommandFailed({
          message: `${file === "-" ? "Standard input" : `The file ${file}`} is not a job:\n${ParseResult.TreeFormatter.formatErrorSync(error)}`
        })
    )
  })

/** Submits the job that a file describes; prints its id. */
export const submit = (options: SubmitOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const job = yield* client.jobs.submit({
        payload: yield* readJob(options.file),
        headers: { "idempotency-key": Option.getOrUndefined(options.idempotencyKey) }
      })
      yield* options.json ? printAs(Job, job) : Console.log(job.id)
    })
  )

export const list = (options: ListOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const page = yield* client.jobs.list({
        urlParams: {
          state: Option.getOrUndefined(options.state),
          mode: Option.getOrUndefined(options.mode),
          limit: options.limit,
          cursor: Option.getOrUndefined(options.cursor)
        }
      })
      if (options.json) return yield* printAs(JobList, page)
      if (page.jobs.length === 0) return yield* Console.log("No jobs.")
      yield* Console.log(jobTable(page.jobs, yield* Clock.currentTimeMillis))
      if (page.next !== undefined) yield* Console.log(`\nMore: --cursor ${page.next}`)
    })
  )

export const show = (options: ShowOptions) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const job = yield* client.jobs.get({
        path: { id: yield* jobId(options.id) },
        urlParams: { limit: options.limit, cursor: Option.getOrUndefined(options.cursor) }
      })
      if (options.json) return yield* printAs(JobResult, job)
      yield* Console.log(jobText(job, yield* Clock.currentTimeMillis))
      if (job.next !== undefined) yield* Console.log(`\nMore: --cursor ${job.next}`)
    })
  )

export const cancel = (options: OneJob) =>
  withService(options.url, (client) =>
    Effect.gen(function* () {
      const job = yield* client.jobs.cancel({ path: { id: yield* jobId(options.id) } })
      yield* options.json ? printAs(Job, job) : Console.log(`${job.id} is ${job.state}.`)
    })
  )
