import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, MutableRef, Option, Random, type Stream } from "effect"
import { maxCostOf } from "./AgentRouter/Requirement.js"
import { AgentRouter } from "./AgentRouter.js"
import { Benchmark, type CallTimes } from "./Benchmark.js"
import { amountOf, nothing, usedByFailure } from "./Budgets/Amount.js"
import { Budgets, type Held, type Reservation } from "./Budgets.js"
import { gatherAnswer } from "./Delegation/Answer.js"
import { holdBack, sensibleWaitMs } from "./Delegation/Deadline.js"
import { candidatesOf, decisionOf, rotationOf } from "./Delegation/Decision.js"
import {
  afterFailure,
  type Contender,
  earliestOf,
  endsTheCall,
  type Failover,
  fromRoute,
  knownBefore
} from "./Delegation/Failover.js"
import { type Piece, type Relay, streamDelegation } from "./Delegation/Stream.js"
import * as WithinBudgets from "./Delegation/WithinBudgets.js"
import type { ServiceUnavailable } from "./Domain/ApiError.js"
import type { Booking } from "./Domain/Budget.js"
import { type Call, type Completion, estimateInputTokens, heldBytes } from "./Domain/Call.js"
import {
  type AnswerBroken,
  type AttemptFailure,
  AttemptsExhausted,
  type BudgetExhausted,
  CallRefused,
  DeadlineExceeded,
  type Decision,
  LeaseUnavailable,
  type NoCapablePlatform,
  PlatformFailure,
  type PlatformReason,
  scopeOf,
  spendsAttempt,
  type TraceEntry,
  viewOf
} from "./Domain/Failure.js"
import type { Requirement } from "./Domain/Lease.js"
import type { PlatformId, RoutingPolicy } from "./Domain/Platform.js"
import type { Priority, TaskPreview, TaskType, TenantId } from "./Domain/Task.js"
import { epochMs, monotonicMs } from "./Domain/Time.js"
import { costUsd, type Price, type Usage } from "./Domain/Usage.js"
import { PlatformDetector } from "./PlatformDetector.js"
import { watched } from "./Platforms/Watchdog.js"
import { type PlatformClient, Platforms } from "./Platforms.js"
import { type Lease, type LeaseRequest, type Outlook, ResourceManager } from "./ResourceManager.js"
import { Settings } from "./Settings.js"
import { annotateSpan, traced } from "./Telemetry/traced.js"

export type { Piece } from "./Delegation/Stream.js"

/** What is written down before an attempt is sent. */
export interface AttemptStarted {
  /** 1 for the first attempt of the call, those of earlier owners counted. */
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  readonly decision: Decision
  /** What it may use at most: to be stored with it, and in the same transaction. */
  readonly booking: Booking
}

/** What is written down when an attempt is over. */
export interface AttemptEnded {
  readonly number: number
  readonly platform: PlatformId
  readonly model: string
  /** What makes of that booking what it really used: to be stored with its end. */
  readonly correction: Booking
  readonly durationMs: number
  readonly timeToFirstTokenMs?: number | undefined
  readonly result:
    | { readonly _tag: "Succeeded"; readonly usage: Usage; readonly costUsd?: number | undefined }
    | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
    /** Cut by the call's own deadline, or because the other of two attempts at once was faster. */
    | { readonly _tag: "Ignored" }
  /** The text that had come when the attempt failed or was cut. */
  readonly partial?: string | undefined
}

/**
 * Where a delegation writes down each step before it goes on; its errors end the delegation at once.
 * An attempt cut by the interruption of the delegation itself gets no `attemptEnded`: whoever interrupts knows whether
 * it was a cancel or a shutdown, and writes that down. Two attempts of a call may be out at once, where a hedge was made:
 * the end of the one that lost then follows the one that succeeded.
 */
export interface Journal<E> {
  /** Before anything is sent. */
  readonly attemptStarted: (attempt: AttemptStarted) => Effect.Effect<void, E>
  readonly attemptEnded: (attempt: AttemptEnded) => Effect.Effect<void, E>
}

/** What is to be delegated. */
export interface DelegatedCall {
  readonly call: Call
  readonly requirement: Requirement
  readonly type: TaskType
  readonly priority: Priority
  readonly tenant: TenantId
  /** Epoch ms. */
  readonly deadline: number
}

