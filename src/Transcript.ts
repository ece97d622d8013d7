import { createHash } from "node:crypto"
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import { Effect, Option, Random, Schema, Stream } from "effect"
import { boundedLines } from "./Domain/Lines.js"
import { type Conversation, makeConversationReader } from "./Transcript/Conversation.js"
import { parseLine } from "./Transcript/Line.js"

export type { Conversation, Counts, LastRequest, Todo, Turn } from "./Transcript/Conversation.js"
export { type GitState, gitState } from "./Transcript/Git.js"
export type { Block, HitLimit, MessageUsage } from "./Transcript/Line.js"
export { type Repairs, repair } from "./Transcript/Repair.js"
export { type Summary, summarize } from "./Transcript/Summary.js"

/** The transcript of a session cannot be read or kept; `message` says why. */
export class TranscriptUnavailable extends Schema.TaggedError<TranscriptUnavailable>()("TranscriptUnavailable", {
  path: Schema.String,
  message: Schema.String
}) {}

/** A transcript kept under the hash of what it holds. */
export interface KeptTranscript {
  /** SHA-256, hexadecimal. */
  readonly hash: string
  readonly bytes: number
  readonly path: string
}

/** A line longer than this is passed over as broken, bytes. */
const maxLineBytes = 32 * 1024 * 1024

const unavailable =
  (path: string, what: string) =>
  (error: PlatformError): TranscriptUnavailable =>
    new TranscriptUnavailable({ path, message: `The transcript ${path} cannot be ${what}: ${error.message}` })

/** Reads the transcript that Claude Code writes of a session. Lines that cannot be read are counted, not failed on. */
export const readTranscript: (
  path: string
) => Effect.Effect<Conversation, TranscriptUnavailable, FileSystem.FileSystem> = Effect.fn("Transcript.read")(
  function* (path) {
    const files = yield* FileSystem.FileSystem
    const reader = makeConversationReader()
    yield* files.stream(path).pipe(
      boundedLines(maxLineBytes),
      Stream.runForEach((line) =>
        Effect.sync(() => {
          if (line === undefined) return reader.addBroken()
          const json = line.toString("utf8")
          if (json.trim() === "") return
          Option.match(parseLine(json), {
            onNone: reader.addBroken,
            onSome: ({ line, origin }) => reader.add(line, origin)
          })
        })
      ),
      Effect.mapError(unavailable(path, "read"))
    )
    return reader.conversation()
  }
)

/**
 * Copies a transcript into `folder` under the hash of its content, as it is at this moment: the same content is kept once.
 * The copy is whole or not there, and readable by its owner alone.
 */
export const keepTranscript: (
  path: string,
  folder: string
) => Effect.Effect<KeptTranscript, TranscriptUnavailable, FileSystem.FileSystem> = Effect.fn("Transcript.keep")(
  function* (path, folder) {
    const files = yield* FileSystem.FileSystem
    const unique = yield* Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER)
    const partial = `${folder}/.${unique.toString(36)}.partial`
    const hash = createHash("sha256")
    let bytes = 0
    const copy = Effect.gen(function* () {
      yield* files.makeDirectory(folder, { recursive: true, mode: 0o700 })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const target = yield* files.open(partial, { flag: "wx", mode: 0o600 })
          yield* Stream.runForEach(files.stream(path), (chunk) => {
            hash.update(chunk)
            bytes += chunk.length
            return target.writeAll(chunk)
          })
          yield* target.sync
        })
      )
      const digest = hash.digest("hex")
      const kept = `${folder}/${digest}.jsonl`
      yield* files.rename(partial, kept)
      return { hash: digest, bytes, path: kept }
    })
    return yield* copy.pipe(
      Effect.tapErrorCause(() => Effect.ignore(files.remove(partial, { force: true }))),
      Effect.onInterrupt(() => Effect.ignore(files.remove(partial, { force: true }))),
      Effect.mapError(unavailable(path, "kept"))
    )
  }
)
