import { Chunk, Effect, type Stream } from "effect"
import type { Delegated, DelegationError, DelegationRequest } from "../Delegation.js"
import type { Delta } from "../Domain/Call.js"
import { AnswerBroken, type AttemptFailure, type TraceEntry, viewOf } from "../Domain/Failure.js"
import type { PlatformId } from "../Domain/Platform.js"
import { streamOf } from "../Platforms/Stream.js"

/** Chunks of an answer that wait for a slow reader; beyond them its platform is not read any further. */
const chunksAhead = 16

/** A piece of an answer as a reader gets it: `Began` before the first token, `Ended` last, once all is settled. */
export type Piece =
  | { readonly _tag: "Began"; readonly platform: PlatformId; readonly model: string }
  | Extract<Delta, { readonly _tag: "Text" | "ToolCall" }>
  | { readonly _tag: "Ended"; readonly delegated: Delegated }

/** Whoever is given an answer while it comes. Once the first token was given no other platform may go on. */
export interface Relay<E> {
  readonly give: (
    from: { readonly platform: PlatformId; readonly model: string },
    deltas: ReadonlyArray<Delta>
  ) => Effect.Effect<void>
  readonly hasBegun: () => boolean
  /** What the failure of an attempt comes to after that. */
  readonly brokenOff: (failure: AttemptFailure, trace: ReadonlyArray<TraceEntry>) => E
}

const isToken = (delta: Delta): delta is Extract<Delta, { readonly _tag: "Text" | "ToolCall" }> =>
  delta._tag === "Text" || delta._tag === "ToolCall"

const brokenOff = (failure: AttemptFailure, trace: ReadonlyArray<TraceEntry>): AnswerBroken =>
  new AnswerBroken({
    message: `the answer of ${failure.platform} broke off: ${failure.message}`,
    platform: failure.platform,
    failure: viewOf(failure),
    trace
  })

/** The delegation in a fiber of the stream's own: who stops reading interrupts it, and with it its attempt. */
export const streamDelegation = <E>(
  delegate: (
    request: DelegationRequest<E | AnswerBroken>
  ) => Effect.Effect<Delegated, DelegationError | AnswerBroken | E>,
  request: DelegationRequest<E>
): Stream.Stream<Piece, DelegationError | AnswerBroken | E> =>
  streamOf(
    (give) =>
      Effect.suspend(() => {
        let hasBegun = false
        const relay: Relay<E | AnswerBroken> = {
          give: ({ model, platform }, deltas) => {
            const tokens: ReadonlyArray<Piece> = deltas.filter(isToken)
            if (tokens.length === 0) return Effect.void
            const pieces: ReadonlyArray<Piece> = hasBegun ? tokens : [{ _tag: "Began", platform, model }, ...tokens]
            hasBegun = true
            return give(Chunk.unsafeFromArray(pieces))
          },
          hasBegun: () => hasBegun,
          brokenOff
        }
        return delegate({ ...request, relay })
      }),
    (delegated) => Chunk.of<Piece>({ _tag: "Ended", delegated }),
    chunksAhead
  )
