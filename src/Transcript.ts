import { createHash } from "node:crypto"
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import { Effect, Option, Random, Schema, Stream } from "effect"
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

const newline = 10

const unavailable =
  (path: string, what: string) =>
  (error: PlatformError): TranscriptUnavailable =>
    new TranscriptUnavailable({ path, message: `The transcript ${path} cannot be ${what}: ${error.message}` })

/** The lines of a file, without those that are too long; `onLost` is told of each of these. */
const linesOf = (
  bytes: Stream.Stream<Uint8Array, PlatformError>,
  onLine: (line: string) => void,
  onLost: () => void
): Effect.Effect<void, PlatformError> =>
  Effect.suspend(() => {
    let parts: Array<Uint8Array> = []
    let size = 0
    const take = (part: Uint8Array): void => {
      size += part.length
      if (size <= maxLineBytes) parts.push(part)
      else parts = []
    }
    const end = (): void => {
      if (size > maxLineBytes) onLost()
      else if (size > 0) onLine(Buffer.concat(parts).toString("utf8"))
      parts = []
      size = 0
    }
    return Stream.runForEach(bytes, (chunk) =>
      Effect.sync(() => {
        let from = 0
        for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
          take(chunk.subarray(from, at))
          end()
          from = at + 1
        }
        take(chunk.subarray(from))
      })
    ).pipe(Effect.zipRight(Effect.sync(end)))
  })

/** Reads the transcript that Claude Code writes of a session. Lines that cannot be read are counted, not failed on. */
export const readTranscript: (
  path: string
) => Effect.Effect<Conversation, TranscriptUnavailable, FileSystem.FileSystem> = Effect.fn("Transcript.read")(
  function* (path) {
    const files = yield* FileSystem.FileSystem
    const reader = makeConversationReader()
    yield* linesOf(
      files.stream(path),
      (json) => {
        if (json.trim() === "") return
        Option.match(parseLine(json), {
          onNone: reader.addBroken,
          onSome: ({ line, origin }) => reader.add(line, origin)
        })
      },
      reader.addBroken
    ).pipe(Effect.mapError(unavailable(path, "read")))
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
