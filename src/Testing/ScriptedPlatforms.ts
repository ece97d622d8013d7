import { Chunk, Context, Effect, Layer, MutableRef, Option, Ref, Stream } from "effect"
import { gatherAnswer } from "../Delegation/Answer.js"
import type { Call, Delta } from "../Domain/Call.js"
import type { AttemptFailure } from "../Domain/Failure.js"
import type { PlatformId } from "../Domain/Platform.js"
import { type CheckResult, type PlatformClient, Platforms } from "../Platforms.js"
import { laidOver } from "../Settings/Defaults.js"
import { type PlatformSettings, Settings } from "../Settings.js"
import { answer, answerOf, type CheckStep, pass, type Script, type Step } from "./Script.js"

/** A call that a scripted platform received. */
export interface ReceivedCall {
  readonly platform: PlatformId
  readonly model: string
  readonly call: Call
  /** `open` while it is being answered. */
  readonly state: "open" | "answered" | "failed" | "broken" | "interrupted"
}

/** Calls remembered; older ones are forgotten. */
const maxReceived = 10_000

/** What the scripted platforms saw. */
export class Received extends Context.Tag("dream-team/Testing/Received")<
  Received,
  {
    /** In order of arrival, the latest 10,000. */
    readonly calls: Effect.Effect<ReadonlyArray<ReceivedCall>>
    /** Health checks of a platform so far. */
    readonly checks: (platform: string) => Effect.Effect<number>
  }
>() {}

const evenly = {
  implementation: 0.5,
  documentation: 0.5,
  testing: 0.5,
  architecture: 0.5,
  analysis: 0.5,
  "question-answering": 0.5
}

/** The settings of a scripted platform. */
export const scriptedSettings = ({ id, settings = {} }: Script): PlatformSettings =>
  Settings.platformDefaults(id, {
    ...settings,
    baseUrl: settings.baseUrl ?? `http://${id}.test/v1`,
    model: settings.model ?? `${id}-model`,
    apiKey: settings.apiKey ?? `${id}-key`,
    capabilities: settings.capabilities ?? [
      "text",
      "code",
      "vision",
      "tools",
      "json",
      "long-context",
      "reasoning",
      "streaming"
    ],
    contextWindow: settings.contextWindow ?? 128_000,
    quotasUrl: settings.quotasUrl,
    suitability: laidOver<PlatformSettings["suitability"]>(evenly, settings.suitability),
    limits: {
      requestsPerMinute: undefined,
      tokensPerMinute: undefined,
      burst: undefined,
      windowRequests: undefined,
      windowMs: undefined,
      tokensCounted: "actual",
      maxConcurrent: 4,
      ...settings.limits
    }
  })

const stepAt = <S>(steps: ReadonlyArray<S>, number: number, otherwise: S): S =>
  steps[Math.min(number, steps.length) - 1] ?? otherwise

interface Entry {
  readonly platform: PlatformId
  readonly model: string
  readonly call: Call
  state: ReceivedCall["state"]
}

