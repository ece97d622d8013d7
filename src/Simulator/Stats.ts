import { Schema } from "effect"

const WindowStats = Schema.Struct({
  limit: Schema.Number,
  windowMs: Schema.Number,
  /** Counted in the window that ends now. */
  used: Schema.Number,
  /** The most that was ever counted in one window. */
  peak: Schema.Number,
  /** Counted since the start. */
  total: Schema.Number,
  /** Counted in each whole window since the start laid end to end, the latest 120, the running one last. */
  history: Schema.Array(Schema.Number)
})

const windows = { requests: Schema.Array(WindowStats), tokens: Schema.Array(WindowStats) }

export const PlatformStats = Schema.Struct({
  /** Calls to a model that arrived, the refused ones included. */
  received: Schema.Int,
  /** Calls answered whole. */
  answered: Schema.Int,
  /** Calls that asked for a stream. */
  streams: Schema.Int,
  /** Calls refused for what they are: key, route, model, body, context. */
  refused: Schema.Int,
  /** Calls refused because a window of a subscription was used up, as it was told to be. */
  refusedBySubscription: Schema.Int,
  /** Calls refused because a limit forbade them. */
  violations: Schema.Struct({
    requests: Schema.Int,
    tokens: Schema.Int,
    credits: Schema.Int,
    concurrency: Schema.Int
  }),
  /** Calls being answered now, and the most there were at once. */
  inFlight: Schema.Int,
  maxInFlight: Schema.Int,
  /** Of calls that were admitted; output as far as it was sent. */
  inputTokens: Schema.Int,
  outputTokens: Schema.Int,
  /** Calls whose client closed the connection before the answer was whole. */
  aborted: Schema.Int,
  faultsInjected: Schema.Int,
  /** Requests for models, quotas and token counts. */
  otherRequests: Schema.Int,
  limits: Schema.Struct({
    ...windows,
    /** USD. */
    credits: Schema.Array(WindowStats),
    models: Schema.Record({ key: Schema.String, value: Schema.Struct(windows) })
  })
}).annotations({ identifier: "SimulatedPlatformStats" })
export type PlatformStats = typeof PlatformStats.Type

export const Stats = Schema.Struct({
  uptimeMs: Schema.Number,
  /** Of all platforms and kinds. */
  violations: Schema.Int,
  platforms: Schema.Record({ key: Schema.String, value: PlatformStats })
}).annotations({ identifier: "SimulatorStats" })
export type Stats = typeof Stats.Type
