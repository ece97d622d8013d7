import { Cause, Clock, Context, Effect, Exit, Layer, Option, Random, Ref } from "effect"
import { AgentRouter } from "./AgentRouter.js"
import { Benchmark } from "./Benchmark.js"
import { gatherAnswer } from "./Delegation/Answer.js"
import { afterFailure, earliestOf, endsTheCall, type Failover, fromRoute } from "./Delegation/Failover.js"
import { type Call, type Completion, estimateInputTokens } from "./Domain/Call.js"
import {
  type AttemptFailure,
  AttemptsExhausted,
  CallRefused,
  DeadlineExceeded,
  type Decision,
  LeaseUnavailable,
  type NoCapablePlatform,
  PlatformFailure,
  scopeOf,
  spendsAttempt,
  type TraceEntry,
  viewOf
} from "./Domain/Failure.js"
import type { Requirement } from "./Domain/Lease.js"
import type { PlatformId } from "./Domain/Platform.js"
import type { Priority, TaskType, TenantId } from "./Domain/Task.js"
import { monotonicMs } from "./Domain/Time.js"
import { costUsd, type Price, type Usage } from "./Domain/Usage.js"
import { PlatformDetector } from "./PlatformDetector.js"
import { type PlatformClient, Platforms } from "./Platforms.js"
import { type Lease, ResourceManager } from "./ResourceManager.js"
import { Settings } from "./Settings.js"

export interface AttemptStarted {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly decision: Decision
}

export interface AttemptEnded {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly durationMs: number
  readonly timeToFirstTokenMs?: number | undefined
  readonly result:
    | { readonly _tag: "Succeeded"; readonly usage: Usage; readonly costUsd?: number | undefined }
    | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
    /** Cut by the call's own deadline. */
    | { readonly _tag: "Ignored" }
}

/**
 * Where a delegation writes down each step before it goes on; its errors end the delegation at once.
 * An attempt cut by the interruption of the delegation itself gets no `attemptEnded`: whoever interrupts knows whether
 * it was a cancel or a shutdown, and writes that down.
 */
export interface Journal<E> {
  /** Before anything is sent. */
  readonly attemptStarted: (attempt: AttemptStarted) => Effect.Effect<void, E>
  readonly attemptEnded: (attempt: AttemptEnded) => Effect.Effect<void, E>
}

export interface DelegationRequest<E> {
  readonly call: Call
  readonly requirement: Requirement
  readonly type: TaskType
  readonly priority: Priority
  readonly tenant: TenantId
  /** Epoch ms. */
  readonly deadline: number
  /** Attempts already made by earlier owners; the first one here gets the next number. */
  readonly attemptsMade: number
  /** Of the attempts already made, those that count against the budget. */
  readonly attemptsSpent: number
  /** How long to wait for one lease before `LeaseUnavailable`, ms (the deadline bounds it too). */
  readonly maxWaitMs: number
  readonly journal: Journal<E>
}

export interface Delegated {
  readonly completion: Completion
  readonly platform: PlatformId
  readonly costUsd?: number | undefined
  /** All attempts of the call so far, those of earlier owners included. */
  readonly attempts: number
  /** The attempts made by this delegation, in their order; the last one succeeded. */
  readonly trace: ReadonlyArray<TraceEntry>
}

export type DelegationError = NoCapablePlatform | LeaseUnavailable | DeadlineExceeded | AttemptsExhausted | CallRefused

/** How one attempt ended. */
type Outcome =
  | { readonly _tag: "Succeeded"; readonly completion: Completion }
  | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
  /** Cut by the call's own deadline. */
  | { readonly _tag: "Ignored" }

interface TimedOutcome {
  readonly outcome: Outcome
  readonly durationMs: number
  readonly timeToFirstTokenMs: number | undefined
}

interface Attempted {
  readonly client: PlatformClient
  readonly model: string
  readonly outcome: Outcome
  readonly entry: TraceEntry
}

