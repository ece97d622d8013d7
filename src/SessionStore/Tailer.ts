import { open, readdir, stat } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import type { SqlError } from "@effect/sql/SqlError"
import { Array as Arr, Clock, Effect, Order, Schema } from "effect"
import { SessionId } from "../Domain/Session.js"
import { merged, parsed, reportOfTranscriptLine } from "../Feed/Report.js"
import { type SessionReport, SessionStore, SessionsSql, SessionsUnavailable } from "../SessionStore.js"
import { looks } from "./Looks.js"

/** Read at once; a longer line whole as well, up to so much. What is longer still is passed over. */
const chunkBytes = 512 * 1024
const lineBytes = 8 * 1024 * 1024
/** Read in one pass, of all files together; the next pass goes on. */
const passBytes = 8 * 1024 * 1024
/** And of one file, so that the others are not kept waiting. */
const fileBytes = 2 * 1024 * 1024
/** Transcripts that changed less recently are not looked at, ms. */
const recentMs = 24 * 60 * 60_000
/** How long what was read of a file is remembered. After that it is read again, which changes nothing. */
const keptMs = 30 * 24 * 60 * 60_000
/** How often folders are searched for transcripts that no feed told of, ms. */
const searchMs = 60_000
const maxFiles = 300
/** Folders and files looked at by one search. */
const maxLooks = 5_000

/** A transcript: a session's own, or one of a subagent of it. */
interface Followed {
  readonly path: string
  readonly account: string
  readonly sessionId: SessionId
}

interface Position {
  readonly inode: number
  readonly position: number
  /** Whether it lies within a line that is passed over. */
  readonly isInside: boolean
  /** How large the file was when nothing but half a line was left of it; that is not read again until there is more. */
  readonly halfAt?: number | undefined
}

const isSessionId = Schema.is(SessionId)

