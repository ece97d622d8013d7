import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import { Effect } from "effect"

/** Puts a text where `path` says, whole or not at all. It has that mode also where a file was there before. */
export const putFile = (
  path: string,
  text: string,
  mode = 0o600
): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const partial = `${path}.partial`
    yield* files.writeFileString(partial, text, { mode })
    // One that a crash left there keeps its mode when it is written again.
    yield* files.chmod(partial, mode)
    yield* files.rename(partial, path)
  })