const outcomeNames = { Succeeded: "succeeded", Failed: "failed", Ignored: "ignored" } as const

const entryOf = (started: AttemptStarted, { durationMs, outcome, timeToFirstTokenMs }: TimedOutcome): TraceEntry => ({
  ...started,
  outcome: outcomeNames[outcome._tag],
  durationMs,
  timeToFirstTokenMs,
  failure: outcome._tag === "Failed" ? viewOf(outcome.failure) : undefined
})

const priceOf = (client: PlatformClient, model: string): Price | undefined =>
  Object.hasOwn(client.settings.prices, model) ? client.settings.prices[model] : undefined

/** By the model that answered where it has a price, else by the one that was asked. */
const costOf = (client: PlatformClient, asked: string, { model, usage }: Completion): number | undefined =>
  costUsd(usage, priceOf(client, model) ?? priceOf(client, asked))

/** To the microsecond, so that a stored duration is not a row of noise digits. */
const rounded = (ms: number): number => Math.round(ms * 1_000) / 1_000

const sinceMs = (start: number, end: number): number => rounded(Math.max(0, end - start))

const attemptsInWords = (attempts: number): string => (attempts === 1 ? "1 attempt" : `${attempts} attempts`)

const lastInWords = (last: AttemptFailure | undefined): string =>
  last === undefined ? "" : `; the last failed on ${last.platform}: ${last.message}`

const refused = (failure: AttemptFailure, trace: ReadonlyArray<TraceEntry>) =>
  new CallRefused({
    message: `${failure.platform} refused the call: ${failure.message}`,
    platform: failure.platform,
    failure: viewOf(failure),
    trace
  })

/** A known instant that comes too late says nothing where somebody else may come back before it, unannounced. */
const knownBefore = (
  deadline: number,
  earliestAt: number | undefined,
  mayRecoverUnannounced: boolean
): number | undefined =>
  mayRecoverUnannounced && earliestAt !== undefined && earliestAt >= deadline ? undefined : earliestAt

const nobodyLeft = (state: Failover, deadline: number) =>
  new LeaseUnavailable({
    message: `no platform is left for this call: ${state.excluded.map(({ platform, reason }) => `${platform}: ${reason}`).join("; ")}`,
    reasons: state.excluded,
    earliestAt: knownBefore(deadline, earliestOf(state.excluded), state.mayRecoverUnannounced)
  })

/** One call, one deadline, one attempt budget: lease, attempt, classify, then the next platform, a wait, or the end. */
export class Delegation extends Context.Tag("dream-team/Delegation")<
  Delegation,
  {
    readonly delegate: <E = never>(request: DelegationRequest<E>) => Effect.Effect<Delegated, DelegationError | E>
  }
