import { createServer } from "node:http"
import { Context, Effect, Either, FiberSet, Layer, Option, Record, Schema, type Scope } from "effect"
import { FieldProblem, type InvalidRequest } from "./Domain/ApiError.js"
import { changeSubscription, setFault, statsOf } from "./Simulator/Control.js"
import { type ActiveFault, type Fault, FaultBoard } from "./Simulator/Faults.js"
import {
  basePathOf,
  type Distribution,
  dialectOf,
  type SimulatedPlatform,
  type SimulatorOptions,
  SimulatorOptionsSchema,
  type WindowLimit
} from "./Simulator/Options.js"
import { PlatformState } from "./Simulator/Platform.js"
import { problemsOf } from "./Simulator/Problems.js"
import { type RecordedRequest, Recorder } from "./Simulator/Recorder.js"
import { makeHandler, type ServerContext } from "./Simulator/Server.js"
import type { Stats } from "./Simulator/Stats.js"
import type { SubscriptionChange } from "./Simulator/Subscription.js"

export type { ErrorShape } from "./Simulator/Errors.js"
export type { ActiveFault, Fault } from "./Simulator/Faults.js"
export type {
  CreditLimit,
  Dialect,
  Distribution,
  SimulatedLimits,
  SimulatedPlatform,
  SimulatorOptions,
  WindowLimit
} from "./Simulator/Options.js"
export type { RecordedRequest } from "./Simulator/Recorder.js"
export type { PlatformStats, Stats } from "./Simulator/Stats.js"
export type { SubscriptionChange } from "./Simulator/Subscription.js"

/** The simulator could not start: its options are wrong (`problems` says where), or its port is not to be had. */
export class SimulatorError extends Schema.TaggedError<SimulatorError>()("SimulatorError", {
  message: Schema.String,
  problems: Schema.Array(FieldProblem)
}) {}

/** A simulator that answers. */
export interface RunningSimulator<Id extends string = string> {
  /**
   * Such as `http://127.0.0.1:4100`; below it `/__health`, `/__stats`, `/__faults`,
   * `/__requests` and `/__subscription`.
   */
  readonly url: string
  readonly port: number
  /** What a client of each platform takes as its base URL. */
  readonly baseUrls: Readonly<Record<Id, string>>
  /** A key each platform accepts. */
  readonly apiKeys: Readonly<Record<Id, string>>
  /** Where the first platform of the dialect `synthetic` tells its quotas. */
  readonly quotasUrl: string | undefined
  /** The settings that point the service at this simulator and tell it its limits: `DREAM_TEAM_<ID>_BASE_URL` and so on. */
  readonly environment: Readonly<Record<string, string>>
  readonly stats: Effect.Effect<Stats>
  readonly faults: Effect.Effect<ReadonlyArray<ActiveFault>>
  readonly fault: (fault: Fault) => Effect.Effect<ActiveFault, InvalidRequest>
  /** Ends the faults set for one platform (not those set for `*`), or all of them; says how many. */
  readonly clearFaults: (platform?: Id) => Effect.Effect<number>
  /** The newest calls that were admitted, oldest first, as many as `keepRequests` says. */
  readonly requests: Effect.Effect<ReadonlyArray<RecordedRequest>>
  /** Says from now on how much of a subscription is used: of a platform that speaks Anthropic's Messages format. */
  readonly subscription: (platform: Id, change: SubscriptionChange) => Effect.Effect<void, InvalidRequest>
}

const decodeOptions = Schema.decodeUnknownEither(SimulatorOptionsSchema, { errors: "all", onExcessProperty: "error" })

/** Connections open at once; more are refused. */
const maxConnections = 10_000

const keyOf = (platform: SimulatedPlatform): string => platform.apiKey ?? "simulated"