const deltasOf = (step: Step, entry: Entry): Stream.Stream<Delta, AttemptFailure> => {
  const become = (state: ReceivedCall["state"]) =>
    Effect.sync(() => {
      entry.state = state
    })
  switch (step._tag) {
    case "Answer": {
      const { text, usage } = answerOf(step, entry.call)
      const body: Array<Delta> = [
        ...(text === "" ? [] : [{ _tag: "Text", text } as const]),
        ...step.toolCalls.map((toolCall) => ({ _tag: "ToolCall", toolCall }) as const)
      ]
      const finish: Delta = {
        _tag: "Finish",
        finishReason: step.isCut ? "length" : step.toolCalls.length > 0 ? "tool-calls" : "stop",
        model: entry.model,
        usage
      }
      return Stream.succeed<Delta>({ _tag: "Start", limits: step.limits }).pipe(
        Stream.concat(Stream.unwrap(Effect.as(Effect.sleep(step.firstTokenAfterMs), Stream.fromIterable(body)))),
        Stream.concat(
          Stream.fromEffect(
            Effect.sleep(step.afterMs - step.firstTokenAfterMs).pipe(
              Effect.zipRight(become("answered")),
              Effect.as(finish)
            )
          )
        )
      )
    }
    case "Fail":
      return Stream.concat(
        step.text === undefined
          ? Stream.empty
          : Stream.make<[Delta, Delta]>({ _tag: "Start", limits: [] }, { _tag: "Text", text: step.text }),
        Stream.fromEffect(
          Effect.sleep(step.afterMs).pipe(
            Effect.zipRight(become("failed")),
            Effect.zipRight(Effect.fail(step.failing(entry.platform, entry.model)))
          )
        )
      )
    case "Hang":
      return Stream.never
    case "Break":
      return Stream.fromEffect(Effect.zipRight(become("broken"), Effect.die(step.defect)))
  }
}

const checkOf = (step: CheckStep, settings: PlatformSettings): Effect.Effect<CheckResult, AttemptFailure> => {
  switch (step._tag) {
    case "Pass":
      return Effect.as(Effect.sleep(step.afterMs), step.result)
    case "Fail":
      return Effect.zipRight(Effect.sleep(step.afterMs), Effect.fail(step.failing(settings.id, settings.model)))
    case "Hang":
      return Effect.never
    case "Break":
      return Effect.die(step.defect)
  }
}

/** Platforms that do as `scripts` say, and what they saw. */
export const scriptedPlatforms = (scripts: ReadonlyArray<Script>): Layer.Layer<Platforms | Received> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const received = yield* Ref.make(Chunk.empty<Entry>())
      const checks = new Map<string, number>()

      const clientOf = (script: Script): PlatformClient => {
        const settings = scriptedSettings(script)
        let arrived = 0
        const next = (model: string, call: Call): Step => {
          arrived += 1
          const attempts = script.attempts ?? []
          return typeof attempts === "function"
            ? attempts({ number: arrived, model, call })
            : stepAt(attempts, arrived, answer(`${script.id} answers`))
        }
        const stream: PlatformClient["stream"] = (model, call) =>
          Stream.unwrapScoped(
            Effect.gen(function* () {
              const entry = yield* Effect.acquireRelease(
                Effect.sync((): Entry => ({ platform: settings.id, model, call, state: "open" })),
                (entry) =>
                  Effect.sync(() => {
                    if (entry.state === "open") entry.state = "interrupted"
                  })
              )
              yield* Ref.update(received, (entries) => Chunk.takeRight(Chunk.append(entries, entry), maxReceived))
              return deltasOf(next(model, call), entry)
            })
          )
        const client: PlatformClient = {
          id: settings.id,
          settings,
          stream,
          complete: (model, call) =>
            gatherAnswer(client, model, call, () => Effect.void, MutableRef.make(Option.none())),
          listModels: Effect.succeed([settings.model, ...Object.keys(settings.prices)]),
          check: Effect.suspend(() => {
            const number = (checks.get(script.id) ?? 0) + 1
            checks.set(script.id, number)
            const steps = script.checks ?? []
            const step = typeof steps === "function" ? steps(number) : stepAt(steps, number, pass())
            return checkOf(step, settings)
          })
        }
        return client
      }

      const all = scripts.map(clientOf)
      return Context.make(Platforms, {
        all,
        get: (id) => Option.fromNullable(all.find((client) => client.id === id))
      }).pipe(
        Context.add(Received, {
          calls: Effect.map(Ref.get(received), (entries) =>
            Chunk.toReadonlyArray(Chunk.map(entries, (entry) => ({ ...entry })))
          ),
          checks: (platform) => Effect.sync(() => checks.get(platform) ?? 0)
        })
      )
    })
  )