/** A call, and for whom and within what it is delegated. */
export interface DelegationRequest<E> extends DelegatedCall {
  /** The task, or the call, that the attempts are made for. */
  readonly id: string
  /** Attempts already made by earlier owners; the first one here gets the next number. */
  readonly attemptsMade: number
  /** Of the attempts already made, those that count against the budget. */
  readonly attemptsSpent: number
  /** How long to wait for one lease before `LeaseUnavailable`, ms (the deadline bounds it too). */
  readonly maxWaitMs: number
  readonly journal: Journal<E>
  /** The budgets of the task it is made for, beside those of the tenant and of the platforms. */
  readonly held?: Held | undefined
  /** Whether, at that moment, a second attempt may be made beside the running one; default yes. */
  readonly mayHedge?: (() => boolean) | undefined
  /** Gets the answer while it comes. There is no second attempt beside it then. */
  readonly relay?: Relay<E> | undefined
}

/** What would become of a call, were it delegated now. */
export type Preview = Pick<TaskPreview, "policy" | "tokens" | "candidates" | "excluded" | "choice" | "patientUntil">

/** The answer of a call, and who gave it. */
export interface Delegated {
  readonly completion: Completion
  readonly platform: PlatformId
  /** What the successful attempt cost at list prices, USD; absent where its model has none. */
  readonly costUsd?: number | undefined
  /** All attempts of the call so far, those of earlier owners included. */
  readonly attempts: number
  /** The attempts made by this delegation, in their order; the last one succeeded. */
  readonly trace: ReadonlyArray<TraceEntry>
}

export type DelegationError =
  | NoCapablePlatform
  | LeaseUnavailable
  | DeadlineExceeded
  | AttemptsExhausted
  | BudgetExhausted
  | CallRefused

/** How one attempt ended. */
type Outcome =
  | { readonly _tag: "Succeeded"; readonly completion: Completion }
  | { readonly _tag: "Failed"; readonly failure: AttemptFailure }
  /** Cut by the call's own deadline, or by the other attempt's answer. */
  | { readonly _tag: "Ignored" }

interface TimedOutcome {
  readonly outcome: Outcome
  /** Monotonic, ms. */
  readonly endedAt: number
  readonly durationMs: number
  readonly timeToFirstTokenMs: number | undefined
  /** What had come of it when it ended. */
  readonly text: string
  readonly correction: Booking
}

/** An attempt that is written down and not ended. */
interface Opened {
  readonly client: PlatformClient
  readonly lease: Lease
  readonly reservation: Reservation
  readonly started: Omit<AttemptStarted, "booking">
}

interface Attempted {
  readonly client: PlatformClient
  readonly model: string
  readonly outcome: Outcome
  readonly entry: TraceEntry
  /** Monotonic, ms. */
  readonly endedAt: number
}

