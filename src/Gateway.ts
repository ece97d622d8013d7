import { Array as Arr, Chunk, Clock, Context, Effect, Either, Layer, Option, Schema, Stream } from "effect"
import { filter } from "./AgentRouter/Requirement.js"
import { Budgets } from "./Budgets.js"
import { makeTaskIds } from "./Coordinator/Ids.js"
import { type Delegated, Delegation, type DelegationRequest, type Journal, type Piece } from "./Delegation.js"
import type { ServiceUnavailable } from "./Domain/ApiError.js"
import { type Call, type Completion, estimateInputTokens, type ToolCall } from "./Domain/Call.js"
import { type AnswerBroken, NoCapablePlatform } from "./Domain/Failure.js"
import type { Requirement } from "./Domain/Lease.js"
import type { Capability, PlatformId } from "./Domain/Platform.js"
import { HandoffId } from "./Domain/Session.js"
import type { Priority, TaskType, TenantId } from "./Domain/Task.js"
import * as Answered from "./Gateway/Answered.js"
import { ContextTooLong, failureOf, firstBack, goesOn, type Miss, type Missed } from "./Gateway/Chain.js"
import { format, offered, parse, resolve, type Target } from "./Gateway/ModelName.js"
import { Platforms } from "./Platforms.js"
import { HandoffStore } from "./SessionStore/Handoffs.js"
import { Settings } from "./Settings.js"

export type { AnsweredBy } from "./Gateway/Answered.js"

/** How long an interactive call may take in all, ms. */
export const interactiveDeadlineMs = 10 * 60_000
/** How long an answer is held back for the note of who gave it, ms. */
const noteMs = 1_000
const isHandoffId = Schema.is(HandoffId)
/** How long an alternative of a chain is waited for before the next one is asked, ms. */
const linkWaitMs = 2_000
/** A call that does not fit with the longest answer it allows is made with a shorter one, but not below this, tokens. */
const minAnswerTokens = 1_024

/** The name in `model` is none, or nobody is known to serve it. */
export class ModelNotFound extends Schema.TaggedError<ModelNotFound>()("ModelNotFound", {
  message: Schema.String,
  model: Schema.String
}) {}

/** A call that somebody waits for. */
export interface GatewayRequest {
  /** Who is to answer, as `Gateway/ModelName` reads it. */
  readonly model: string
  readonly call: Call
  readonly tenant: TenantId
  /** Default `HIGH`. */
  readonly priority?: Priority | undefined
  /** What routing goes by; default `question-answering`. */
  readonly type?: TaskType | undefined
}

/** A whole answer. */
export interface GatewayAnswer {
  /** UUID of the call. */
  readonly id: string
  readonly platform: PlatformId
  /** The model that answered, as the platform names it. */
  readonly model: string
  /** The ids of its tool calls are unique over all calls. */
  readonly completion: Completion
  /** At list prices; absent where the model has none. */
  readonly costUsd?: number | undefined
  readonly attempts: number
}

/** A piece of an answer: `Began` before its first token, `Ended` last. */
export type GatewayPiece =
  | { readonly _tag: "Began"; readonly id: string; readonly platform: PlatformId; readonly model: string }
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "ToolCall"; readonly toolCall: ToolCall }
  | { readonly _tag: "Ended"; readonly answer: GatewayAnswer }

export type GatewayError = ModelNotFound | ServiceUnavailable | Miss

type Failed = Miss | ServiceUnavailable | AnswerBroken

const capabilitiesOf = ({ messages, responseFormat, tools = [] }: Call): ReadonlyArray<Capability> => {
  const hasImage = messages.some(
    ({ content }) => typeof content !== "string" && content.some(({ type }) => type === "image")
  )
  return [
    ...(hasImage ? (["vision"] as const) : []),
    ...(tools.length > 0 ? (["tools"] as const) : []),
    ...(responseFormat?.type === "json" ? (["json"] as const) : [])
  ]
}

/** That nobody else was meant says nothing of why the one that was cannot. */
const ofItsOwn = ({ message, reasons }: NoCapablePlatform, { platform }: Target): NoCapablePlatform =>
  platform === undefined
    ? new NoCapablePlatform({ message, reasons })
    : new NoCapablePlatform({
        message: `${platform} cannot serve this call`,
        reasons: reasons.filter((reason) => reason.platform === platform)
      })

/**
 * The alternatives one after the other, until one answers. Where none can now, the one that can first is waited for; one
 * alone is waited for at once. Nobody else is asked once a piece of an answer was given.
 */
const inTurn = <A>(
  targets: Arr.NonEmptyReadonlyArray<Target>,
  deadline: number,
  ask: (target: Target, maxWaitMs: number) => Stream.Stream<A, Failed>
): Stream.Stream<A, Failed> => {
  const [only] = targets
  if (targets.length === 1) return ask(only, interactiveDeadlineMs)
  const next = (
    target: Target,
    later: ReadonlyArray<Target>,
    before: ReadonlyArray<Missed>
  ): Stream.Stream<A, Failed> =>
    Stream.catchAll(ask(target, linkWaitMs), (error) => {
      if (error._tag === "ServiceUnavailable" || error._tag === "AnswerBroken" || !goesOn(error)) {
        return Stream.fail(error)
      }
      const missed = Arr.append(before, { target, error })
      const [following, ...rest] = later
      if (following !== undefined) return next(following, rest, missed)
      return Option.match(firstBack(missed, deadline), {
        onNone: () => Stream.fail(failureOf(missed, deadline)),
        onSome: (back) => ask(back, interactiveDeadlineMs)
      })
    })
  const [, ...later] = targets
  return next(only, later, [])
}

