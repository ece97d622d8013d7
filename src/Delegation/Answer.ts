import { Chunk, Effect, Either, MutableRef, Option } from "effect"
import type { Call, Completion, Delta, LimitReading, ToolCall } from "../Domain/Call.js"
import { type AttemptFailure, PlatformFailure } from "../Domain/Failure.js"
import { monotonicMs } from "../Domain/Time.js"
import type { Usage } from "../Domain/Usage.js"
import { streamWithin } from "../Platforms/Patience.js"
import type { PlatformClient } from "../Platforms.js"
import type { Relay } from "./Stream.js"

/** A client of a program's own may have estimated what it tells; books are kept in whole tokens. */
const wholeUsage = (usage: Usage): Either.Either<Usage, string> => {
  const { cachedInputTokens, inputTokens, outputTokens, reasoningTokens } = usage
  const counts = { inputTokens, cachedInputTokens, outputTokens, reasoningTokens }
  for (const [name, count] of Object.entries(counts)) {
    if (!(count >= 0 && count <= Number.MAX_SAFE_INTEGER)) {
      return Either.left(`its usage has ${count} as ${name}, which is no number of tokens`)
    }
  }
  return Either.right({
    inputTokens: Math.ceil(inputTokens),
    cachedInputTokens: Math.ceil(cachedInputTokens),
    outputTokens: Math.ceil(outputTokens),
    reasoningTokens: Math.ceil(reasoningTokens)
  })
}

/**
 * Streams one answer and gathers it whole. `firstTokenAt` is set (monotonic ms) when its first piece is there; `soFar`
 * holds the text that has come, for whoever wants it although the answer breaks off. `relay` gets each piece at once; how
 * long it held up the reading of the next one is in `soFar` too, ms.
 */
export const gatherAnswer = (
  client: PlatformClient,
  model: string,
  call: Call,
  onStart: (limits: ReadonlyArray<LimitReading>) => Effect.Effect<void>,
  firstTokenAt: MutableRef.MutableRef<Option.Option<number>>,
  soFar: { text: string; heldUpMs: number } = { text: "", heldUpMs: 0 },
  relay?: Pick<Relay<unknown>, "give"> | undefined
): Effect.Effect<Completion, AttemptFailure> =>
  Effect.suspend(() => {
    const toolCalls: Array<ToolCall> = []
    let finish: Extract<Delta, { _tag: "Finish" }> | undefined
    let hasToken = false

    const noteFirstToken = Effect.flatMap(monotonicMs, (now) => {
      MutableRef.set(firstTokenAt, Option.some(now))
      return Effect.void
    })

    // By chunks: an answer may come in thousands of pieces, and an effect for each would cost more than the answer.
    const take = (deltas: Iterable<Delta>): Effect.Effect<void> => {
      let onHeaders: Effect.Effect<void> | undefined
      const hadToken = hasToken
      for (const delta of deltas) {
        switch (delta._tag) {
          case "Start":
            onHeaders = onStart(delta.limits)
            break
          case "Text":
            soFar.text += delta.text
            hasToken = true
            break
          case "ToolCall":
            toolCalls.push(delta.toolCall)
            hasToken = true
            break
          case "Finish":
            finish = delta
        }
      }
      if (!hasToken || hadToken) return onHeaders ?? Effect.void
      return onHeaders === undefined ? noteFirstToken : Effect.zipRight(onHeaders, noteFirstToken)
    }

    const takeAndGive = (to: Pick<Relay<unknown>, "give">) => (deltas: Chunk.Chunk<Delta>) =>
      Effect.gen(function* () {
        yield* take(deltas)
        const before = yield* monotonicMs
        yield* to.give({ platform: client.id, model }, Chunk.toReadonlyArray(deltas))
        soFar.heldUpMs += (yield* monotonicMs) - before
      })

    const malformed = (message: string) =>
      new PlatformFailure({ platform: client.id, model, reason: "malformed", message })

    const answer = (): Effect.Effect<Completion, AttemptFailure> => {
      if (finish === undefined) return malformed("the stream ended before the answer was complete")
      const usage = wholeUsage(finish.usage)
      if (usage._tag === "Left") return malformed(usage.left)
      return Effect.succeed({
        text: soFar.text,
        toolCalls,
        finishReason: finish.finishReason,
        model: finish.model,
        usage: usage.right
      })
    }

    const each = relay === undefined ? take : takeAndGive(relay)
    const read =
      client.streamTo === undefined ? streamWithin(client, model, call, each) : client.streamTo(model, call, each)
    return Effect.flatMap(read, answer)
  })