const make = <Id extends string>(
  options: SimulatorOptions<Id>
): Effect.Effect<RunningSimulator<Id>, SimulatorError, Scope.Scope> =>
  Effect.gen(function* () {
    const decoded = decodeOptions(options)
    if (Either.isLeft(decoded)) {
      const problems = problemsOf(decoded.left)
      return yield* new SimulatorError({ message: "The simulator's options are not valid.", problems })
    }
    const clock = yield* Effect.clock
    const fork = yield* FiberSet.makeRuntime<never, void, never>()
    const startedAt = clock.unsafeCurrentTimeNanos()
    const now = () => Number(clock.unsafeCurrentTimeNanos() - startedAt) / 1e6
    const { seed, latencyScale = 1, keepRequests = 0, platforms } = decoded.right
    const wallMs = clock.unsafeCurrentTimeMillis()
    const context: ServerContext = {
      platforms: new Map(
        Object.entries(platforms).map(([id, platform]) => [
          id,
          new PlatformState(id, platform, seed, latencyScale, wallMs)
        ])
      ),
      faults: new FaultBoard(seed),
      recorder: new Recorder(keepRequests),
      clock,
      fork,
      now
    }
    const host = options.host ?? "127.0.0.1"
    const port = yield* listen(makeHandler(context), host, options.port ?? 0)
    const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}`
    const baseUrls = Record.map(options.platforms, (platform, id) => `${url}/${id}${basePathOf(dialectOf(platform))}`)
    const synthetic = Object.entries(platforms).find(([, platform]) => dialectOf(platform) === "synthetic")
    return {
      url,
      port,
      baseUrls,
      apiKeys: Record.map(options.platforms, keyOf),
      quotasUrl: synthetic === undefined ? undefined : `${url}/${synthetic[0]}/v2/quotas`,
      environment: Object.fromEntries(
        Object.entries(platforms).flatMap(([id, platform]) => environmentOf(id, platform, url))
      ),
      stats: Effect.sync(() => statsOf(context)),
      faults: Effect.sync(() => context.faults.list(now())),
      fault: (fault) => Effect.suspend(() => setFault(context, fault)),
      clearFaults: (platform) => Effect.sync(() => context.faults.clear(platform, now())),
      requests: Effect.sync(() => context.recorder.list(undefined)),
      subscription: (platform, change) => Effect.suspend(() => changeSubscription(context, { platform, ...change }))
    }
  })

/** One platform's settings, as far as variables can say its limits: those of a minute, and of one other window. */
const environmentOf = (
  id: string,
  platform: SimulatedPlatform,
  url: string
): ReadonlyArray<readonly [string, string]> => {
  // What speaks Anthropic's format is asked by Claude Code, which has settings of its own.
  if (dialectOf(platform) === "anthropic") return []
  const {
    maxConcurrent,
    maxConcurrentPerModel,
    requests = [],
    tokens = [],
    tokensCounted = "reserved"
  } = platform.limits ?? {}
  const isMinute = ({ windowMs }: WindowLimit) => windowMs === 60_000
  const other = [...requests, ...tokens].find((window) => !isMinute(window))
  const ofOther = (windows: ReadonlyArray<WindowLimit>) =>
    windows.find((window) => !isMinute(window) && window.windowMs === other?.windowMs)
  const limit = (window: WindowLimit | undefined) => (window === undefined ? "none" : String(window.limit))
  const settings: ReadonlyArray<readonly [string, string]> = [
    ["BASE_URL", `${url}/${id}${basePathOf(dialectOf(platform))}`],
    ["API_KEY", keyOf(platform)],
    ["MODEL", platform.models[0]],
    ["REQUESTS_PER_MINUTE", limit(requests.find(isMinute))],
    ["WINDOW_REQUESTS", limit(ofOther(requests))],
    ["WINDOW_TOKENS", limit(ofOther(tokens))],
    ["WINDOW", other === undefined ? "none" : `${other.windowMs}ms`],
    ["TOKENS_PER_MINUTE", limit(tokens.find(isMinute))],
    ["TOKENS_COUNTED", tokensCounted],
    ...(maxConcurrent === undefined ? [] : [["MAX_CONCURRENT", String(maxConcurrent)] as const]),
    ["MAX_CONCURRENT_PER_MODEL", maxConcurrentPerModel === undefined ? "none" : String(maxConcurrentPerModel)]
  ]
  const prefix = `DREAM_TEAM_${id.toUpperCase().replaceAll("-", "_")}`
  return settings.map(([name, value]) => [`${prefix}_${name}`, value])
}

/** A server that takes requests until the scope closes, which ends every connection at once. */
const listen = (
  handler: ReturnType<typeof makeHandler>,
  host: string,
  port: number
): Effect.Effect<number, SimulatorError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<{ readonly port: number; readonly close: Effect.Effect<void> }, SimulatorError>((resume) => {
      const server = createServer({ keepAliveTimeout: 60_000, noDelay: true }, handler)
      server.maxConnections = maxConnections
      const failed = (error: Error) =>
        resume(
          Effect.fail(
            new SimulatorError({
              message: `The simulator cannot listen on ${host}:${port}: ${error.message}`,
              problems: []
            })
          )
        )
      server.once("error", failed)
      server.listen(port, host, () => {
        server.off("error", failed)
        const address = Option.fromNullable(server.address())
        const bound = Option.isSome(address) && typeof address.value === "object" ? address.value.port : port
        const close = Effect.async<void>((closed) => {
          server.close(() => closed(Effect.void))
          server.closeAllConnections()
        })
        resume(Effect.succeed({ port: bound, close }))
      })
    }),
    ({ close }) => close
  ).pipe(Effect.map((server) => server.port))

const spread = (median: number, sigma: number): Distribution => ({ median, sigma })

const described = (
  id: "codex" | "gemini" | "qwen" | "synthetic",
  rest: Pick<SimulatedPlatform, "limits" | "latency" | "answerTokens" | "reasoningTokens">
): SimulatedPlatform => ({ ...identities[id], ...rest })

const identities = {
  codex: {
    wire: "openai-responses",
    models: ["gpt-6-sol", "gpt-6.1-sol", "gpt-6-luna", "gpt-5.3-codex"],
    contextWindow: 400_000
  },
  gemini: {
    wire: "gemini",
    models: [
      "gemini-3.8-flash",
      "gemini-3.5-flash-lite",
      "gemini-3.1-pro-preview",
      "gemini-2.5-pro",
      "gemini-2.5-flash"
    ],
    contextWindow: 1_048_576
  },
  qwen: {
    wire: "openai-chat",
    dialect: "dashscope",
    models: ["qwen3.8-max", "qwen3.8-flash", "qwen3.7-max", "qwen3-coder-plus", "qwen3-coder-flash"],
    contextWindow: 1_000_000
  },
  synthetic: {
    wire: "openai-chat",
    dialect: "synthetic",
    models: ["hf:zai-org/GLM-5.2", "hf:zai-org/GLM-4.7-Flash", "hf:moonshotai/Kimi-K3", "hf:openai/gpt-oss-120b"],
    contextWindow: 200_000,
    prices: {
      "hf:zai-org/GLM-5.2": { input: 1.4, output: 4.4 },
      "hf:zai-org/GLM-4.7-Flash": { input: 0.1, output: 0.5 },
      "hf:moonshotai/Kimi-K3": { input: 3, output: 15 },
      "hf:openai/gpt-oss-120b": { input: 0.1, output: 0.1 }
    }
  }
} as const

const instantly = {
  latency: { firstTokenMs: spread(0, 0), tokenMs: spread(0, 0) },
  answerTokens: spread(48, 0.3)
}

/** The four platforms as one HTTP server on this machine that speaks their wire formats. Its answers say that they are simulated. */
export class Simulator extends Context.Tag("dream-team/Simulator")<Simulator, RunningSimulator>() {
  /**
   * Starts a simulator that runs until the scope closes. The clock in use decides its latencies and windows.
   * Fails where the options are not valid or the port is taken.
   */
  static readonly make = make

  static readonly layer = (options: SimulatorOptions): Layer.Layer<Simulator, SimulatorError> =>
    Layer.scoped(Simulator, make(options))

  /** The four platforms with the latencies and limits of a paid plan. */
  static readonly defaults = {
    seed: 1,
    platforms: {
      codex: described("codex", {
        limits: {
          requests: [{ limit: 500, windowMs: 60_000 }],
          tokens: [{ limit: 500_000, windowMs: 60_000 }],
          tokensCounted: "reserved"
        },
        latency: { firstTokenMs: spread(600, 0.4), tokenMs: spread(12, 0.3) },
        answerTokens: spread(180, 0.5),
        reasoningTokens: spread(60, 0.6)
      }),
      gemini: described("gemini", {
        limits: {
          requests: [
            { limit: 1_000, windowMs: 60_000 },
            { limit: 10_000, windowMs: 86_400_000 }
          ],
          tokens: [{ limit: 1_048_576, windowMs: 60_000 }],
          tokensCounted: "input"
        },
        latency: { firstTokenMs: spread(450, 0.35), tokenMs: spread(6, 0.3) },
        answerTokens: spread(220, 0.5),
        reasoningTokens: spread(40, 0.6)
      }),
      qwen: described("qwen", {
        limits: {
          requests: [{ limit: 600, windowMs: 60_000 }],
          tokens: [{ limit: 1_000_000, windowMs: 60_000 }],
          tokensCounted: "actual"
        },
        latency: { firstTokenMs: spread(500, 0.4), tokenMs: spread(9, 0.3) },
        answerTokens: spread(160, 0.5)
      }),
      synthetic: described("synthetic", {
        limits: {
          requests: [{ limit: 500, windowMs: 18_000_000 }],
          credits: [{ limitUsd: 24, windowMs: 604_800_000 }],
          tokensCounted: "actual",
          maxConcurrentPerModel: 1,
          models: { "hf:zai-org/GLM-4.7-Flash": { requestCost: 0.1 } }
        },
        latency: { firstTokenMs: spread(700, 0.5), tokenMs: spread(14, 0.3) },
        answerTokens: spread(180, 0.5)
      })
    }
  } satisfies SimulatorOptions

  /** Anthropic, to be asked by Claude Code at `<url>/<id>`: without latency, with a subscription that is told what is used. */
  static readonly anthropic: SimulatedPlatform = {
    wire: "anthropic-messages",
    models: ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5-20251001"],
    ...instantly
  }

  /** The four platforms without latency and limits. */
  static readonly instant = {
    seed: 1,
    platforms: {
      codex: described("codex", instantly),
      gemini: described("gemini", instantly),
      qwen: described("qwen", instantly),
      synthetic: described("synthetic", instantly)
    }
  } satisfies SimulatorOptions
}