>() {
  static readonly layer: Layer.Layer<
    Delegation,
    never,
    AgentRouter | Benchmark | PlatformDetector | Platforms | ResourceManager | Settings
  > = Layer.effect(
    Delegation,
    Effect.gen(function* () {
      const router = yield* AgentRouter
      const benchmark = yield* Benchmark
      const detector = yield* PlatformDetector
      const platforms = yield* Platforms
      const resources = yield* ResourceManager
      const { tasks } = yield* Settings

      const contextWindow = (platform: PlatformId): number =>
        Option.match(platforms.get(platform), { onNone: () => 0, onSome: ({ settings }) => settings.contextWindow })

      /** A client that breaks instead of failing is its platform's failure: no other platform's calls suffer from it. */
      const failureOf = (client: PlatformClient, model: string, cause: Cause.Cause<AttemptFailure>) =>
        Option.match(Cause.failureOption(cause), {
          onSome: (failure) => Effect.succeed(failure),
          onNone: () =>
            Effect.as(
              Effect.logError("a platform's client broke", cause).pipe(
                Effect.annotateLogs({ platform: client.id, model })
              ),
              new PlatformFailure({
                platform: client.id,
                model,
                reason: "malformed",
                message: "the platform's client broke; the log says how"
              })
            )
        })

      /** Sends the call, then tells everybody who keeps books how it went: exactly once, whatever interrupts. */
      const send = (client: PlatformClient, lease: Lease, call: Call, type: TaskType, deadlineAt: number) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const startedAt = yield* monotonicMs
            const firstTokenAt = yield* Ref.make(Option.none<number>())
            const exit = yield* gatherAnswer(client, lease.model, call, lease.started, firstTokenAt).pipe(
              Effect.timeoutOption(Math.max(0, deadlineAt - startedAt)),
              restore,
              Effect.exit
            )
            const durationMs = sinceMs(startedAt, yield* monotonicMs)
            const timeToFirstTokenMs = Option.getOrUndefined(
              Option.map(yield* Ref.get(firstTokenAt), (at) => sinceMs(startedAt, at))
            )
            const ended = (outcome: Outcome): TimedOutcome => ({ outcome, durationMs, timeToFirstTokenMs })
            const measured = { platform: client.id, model: lease.model, type, durationMs, timeToFirstTokenMs }

            if (Exit.isSuccess(exit)) {
              if (Option.isNone(exit.value)) {
                yield* lease.settle({ _tag: "Ignored" })
                return ended({ _tag: "Ignored" })
              }
              const completion = exit.value.value
              const { inputTokens, outputTokens } = completion.usage
              yield* lease.settle({ _tag: "Succeeded", usage: completion.usage })
              yield* benchmark.record({ ...measured, outcome: "succeeded", tokens: inputTokens + outputTokens })
              yield* detector.report(client.id, lease.model, { _tag: "Succeeded" })
              return ended({ _tag: "Succeeded", completion })
            }
            // An interruption of this delegation ends here, and the scope settles the lease as ignored.
            yield* restore(Effect.void)
            const failure = yield* failureOf(client, lease.model, exit.cause)
            yield* benchmark.record({
              ...measured,
              outcome: scopeOf(failure) === "platform" ? "platform-failure" : "other-failure",
              tokens: 0
            })
            const report = detector.report(client.id, lease.model, { _tag: "Failed", failure })
            const settle = lease.settle({ _tag: "Failed", failure })
            // A refused key or model is out before the permit is free, so that no waiting call is sent to it.
            const takesOut = failure._tag === "CredentialFailure" || failure._tag === "ModelFailure"
            yield* takesOut ? Effect.zipRight(report, settle) : Effect.zipRight(settle, report)
            return ended({ _tag: "Failed", failure })
          })
        )

      /** One lease and the attempt it permits, journalled before and after. */
      const attempt = <E>(
        request: DelegationRequest<E>,
        state: Failover,
        inputTokens: number,
        number: number,
        deadlineAt: number,
        waitMs: number
      ) =>
        Effect.gen(function* () {
          const lease = yield* resources
            .acquire({
              candidates: state.contenders,
              tokens: {
                input: inputTokens,
                maxOutput: request.call.maxOutputTokens ?? tasks.maxOutputTokens
              },
              priority: request.priority,
              tenant: request.tenant,
              maxWaitMs: waitMs
            })
            .pipe(
              Effect.mapError(
                ({ earliestAt, message, reasons }) =>
                  new LeaseUnavailable({
                    message,
                    reasons: [...reasons, ...state.excluded],
                    // absent where one may be free at any moment: somebody else's reset is not to be waited for then
                    earliestAt:
                      earliestAt === undefined
                        ? undefined
                        : knownBefore(
                            request.deadline,
                            earliestOf([{ earliestAt }, ...state.excluded]),
                            state.mayRecoverUnannounced || reasons.some((reason) => reason.earliestAt === undefined)
                          )
                  })
              )
            )
          const client = Option.getOrThrow(platforms.get(lease.platform))
          const where = { number, platform: lease.platform, model: lease.model }
          return yield* Effect.gen(function* () {
            if ((yield* monotonicMs) >= deadlineAt) return Option.none<Attempted>()
            const started: AttemptStarted = {
              ...where,
              decision: {
                candidates: state.contenders.map(({ platform, model, weight }) => ({ platform, model, weight })),
                excluded: state.excluded,
                waitedMs: rounded(lease.waitedMs)
              }
            }
            yield* request.journal.attemptStarted(started)
            const timed = yield* send(client, lease, request.call, request.type, deadlineAt)
            const { outcome, durationMs, timeToFirstTokenMs } = timed
            yield* Effect.annotateCurrentSpan({ outcome: outcome._tag })
            yield* request.journal.attemptEnded({
              ...where,
              durationMs,
              timeToFirstTokenMs,
              result:
                outcome._tag === "Succeeded"
                  ? {
                      _tag: "Succeeded",
                      usage: outcome.completion.usage,
                      costUsd: costOf(client, lease.model, outcome.completion)
                    }
                  : outcome
            })
            return Option.some<Attempted>({ client, model: lease.model, outcome, entry: entryOf(started, timed) })
          }).pipe(Effect.withSpan("Delegation.attempt", { attributes: where, captureStackTrace: false }))
        }).pipe(Effect.scoped)

      const delegate = <E = never>(request: DelegationRequest<E>): Effect.Effect<Delegated, DelegationError | E> =>
        Effect.gen(function* () {
          const startedAt = yield* monotonicMs
          const deadlineAt = startedAt + request.deadline - (yield* Clock.currentTimeMillis)
          const route = yield* router.route(request.requirement, request.type)
          const inputTokens = estimateInputTokens(request.call)
          const trace: Array<TraceEntry> = []
          let state = fromRoute(route)
          let made = request.attemptsMade
          let spent = request.attemptsSpent
          let last: AttemptFailure | undefined
          const tooLate = () =>
            new DeadlineExceeded({
              message: `the deadline passed after ${attemptsInWords(made)}${lastInWords(last)}`,
              attempts: made,
              last: last === undefined ? undefined : viewOf(last),
              trace
            })

          while (spent < tasks.maxAttempts) {
            const remainingMs = deadlineAt - (yield* monotonicMs)
            if (remainingMs <= 0) return yield* tooLate()
            const attempted = yield* attempt(
              request,
              state,
              inputTokens,
              made + 1,
              deadlineAt,
              Math.min(request.maxWaitMs, remainingMs)
            )
            if (Option.isNone(attempted)) return yield* tooLate()
            made += 1
            const { client, entry, model, outcome } = attempted.value
            trace.push(entry)
            if (outcome._tag === "Ignored") return yield* tooLate()
            if (outcome._tag === "Succeeded") {
              const { completion } = outcome
              const cost = costOf(client, model, completion)
              return { completion, platform: client.id, costUsd: cost, attempts: made, trace }
            }
            const { failure } = outcome
            last = failure
            if (spendsAttempt(viewOf(failure))) spent += 1
            if (endsTheCall(failure)) return yield* refused(failure, trace)
            state = afterFailure(state, { platform: client.id, model }, failure, {
              now: yield* monotonicMs,
              jitter: yield* Random.next,
              contextWindow
            })
            if (state.contenders.length === 0) {
              return yield* state.mayRecover ? nobodyLeft(state, request.deadline) : refused(failure, trace)
            }
          }
          return yield* new AttemptsExhausted({
            message: `${attemptsInWords(made)} failed${lastInWords(last)}`,
            attempts: made,
            last: last === undefined ? undefined : viewOf(last),
            trace
          })
        }).pipe(
          Effect.withSpan("Delegation.delegate", {
            attributes: { type: request.type, priority: request.priority, tenant: request.tenant },
            captureStackTrace: false
          })
        )

      return { delegate }
    })
  )
}