const namesIn = (folder: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.orElseSucceed(
    Effect.tryPromise(() => readdir(folder)),
    () => []
  )

const statOf = (path: string) =>
  Effect.orElseSucceed(
    Effect.tryPromise(() => stat(path)),
    () => undefined
  )

const readAt = (path: string, position: number, length: number): Effect.Effect<Buffer> =>
  Effect.tryPromise(async () => {
    const file = await open(path, "r")
    try {
      const buffer = Buffer.alloc(length)
      const { bytesRead } = await file.read(buffer, 0, length, position)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  }).pipe(Effect.orElseSucceed(() => Buffer.alloc(0)))

const newline = 0x0a

/** What a line holds that tells anything; what tools answered is long and holds none of it. */
const isTelling = (line: string): boolean =>
  line.length < chunkBytes || line.includes('"usage"') || line.includes('"quotaLimits"')

export interface TailerOptions {
  /** Configuration folders that are searched besides those of the sessions that are known. */
  readonly accounts: ReadonlyArray<string>
}

/**
 * Reads what is new in the transcripts of sessions: what their answers used, and refusals with their windows and resets.
 * It is the backstop of the feeds, and finds sessions of which these told nothing. How far each file was read is stored
 * with what was read there. A file that was replaced or cut is read from its beginning, half a line at its end once it
 * is whole; what was counted already is not counted again.
 */
export const makeTailer = Effect.fn("Tailer.make")(function* ({ accounts }: TailerOptions) {
  const sql = yield* SessionsSql
  const store = yield* SessionStore
  const positions = new Map<string, Position>()
  let found: ReadonlyArray<Followed> = []
  let searchedAt: number | undefined

  const available = <A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SessionsUnavailable> =>
    Effect.mapError(effect, SessionsUnavailable.by)

  const ofSubagents = ({ account, path, sessionId }: Followed): Effect.Effect<ReadonlyArray<Followed>> => {
    const folder = join(dirname(path), sessionId, "subagents")
    return Effect.map(namesIn(folder), (names) =>
      names.filter((name) => name.endsWith(".jsonl")).map((name) => ({ path: join(folder, name), account, sessionId }))
    )
  }

  const search = Effect.fnUntraced(function* (folders: ReadonlyArray<string>, now: number) {
    const recent: Array<{ readonly transcript: Followed; readonly changedAt: number }> = []
    let looks = 0
    for (const account of folders) {
      for (const project of yield* namesIn(join(account, "projects"))) {
        const folder = join(account, "projects", project)
        for (const name of yield* namesIn(folder)) {
          const sessionId = name.endsWith(".jsonl") ? basename(name, ".jsonl") : ""
          if (!isSessionId(sessionId)) continue
          if (++looks > maxLooks) break
          const path = join(folder, name)
          const changedAt = (yield* statOf(path))?.mtimeMs ?? 0
          if (now - changedAt <= recentMs) recent.push({ transcript: { path, account, sessionId }, changedAt })
        }
      }
    }
    return Arr.take(
      Arr.sort(
        recent,
        Order.mapInput(Order.reverse(Order.number), ({ changedAt }: { readonly changedAt: number }) => changedAt)
      ),
      maxFiles
    ).map(({ transcript }) => transcript)
  })

  const followed = Effect.fnUntraced(function* (now: number) {
    const known = (yield* store.list({ limit: maxFiles })).filter(({ updatedAt }) => now - updatedAt <= recentMs)
    if (searchedAt === undefined || now - searchedAt >= searchMs || now < searchedAt) {
      searchedAt = now
      found = yield* search([...new Set([...accounts, ...known.map(({ account }) => account)])], now)
      yield* available(sql`DELETE FROM transcripts WHERE updated_at < ${now - keptMs}`)
    }
    const transcripts = new Map<string, Followed>()
    for (const { account, id, transcriptPath } of known) {
      if (transcriptPath !== undefined)
        transcripts.set(transcriptPath, { path: transcriptPath, account, sessionId: id })
    }
    for (const transcript of found) transcripts.set(transcript.path, transcript)
    const subagents = yield* Effect.forEach(transcripts.values(), ofSubagents)
    return Arr.take([...transcripts.values(), ...subagents.flat()], 4 * maxFiles)
  })

  const positionOf = Effect.fnUntraced(function* (path: string) {
    const known = positions.get(path)
    if (known !== undefined) return known
    const [row] = yield* available(
      sql<{ readonly inode: number; readonly position: number }>`
        SELECT inode, position FROM transcripts WHERE path = ${path}`
    )
    return row === undefined ? undefined : { ...row, isInside: false }
  })

  /** Whether what lies before the position is still the end of a line. */
  const isIntact = ({ isInside, position }: Position, path: string): Effect.Effect<boolean> =>
    isInside || position === 0
      ? Effect.succeed(true)
      : Effect.map(readAt(path, position - 1, 1), (byte) => byte[0] === newline)

  const readOn = Effect.fnUntraced(function* (transcript: Followed, budget: number, now: number) {
    const { path } = transcript
    const file = yield* statOf(path)
    if (file === undefined || !file.isFile()) return 0
    const before = yield* positionOf(path)
    const isSame =
      before !== undefined &&
      before.inode === file.ino &&
      before.position <= file.size &&
      (before.position === file.size || (yield* isIntact(before, path)))
    if (isSame && before.halfAt === file.size) return 0
    let { isInside, position } = isSame ? before : { isInside: false, position: 0 }
    let halfAt: number | undefined
    const start = position
    const reports: Array<SessionReport> = []
    while (position < file.size && position - start < budget) {
      let wanted = Math.min(chunkBytes, file.size - position)
      let chunk = yield* readAt(path, position, wanted)
      while (!isInside && !chunk.includes(newline) && chunk.length === wanted && wanted < lineBytes) {
        const more = Math.min(2 * wanted, lineBytes, file.size - position)
        if (more === wanted) break
        wanted = more
        chunk = yield* readAt(path, position, wanted)
      }
      const first = isInside ? chunk.indexOf(newline) + 1 : 0
      const last = chunk.lastIndexOf(newline) + 1
      if (last === 0) {
        // Half a line is left until it is whole.
        if (chunk.length < lineBytes && !isInside) {
          halfAt = file.size
          break
        }
        if (chunk.length === 0) break
        isInside = true
        position += chunk.length
        continue
      }
      for (const line of chunk.subarray(first, last).toString("utf8").split("\n")) {
        if (line === "" || !isTelling(line)) continue
        const told = reportOfTranscriptLine(parsed(line), {
          at: now,
          account: transcript.account,
          sessionId: transcript.sessionId,
          transcriptPath: path.endsWith(`${transcript.sessionId}.jsonl`) ? path : undefined
        })
        if (told !== undefined) reports.push(told)
      }
      isInside = false
      position += last
      yield* Effect.yieldNow()
    }
    if (isSame && position === start) {
      positions.set(path, { ...before, halfAt })
      return 0
    }
    const reached = { inode: file.ino, position, isInside, halfAt }
    const report = merged(reports)
    yield* sql
      .withTransaction(
        Effect.zipRight(
          report === undefined ? Effect.void : store.record(report),
          sql`INSERT INTO transcripts (path, inode, position, updated_at)
              VALUES (${path}, ${reached.inode}, ${reached.position}, ${now})
              ON CONFLICT (path) DO UPDATE SET
                inode = excluded.inode, position = excluded.position, updated_at = excluded.updated_at`
        )
      )
      .pipe(Effect.catchTag("SqlError", (error) => SessionsUnavailable.by(error)))
    positions.set(path, reached)
    return position - start
  })

  return {
    /** Reads what is new, within a bound; answers how many bytes that were. */
    pass: Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const transcripts = yield* followed(now)
      const paths = new Set(transcripts.map(({ path }) => path))
      for (const path of positions.keys()) if (!paths.has(path)) positions.delete(path)
      let bytes = 0
      for (const transcript of transcripts) {
        if (bytes >= passBytes) break
        bytes += yield* readOn(transcript, Math.min(fileBytes, passBytes - bytes), now)
      }
      return bytes
    }).pipe(Effect.withSpan("Tailer.pass"))
  }
})

/** Follows the transcripts until it is interrupted; what fails is tried again at the next look. */
export const runTailer = ({
  accounts,
  everyMs
}: TailerOptions & { readonly everyMs: number }): Effect.Effect<never, never, SessionStore | SessionsSql> =>
  Effect.flatMap(makeTailer({ accounts }), ({ pass }) =>
    looks(pass, { everyMs, trouble: "Transcripts are not followed now" })
  )
