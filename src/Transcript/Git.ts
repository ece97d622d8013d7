import * as Command from "@effect/platform/Command"
import type { CommandExecutor } from "@effect/platform/CommandExecutor"
import { Chunk, Effect, Option, Stream } from "effect"
import { shorten } from "./Line.js"

/** What is going on in a working folder. */
export interface GitState {
  /** `HEAD` where no branch is checked out. */
  readonly branch: string
  readonly commit: string | undefined
  /** Changed against the latest commit, as `git diff --stat` tells it; empty where nothing is. */
  readonly diffStat: string
  /** Files that git does not know; at most a hundred. */
  readonly untracked: ReadonlyArray<string>
}

/** A repository of any size answers within this, ms, or is not asked further. */
const timeout = "5 seconds"
const maxUntracked = 100
const maxOutputBytes = 256 * 1024
const maxDiffStat = 8_000

/** What a git command prints; none where it fails, is not there, or takes too long. It changes nothing, not even its index. */
const git = (
  folder: string,
  ...args: ReadonlyArray<string>
): Effect.Effect<Option.Option<string>, never, CommandExecutor> =>
  Effect.scoped(
    Effect.gen(function* () {
      const child = yield* Command.start(
        Command.make("git", "--no-optional-locks", "-C", folder, ...args).pipe(
          Command.env({ LC_ALL: "C", GIT_TERMINAL_PROMPT: "0" })
        )
      )
      let bytes = 0
      yield* Effect.forkScoped(Effect.ignore(Stream.runDrain(child.stderr)))
      const chunks = yield* child.stdout.pipe(
        Stream.takeWhile((chunk) => {
          bytes += chunk.length
          return bytes - chunk.length < maxOutputBytes
        }),
        Stream.runCollect
      )
      const text = Buffer.concat(Chunk.toReadonlyArray(chunks)).toString("utf8")
      return bytes > maxOutputBytes || (yield* child.exitCode) === 0 ? Option.some(text) : Option.none()
    })
  ).pipe(
    Effect.timeout(timeout),
    Effect.catchAll(() => Effect.succeedNone)
  )

/** None where the folder is no git repository, is gone, or git is not installed. */
export const gitState = Effect.fn("Transcript.gitState")(function* (folder: string) {
  const status = yield* git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "-z")
  if (Option.isNone(status)) return Option.none<GitState>()
  const entries = status.value.split("\0")
  const header = (name: string): string | undefined =>
    entries.find((entry) => entry.startsWith(`# ${name} `))?.slice(name.length + 3)
  const commit = header("branch.oid")
  const hasCommit = commit !== undefined && commit !== "(initial)"
  const diff = hasCommit ? yield* git(folder, "diff", "--stat=120", "HEAD") : Option.none<string>()
  const branch = header("branch.head")
  return Option.some<GitState>({
    branch: branch === undefined || branch === "(detached)" ? "HEAD" : branch,
    commit: hasCommit ? commit : undefined,
    diffStat: shorten(Option.getOrElse(diff, () => "").trim(), maxDiffStat),
    untracked: entries.flatMap((entry) => (entry.startsWith("? ") ? entry.slice(2) : [])).slice(0, maxUntracked)
  })
})
