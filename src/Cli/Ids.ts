import { Effect, Schema } from "effect"
import { JobId } from "../Domain/Job.js"
import { PlatformId } from "../Domain/Platform.js"
import { SessionId } from "../Domain/Session.js"
import { TaskId } from "../Domain/Task.js"
import { Misuse } from "./Exit.js"

/** An id as a person types it; `shownBy` is the command that shows such ids. */
const idOf =
  <A>(schema: Schema.Schema<A, string>, noun: string, shownBy: string, normal = (text: string) => text) =>
  (text: string): Effect.Effect<A, Misuse> =>
    Effect.mapError(
      Schema.decode(schema)(normal(text)),
      () => new Misuse({ message: `'${text}' is not a ${noun}'s id; 'dream-team ${shownBy}' shows them.` })
    )

const uuid = (text: string): string => text.trim().toLowerCase()

export const taskId = idOf(TaskId, "task", "tasks list", uuid)
export const jobId = idOf(JobId, "job", "jobs list", uuid)
export const sessionId = idOf(SessionId, "session", "sessions")
export const platformId = idOf(PlatformId, "platform", "platforms")