/** What one turn of a call goes by. */
interface Turn {
  readonly contenders: ReadonlyArray<Contender>
  readonly excluded: ReadonlyArray<PlatformReason>
  readonly policy: RoutingPolicy
  readonly size: { readonly inputTokens: number; readonly bytes: number }
  /** The number of its first attempt. */
  readonly number: number
  /** Monotonic, ms. */
  readonly deadlineAt: number
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const outcomeNames = { Succeeded: "succeeded", Failed: "failed", Ignored: "ignored" } as const

const entryOf = (
  started: Opened["started"],
  { durationMs, outcome, timeToFirstTokenMs }: TimedOutcome
): TraceEntry => ({
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

const sizeOf = (call: Call) => ({ inputTokens: estimateInputTokens(call), bytes: heldBytes(call) })

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
    /**
     * A HIGH call that takes longer than 95 % of its kind take on its platform is made once more elsewhere, where
     * `routing.hedging` is set: the first good answer wins, the other attempt is interrupted and settled as ignored.
     */
    readonly delegate: <E = never>(request: DelegationRequest<E>) => Effect.Effect<Delegated, DelegationError | E>
    /**
     * The same piece by piece, and never hedged. Before its first token a failed attempt is invisible and another platform
     * goes on; after it the stream fails with `AnswerBroken`. Who stops reading interrupts the attempt, which is settled as
     * ignored. A reader that takes nothing holds its platform up, and nothing else.
     */
    readonly stream: <E = never>(
      request: Omit<DelegationRequest<E>, "relay">
    ) => Stream.Stream<Piece, DelegationError | AnswerBroken | E>
    /** Who would get the call now, and why. Takes nothing, changes nothing. */
    readonly preview: (call: DelegatedCall) => Effect.Effect<Preview, NoCapablePlatform | ServiceUnavailable>
  }
>() {
  static readonly layer: Layer.Layer<
    Delegation,
    never,
    AgentRouter | Benchmark | Budgets | PlatformDetector | Platforms | ResourceManager | Settings
  > = Layer.effect(
    Delegation,
    Effect.gen(function* () {
      const router = yield* AgentRouter
      const benchmark = yield* Benchmark
      const budgets = yield* Budgets
      const detector = yield* PlatformDetector
      const platforms = yield* Platforms
      const resources = yield* ResourceManager
      const { routing, tasks } = yield* Settings
      const within = WithinBudgets.make(budgets, platforms, tasks)

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

      const requestOf = (
        { call, priority, requirement, tenant, type }: DelegatedCall,
        { contenders, policy, size }: Pick<Turn, "contenders" | "policy" | "size">,
        wait: Pick<LeaseRequest, "comesBack" | "patienceMs"> & { readonly maxWaitMs: number }
      ): LeaseRequest => ({
        candidates: contenders,
        tokens: { input: size.inputTokens, maxOutput: call.maxOutputTokens ?? tasks.maxOutputTokens },
        type,
        rotation: rotationOf(type, policy, requirement.model),
        priority,
        tenant,
        bytes: size.bytes,
        ...wait
      })

      /** Those of `contenders` that may well answer too late come after the others; how long to wait for one. */
      const inTime = (contenders: ReadonlyArray<Contender>, type: TaskType, deadlineAt: number) =>
        Effect.gen(function* () {
          const times = new Map<Contender, CallTimes>()
          for (const contender of contenders) {
            const found = yield* benchmark.callTimes(contender.platform, contender.model, type)
            if (Option.isSome(found)) times.set(contender, found.value)
          }
          const now = yield* monotonicMs
          const timesOf = (contender: Contender) => times.get(contender)
          return {
            contenders: holdBack(contenders, timesOf, { now, deadlineAt }),
            waitMs: sensibleWaitMs(contenders, timesOf, deadlineAt - now)
          }
        })

      /** Runs where nothing interrupts it but what it restores. */
      const sendAndTell = Effect.fnUntraced(function* (
        restore: Restore,
        { client, lease, reservation }: Opened,
        { call, relay, type }: DelegatedCall & Pick<DelegationRequest<unknown>, "relay">,
        deadlineAt: number,
        lost: Deferred.Deferred<void> | undefined
      ) {
        const { model } = lease
        const startedAt = yield* monotonicMs
        const firstTokenAt = MutableRef.make(Option.none<number>())
        const soFar = { text: "", heldUpMs: 0 }
        const answer = watched<Option.Option<Completion>, AttemptFailure, never>((watch) =>
          Effect.zipRight(
            watch.until(deadlineAt, () => Effect.succeedNone),
            Effect.asSome(gatherAnswer(client, model, call, lease.started, firstTokenAt, soFar, relay))
          )
        )
        const exit = yield* Effect.exit(
          benchmark.running(
            { platform: client.id, model, type, firstTokenAt },
            restore(
              lost === undefined
                ? answer
                : Effect.raceFirst(answer, Effect.as(Deferred.await(lost), Option.none<Completion>()))
            )
          )
        )
        const endedAt = yield* monotonicMs
        // what its reader held up is not the platform's time
        const durationMs = sinceMs(startedAt, endedAt - soFar.heldUpMs)
        const first = MutableRef.get(firstTokenAt)
        const timeToFirstTokenMs = Option.isSome(first) ? sinceMs(startedAt, first.value) : undefined
        const measured = { platform: client.id, model, type, durationMs, timeToFirstTokenMs }
        const bound = reservation.booking.amount

        let outcome: Outcome
        // The budgets are told before the permit is free, so that the call it wakes finds what is left of them.
        let correction: Booking
        if (Exit.isSuccess(exit)) {
          if (Option.isNone(exit.value)) {
            outcome = { _tag: "Ignored" }
            // how much of the answer the platform had made, nobody tells
            correction = yield* reservation.settle(bound)
            yield* lease.settle(outcome)
            yield* benchmark.record({ ...measured, outcome: "cut", tokens: 0 })
          } else {
            const completion = exit.value.value
            const { inputTokens, outputTokens } = completion.usage
            const tokens = inputTokens + outputTokens
            outcome = { _tag: "Succeeded", completion }
            correction = yield* reservation.settle(amountOf(costOf(client, model, completion), tokens))
            yield* lease.settle({ _tag: "Succeeded", usage: completion.usage })
            yield* benchmark.record({ ...measured, outcome: "succeeded", tokens, outputTokens })
            yield* detector.report(client.id, model, { _tag: "Succeeded" })
          }
        } else {
          // An interruption of this delegation ends here, and what was taken for the attempt is given back as ignored.
          yield* restore(Effect.void)
          const failure = yield* failureOf(client, model, exit.cause)
          outcome = { _tag: "Failed", failure }
          correction = yield* reservation.settle(usedByFailure(failure, bound))
          yield* benchmark.record({
            ...measured,
            outcome: scopeOf(failure) === "platform" ? "platform-failure" : "other-failure",
            tokens: 0
          })
          const report = detector.report(client.id, model, outcome)
          const settle = lease.settle(outcome)
          // A refused key or model is out before the permit is free, so that no waiting call is sent to it.
          const takesOut = failure._tag === "CredentialFailure" || failure._tag === "ModelFailure"
          yield* takesOut ? Effect.zipRight(report, settle) : Effect.zipRight(settle, report)
        }
        yield* annotateSpan({ outcome: outcome._tag })
        const timed: TimedOutcome = { outcome, endedAt, durationMs, timeToFirstTokenMs, text: soFar.text, correction }
        return timed
      })

      /**
       * Sends the call, then tells everybody who keeps books how it went: exactly once, whatever interrupts. `lost` cuts
       * it without interrupting the delegation.
       */
      const send = (
        opened: Opened,
        call: DelegatedCall & Pick<DelegationRequest<unknown>, "relay">,
        deadlineAt: number,
        lost?: Deferred.Deferred<void>
      ): Effect.Effect<TimedOutcome> => {
        const { model, number, platform } = opened.started
        return Effect.uninterruptibleMask((restore) => sendAndTell(restore, opened, call, deadlineAt, lost)).pipe(
          traced("Delegation.attempt", { attributes: { number, platform, model } })
        )
      }

      const open = <E>(
        request: DelegationRequest<E>,
        { contenders, excluded, number, policy }: Turn,
        { isHedge, lease, reservation }: Pick<Opened, "lease" | "reservation"> & { readonly isHedge: boolean }
      ): Effect.Effect<Opened, E> => {
        const started: Opened["started"] = {
          number,
          platform: lease.platform,
          model: lease.model,
          decision: decisionOf(
            { ...lease, waitedMs: rounded(lease.waitedMs) },
            { contenders, excluded, policy, isHedge }
          )
        }
        const client = Option.getOrThrow(platforms.get(lease.platform))
        return request.journal.attemptStarted({ ...started, booking: reservation.booking }).pipe(
          Effect.tapError(() => reservation.settle(nothing)),
          Effect.as({ client, lease, reservation, started })
        )
      }

      const close = <E>(
        request: DelegationRequest<E>,
        { client, started }: Opened,
        timed: TimedOutcome
      ): Effect.Effect<Attempted, E> => {
        const { correction, durationMs, endedAt, outcome, text, timeToFirstTokenMs } = timed
        const { model, number, platform } = started
        const written = request.journal.attemptEnded({
          number,
          platform,
          model,
          durationMs,
          timeToFirstTokenMs,
          correction,
          ...(outcome._tag === "Succeeded" || text === "" ? {} : { partial: text }),
          result:
            outcome._tag === "Succeeded"
              ? {
                  _tag: "Succeeded",
                  usage: outcome.completion.usage,
                  costUsd: costOf(client, model, outcome.completion)
                }
              : outcome
        })
        return Effect.as(written, { client, model, outcome, entry: entryOf(started, timed), endedAt })
      }

      /**
       * One effect with a lease and what the attempt may use of the budgets; nothing where they left no room by the time of
       * its turn. What it leaves unsettled is settled: the lease as ignored, the reservation as used.
       */
      const permitted = <A, E, E2>(
        request: DelegatedCall & Pick<DelegationRequest<unknown>, "held" | "id">,
        turn: Turn,
        wait: Parameters<typeof requestOf>[2],
        use: {
          readonly onPermit: (permit: Pick<Opened, "lease" | "reservation">) => Effect.Effect<A, E>
          readonly onUnavailable: (error: LeaseUnavailable) => Effect.Effect<Option.Option<A>, E2>
        }
      ): Effect.Effect<Option.Option<A>, E | E2> =>
        resources.withLease<Option.Option<A>, E | E2, E2>(
          { ...requestOf(request, turn, wait), attempt: { id: request.id, number: turn.number } },
          {
            onUnavailable: use.onUnavailable,
            onLease: (lease) =>
              Effect.uninterruptibleMask((restore) => {
                const amount = within.boundOn(request.call, turn.size.inputTokens, lease)
                const payer = WithinBudgets.payerOf(request)
                return Effect.matchEffect(budgets.reserve(payer, { platform: lease.platform, amount }), {
                  onFailure: (error) => restore(use.onUnavailable(WithinBudgets.budgetsUnknown(error))),
                  onSuccess: (reserved) => {
                    if (Option.isNone(reserved)) return Effect.succeedNone
                    const reservation = reserved.value
                    const used = restore(Effect.asSome(use.onPermit({ lease, reservation })))
                    return Effect.onExit(used, () => reservation.settle(amount))
                  }
                })
              })
          }
        )

      /** The attempt, and after `afterMs` a second one beside it. All are ended; the one that succeeded comes last. */
      const sendHedged = <E>(
        request: DelegationRequest<E>,
        turn: Turn,
        first: Opened,
        afterMs: number
      ): Effect.Effect<ReadonlyArray<Attempted>, E> =>
        Effect.scoped(
          Effect.gen(function* () {
            const lost = yield* Deferred.make<void>()
            const begin = (opened: Opened) => Effect.forkScoped(send(opened, request, turn.deadlineAt, lost))
            const firstFiber = yield* begin(first)
            const early = yield* Effect.timeoutOption(Fiber.join(firstFiber), afterMs)
            if (Option.isSome(early)) return [yield* close(request, first, early.value)]

            const beside = (second: Opened) =>
              Effect.gen(function* () {
                const secondFiber = yield* begin(second)
                const { ended, other, rest, timed } = yield* Effect.raceFirst(
                  Effect.map(Fiber.join(firstFiber), (timed) => ({
                    timed,
                    ended: first,
                    other: second,
                    rest: secondFiber
                  })),
                  Effect.map(Fiber.join(secondFiber), (timed) => ({
                    timed,
                    ended: second,
                    other: first,
                    rest: firstFiber
                  }))
                )
                if (timed.outcome._tag !== "Succeeded") {
                  return [yield* close(request, ended, timed), yield* close(request, other, yield* Fiber.join(rest))]
                }
                yield* Deferred.succeed(lost, undefined)
                const late = yield* Fiber.join(rest)
                if (ended === second) yield* router.chosen(request.requirement, second.lease.platform)
                const won = yield* close(request, ended, timed)
                // it may have been answered in the same moment: a call has one answer
                const isSecondAnswer = late.outcome._tag === "Succeeded"
                const loser = yield* close(
                  request,
                  other,
                  isSecondAnswer ? { ...late, outcome: { _tag: "Ignored" } } : late
                )
                return [loser, won]
              })

            const { platform } = first.lease
            const hedge: Turn = {
              ...turn,
              contenders: turn.contenders.filter((contender) => contender.platform !== platform),
              excluded: [...turn.excluded, { platform, reason: "it has the call already and takes unusually long" }],
              number: turn.number + 1
            }
            const mayHedge = hedge.contenders.length > 0 && request.mayHedge?.() !== false
            // where another platform is free at this moment
            const both = mayHedge
              ? yield* permitted(
                  request,
                  hedge,
                  { maxWaitMs: 0, patienceMs: 0 },
                  {
                    onPermit: (permit) =>
                      Effect.scoped(Effect.flatMap(open(request, hedge, { ...permit, isHedge: true }), beside)),
                    onUnavailable: () => Effect.succeedNone
                  }
                )
              : Option.none()
            return Option.isSome(both) ? both.value : [yield* close(request, first, yield* Fiber.join(firstFiber))]
          })
        )

      /**
       * One lease and the attempt it permits, perhaps with a hedge; no attempt where the deadline came first, and nothing
       * where the budgets left no room when its turn came.
       */
      const attempt = <E>(
        request: DelegationRequest<E>,
        turn: Turn,
        wait: {
          readonly maxWaitMs: number
          readonly comesBack: boolean
          readonly patienceMs: number
          readonly mayRecoverUnannounced: boolean
        },
        mayHedge: boolean
      ): Effect.Effect<Option.Option<ReadonlyArray<Attempted>>, LeaseUnavailable | E> => {
        const { mayRecoverUnannounced, ...patience } = wait

        const sendOpened = (opened: Opened): Effect.Effect<ReadonlyArray<Attempted>, E> => {
          const alone = Effect.flatMap(send(opened, request, turn.deadlineAt), (timed) =>
            Effect.map(close(request, opened, timed), (attempted) => [attempted])
          )
          return mayHedge
            ? Effect.flatMap(benchmark.latencyP95(opened.lease.platform, request.type), (afterMs) =>
                Option.isSome(afterMs) ? sendHedged(request, turn, opened, afterMs.value) : alone
              )
            : alone
        }

        return permitted<ReadonlyArray<Attempted>, E, LeaseUnavailable>(request, turn, patience, {
          onPermit: (permit) =>
            Effect.flatMap(monotonicMs, (now) =>
              now >= turn.deadlineAt
                ? Effect.as(permit.reservation.settle(nothing), [])
                : Effect.zipRight(
                    router.chosen(request.requirement, permit.lease.platform),
                    Effect.flatMap(open(request, turn, { ...permit, isHedge: false }), sendOpened)
                  )
            ),
          onUnavailable: ({ earliestAt, message, reasons }) =>
            new LeaseUnavailable({
              message,
              reasons: [...reasons, ...turn.excluded],
              // absent where one may be free at any moment: somebody else's reset is not to be waited for then
              earliestAt:
                earliestAt === undefined
                  ? undefined
                  : knownBefore(
                      request.deadline,
                      earliestOf([{ earliestAt }, ...turn.excluded]),
                      mayRecoverUnannounced || reasons.some((reason) => reason.earliestAt === undefined)
                    )
            })
        })
      }

      const delegate = <E = never>(request: DelegationRequest<E>): Effect.Effect<Delegated, DelegationError | E> =>
        Effect.gen(function* () {
          const startedAt = yield* monotonicMs
          const deadlineAt = startedAt + request.deadline - (yield* epochMs)
          const route = yield* router.route(request.requirement, request.type)
          const size = sizeOf(request.call)
          const trace: Array<TraceEntry> = []
          let state = fromRoute(route)
          let made = request.attemptsMade
          let spent = request.attemptsSpent
          let hedged = false
          let last: AttemptFailure | undefined
          const tooLate = () =>
            new DeadlineExceeded({
              message: `the deadline passed after ${attemptsInWords(made)}${lastInWords(last)}`,
              attempts: made,
              last: last === undefined ? undefined : viewOf(last),
              trace
            })

          while (spent < tasks.maxAttempts) {
            const now = yield* monotonicMs
            if (now >= deadlineAt) return yield* tooLate()
            const waitsUntil = Math.min(now + request.maxWaitMs, deadlineAt)
            const { affordable, unaffordable } = yield* within.until(
              waitsUntil,
              request,
              state.contenders,
              size.inputTokens
            )
            const turnAt = yield* monotonicMs
            if (turnAt >= deadlineAt) return yield* tooLate()
            if (affordable.length === 0) {
              const so = { attempts: made, last: last === undefined ? undefined : viewOf(last), trace }
              return yield* WithinBudgets.beyondBudgets(unaffordable, state, request.deadline, so)
            }
            const { contenders, waitMs } = yield* inTime(affordable, request.type, deadlineAt)
            const tried = yield* attempt(
              request,
              {
                contenders,
                excluded: [...state.excluded, ...unaffordable.map(({ reason }) => reason)],
                policy: route.policy,
                size,
                number: made + 1,
                deadlineAt
              },
              {
                maxWaitMs: Math.max(0, Math.min(waitsUntil - turnAt, waitMs)),
                comesBack: waitsUntil < deadlineAt,
                patienceMs: route.patienceMs,
                mayRecoverUnannounced:
                  state.mayRecoverUnannounced || unaffordable.some(({ kind }) => kind === "reserved")
              },
              routing.hedging &&
                request.relay === undefined &&
                request.priority === "HIGH" &&
                !hedged &&
                spent + 2 <= tasks.maxAttempts
            )
            // others took what was left of a budget while it waited
            if (Option.isNone(tried)) continue
            const ended = tried.value
            if (ended.length > 1) hedged = true
            made += ended.length
            for (const { entry } of ended) trace.push(entry)

            let refusal: AttemptFailure | undefined
            for (const { client, endedAt, model, outcome } of ended) {
              if (outcome._tag === "Ignored") continue
              if (outcome._tag === "Succeeded") {
                const { completion } = outcome
                const cost = costOf(client, model, completion)
                return { completion, platform: client.id, costUsd: cost, attempts: made, trace }
              }
              const { failure } = outcome
              last = failure
              if (request.relay?.hasBegun() === true) return yield* Effect.fail(request.relay.brokenOff(failure, trace))
              if (spendsAttempt(viewOf(failure))) spent += 1
              if (endsTheCall(failure)) refusal = failure
              state = afterFailure(state, { platform: client.id, model }, failure, {
                now: endedAt,
                jitter: yield* Random.next,
                contextWindow
              })
            }
            if (refusal !== undefined) return yield* refused(refusal, trace)
            if (last === undefined || ended.every(({ outcome }) => outcome._tag === "Ignored")) return yield* tooLate()
            if (state.contenders.length === 0) {
              return yield* state.mayRecover ? nobodyLeft(state, request.deadline) : refused(last, trace)
            }
          }
          return yield* new AttemptsExhausted({
            message: `${attemptsInWords(made)} failed${lastInWords(last)}`,
            attempts: made,
            last: last === undefined ? undefined : viewOf(last),
            trace
          })
        }).pipe(
          traced("Delegation.delegate", {
            attributes: { type: request.type, priority: request.priority, tenant: request.tenant }
          })
        )

      const preview = Effect.fn("Delegation.preview")(function* (request: DelegatedCall) {
        const { call, deadline, requirement, type } = request
        const { policy, ...route } = yield* router.route(requirement, type)
        const { contenders: all, excluded } = fromRoute({ policy, ...route })
        const size = sizeOf(call)
        const maxWaitMs = Math.max(0, deadline - (yield* epochMs))
        const { affordable, unaffordable } = yield* within.now(request, all, size.inputTokens)
        const late = unaffordable.filter(({ kind }) => kind !== "never").map(({ reason }) => reason)
        const { contenders } = yield* inTime(affordable, type, (yield* monotonicMs) + maxWaitMs)
        const asked = requestOf(request, { contenders, policy, size }, { maxWaitMs, patienceMs: route.patienceMs })
        const outlook: Outlook = contenders.length === 0 ? { free: [], busy: [] } : yield* resources.outlook(asked)
        const shown = [
          ...contenders,
          ...all.filter(({ platform }) => late.some((reason) => reason.platform === platform))
        ]
        return {
          policy,
          tokens: asked.tokens,
          candidates: candidatesOf(shown, { ...outlook, busy: [...outlook.busy, ...late] }, (platform, model) =>
            Option.flatMapNullable(platforms.get(platform), ({ settings }) => maxCostOf(settings, model, requirement))
          ),
          excluded: [...excluded, ...unaffordable.filter(({ kind }) => kind === "never").map(({ reason }) => reason)],
          choice: outlook.choice,
          patientUntil: outlook.patientUntil
        } satisfies Preview
      })

      const stream = <E = never>(request: Omit<DelegationRequest<E>, "relay">) =>
        streamDelegation<E>((relayed) => delegate(relayed), request)

      return { delegate, stream, preview }
    })
  )
}
