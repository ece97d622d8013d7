import { Effect } from "effect"
import { type ServiceOptions, withService } from "./Connection.js"
import { Misuse } from "./Exit.js"
import { printPreview, type SubmissionOptions, submissionOf } from "./Submission.js"

export interface RouteOptions extends SubmissionOptions, ServiceOptions {
  readonly dryRun: boolean
}

/** Tells where a task would go and why; fails, with the reasons, where it would be refused. */
export const run = (options: RouteOptions) =>
  options.dryRun
    ? withService(options.url, (client) =>
        Effect.gen(function* () {
          const preview = yield* client.tasks.preview(yield* submissionOf(options))
          yield* printPreview(preview, options.json)
        })
      )
    : new Misuse({
        message:
          "'dream-team route' only explains a choice, it makes none: say --dry-run. 'dream-team submit' has a task done.\n" +
          "See 'dream-team route --help' for what it takes."
      })