/** Interactive calls: one answer now, whole or piece by piece, through the same delegation as every task's. */
export class Gateway extends Context.Tag("dream-team/Gateway")<
  Gateway,
  {
    /**
     * The first alternative of the model's name that can answer does. The next one is asked only where the ones before it
     * cannot now; all of it within ten minutes. Where nobody can, the call waits for the one that can first.
     */
    readonly complete: (request: GatewayRequest) => Effect.Effect<GatewayAnswer, GatewayError | AnswerBroken>
    /** The same while it comes. After its first piece nobody else goes on: it fails with `AnswerBroken`. */
    readonly stream: (request: GatewayRequest) => Stream.Stream<GatewayPiece, GatewayError | AnswerBroken>
    /** Names that may stand in `model`, `auto` first. */
    readonly models: Effect.Effect<ReadonlyArray<{ readonly name: string; readonly owner: string }>>
    /**
     * Who answered the calls that were made with `#tag` in their model's name, oldest first: the newest 1,000 tags and 100
     * answers of each, since this process started. Where the tag is a hand-off's id, the newest is kept in its row as well.
     */
    readonly answeredBy: (tag: string) => Effect.Effect<ReadonlyArray<Answered.AnsweredBy>>
  }
>() {
  static readonly layer: Layer.Layer<Gateway, never, Budgets | Delegation | Platforms | Settings> = Layer.effect(
    Gateway,
    Effect.gen(function* () {
      const budgets = yield* Budgets
      const delegation = yield* Delegation
      const platforms = (yield* Platforms).all.map(({ settings }) => settings)
      const { tasks } = yield* Settings
      const nextId = yield* makeTaskIds
      const answered = Answered.make()
      const handoffs = yield* Effect.serviceOption(HandoffStore)

      const targetsOf = (model: string) =>
        Either.gen(function* () {
          const name = yield* Either.mapLeft(
            parse(model),
            (problem) =>
              new ModelNotFound({ model, message: `The model's name \`${model}\` cannot be read: ${problem}` })
          )
          const read = name.links.map((link) => ({ link, target: resolve(link, platforms) }))
          const targets = read.flatMap(({ target }) => (Either.isRight(target) ? [target.right] : []))
          if (Arr.isNonEmptyArray(targets)) return { targets, tag: name.tag }
          const why = read.flatMap(({ link, target }) => (Either.isLeft(target) ? [`${link}: ${target.left}`] : []))
          return yield* Either.left(
            new ModelNotFound({
              model,
              message: `The model \`${format({ links: name.links })}\` does not exist here. ${why.join("; ")}. GET /v1/models lists what there is`
            })
          )
        })

      /** What one alternative is asked; its answer is bounded by what is left of its window. */
      const requirementOf = (
        { call, tenant }: GatewayRequest,
        { model, platform }: Target,
        tag: string | undefined
      ): Requirement => {
        const inputTokens = estimateInputTokens(call)
        const wanted = call.maxOutputTokens ?? tasks.maxOutputTokens
        const requirement = {
          capabilities: capabilitiesOf(call),
          model,
          platform,
          // one tenant's tag says nothing of another's
          affinityKey: tag === undefined ? undefined : `${tenant}/${tag}`
        }
        const { able } = filter(platforms, { ...requirement, contextTokens: 0 })
        const room = Math.max(0, ...able.map(({ settings }) => settings.contextWindow)) - inputTokens
        const outputTokens = room >= Math.min(wanted, minAnswerTokens) ? Math.min(wanted, room) : wanted
        return { ...requirement, contextTokens: inputTokens + outputTokens, inputTokens, outputTokens }
      }

      /**
       * The call as an alternative gets it. A temperature is a wish: 1 is what they all start from, and OpenAI's reasoning
       * models refuse a call that has one (https://platform.openai.com/docs/guides/reasoning).
       */
      const callFor = ({ call }: GatewayRequest, requirement: Requirement): Call => {
        const mayRefuse = filter(platforms, requirement).able.some(
          ({ settings }) => settings.wire === "openai-responses"
        )
        return {
          ...call,
          maxOutputTokens: requirement.outputTokens,
          temperature: mayRefuse || call.temperature === 1 ? undefined : call.temperature
        }
      }

      /** Set where nothing but its length keeps everybody from serving it. */
      const tooLongFor = (requirement: Requirement): ContextTooLong | undefined => {
        if (filter(platforms, requirement).able.length > 0) return undefined
        const able = filter(platforms, { ...requirement, contextTokens: 0 }).able.map(({ settings }) => settings)
        return able.length === 0
          ? undefined
          : new ContextTooLong({
              message: `the call may need ${requirement.contextTokens} tokens, more than any platform that could serve it holds`,
              reasons: filter(able, requirement).excluded
            })
      }

      /** The call, made ready: one identity, one deadline, one count of attempts over all alternatives. */
      const prepare = (request: GatewayRequest) =>
        Effect.gen(function* () {
          const { tag, targets } = yield* targetsOf(request.model)
          const id = yield* nextId
          const deadline = (yield* Clock.currentTimeMillis) + interactiveDeadlineMs
          let attempts = 0
          const journal: Journal<ServiceUnavailable> = {
            attemptStarted: ({ booking, number }) => {
              attempts = number
              return budgets.book(booking)
            },
            attemptEnded: ({ correction }) => budgets.book(correction)
          }
          /** Asks one alternative, where the call fits anybody whom it means. */
          const ask =
            <A>(made: (asked: DelegationRequest<ServiceUnavailable>) => Stream.Stream<A, Failed>) =>
            (target: Target, maxWaitMs: number): Stream.Stream<A, Failed> => {
              const requirement = requirementOf(request, target, tag)
              const tooLong = tooLongFor(requirement)
              if (tooLong !== undefined) return Stream.fail(tooLong)
              const answer = Stream.suspend(() =>
                made({
                  id,
                  call: callFor(request, requirement),
                  requirement,
                  type: request.type ?? "question-answering",
                  priority: request.priority ?? "HIGH",
                  tenant: request.tenant,
                  deadline,
                  attemptsMade: attempts,
                  attemptsSpent: 0,
                  maxWaitMs,
                  journal
                })
              )
              return Stream.mapError(answer, (error) =>
                error._tag === "NoCapablePlatform" ? ofItsOwn(error, target) : error
              )
            }
          return { id, tag, answer: <A>(made: Parameters<typeof ask<A>>[0]) => inTurn(targets, deadline, ask(made)) }
        })

      /** Ids of a platform's own need not be unique beyond one answer, nor made of what other formats allow. */
      const ownId = (id: string, toolCall: ToolCall, index: number): ToolCall => ({
        ...toolCall,
        id: `call_${id.replaceAll("-", "").slice(4)}_${index}`
      })

      /** Notes who answered; of a hand-off in its row too, which outlives this process. No answer is lost for that. */
      const note = Effect.fnUntraced(function* (tag: string, platform: PlatformId, model: string) {
        answered.note(tag, { platform, model, at: yield* Clock.currentTimeMillis })
        if (Option.isNone(handoffs) || !isHandoffId(tag)) return
        yield* handoffs.value.answered(tag, `${platform}/${model}`).pipe(
          Effect.timeout(noteMs),
          Effect.catchAll(({ message }) => Effect.logDebug(`Who answered a hand-off was not stored: ${message}`))
        )
      })

      /** The answer as its caller gets it; noted, where the caller has a tag. */
      const answerOf = (
        id: string,
        tag: string | undefined,
        { attempts, completion, costUsd, platform }: Delegated
      ) => {
        const { model } = completion
        const toolCalls = completion.toolCalls.map((toolCall, index) => ownId(id, toolCall, index))
        const answer: GatewayAnswer = {
          id,
          platform,
          model,
          completion: { ...completion, toolCalls },
          costUsd,
          attempts
        }
        return tag === undefined ? Effect.succeed(answer) : Effect.as(note(tag, platform, model), answer)
      }

      const complete = Effect.fn("Gateway.complete")(function* (request: GatewayRequest) {
        const { answer, id, tag } = yield* prepare(request)
        const delegated = yield* answer((asked) => Stream.fromEffect(delegation.delegate(asked))).pipe(
          Stream.runHead,
          Effect.map(Option.getOrThrow)
        )
        return yield* answerOf(id, tag, delegated)
      })

      const stream: Gateway["Type"]["stream"] = (request) =>
        Stream.unwrap(
          Effect.map(prepare(request), ({ answer, id, tag }) => {
            let toolCalls = 0
            const shown = (piece: Piece): Effect.Effect<GatewayPiece> => {
              switch (piece._tag) {
                case "Began":
                  return Effect.succeed({ ...piece, id })
                case "Text":
                  return Effect.succeed(piece)
                case "ToolCall":
                  return Effect.succeed({ _tag: "ToolCall", toolCall: ownId(id, piece.toolCall, toolCalls++) })
                case "Ended":
                  return Effect.map(answerOf(id, tag, piece.delegated), (answer) => ({ _tag: "Ended", answer }))
              }
            }
            return answer(delegation.stream<ServiceUnavailable>).pipe(
              Stream.mapChunksEffect((pieces) => Effect.map(Effect.forEach(pieces, shown), Chunk.unsafeFromArray)),
              Stream.withSpan("Gateway.stream", { captureStackTrace: false })
            )
          })
        )

      return {
        complete,
        stream,
        models: Effect.succeed(offered(platforms)),
        answeredBy: (tag) => Effect.sync(() => answered.of(tag))
      }
    })
  )
}
