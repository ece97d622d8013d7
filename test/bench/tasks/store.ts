import { spawn } from "node:child_process"
import { once } from "node:events"
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { Effect, Schema } from "effect"
import { build } from "esbuild"
import { median } from "../support/Figures.js"

/** One figure, beside what it is compared with in the same run. */
export interface BenchRow {
  readonly name: string
  readonly value: number
  readonly unit: string
  readonly baseline?: number
  /** Of value to baseline. */
  readonly ratio?: number
  readonly target?: string
  readonly met?: boolean
}

/** Bundles the worker as the product is, below the project, which brings what is not bundled. */
const bundled = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = resolve(`node_modules/.cache/dream-team-bench/${process.pid}`)
    mkdirSync(folder, { recursive: true })
    const outfile = join(folder, "worker.mjs")
    await build({
      entryPoints: [resolve("test/bench/tasks/storeWorker.ts")],
      outfile,
      bundle: true,
      format: "esm",
      platform: "node",
      target: "node20",
      logLevel: "error",
      external: ["better-sqlite3", "@parcel/watcher", "msgpackr-extract"],
      banner: {
        js: 'import{createRequire as benchRequire}from"node:module";const require=benchRequire(import.meta.url);'
      }
    })
    return { folder, outfile }
  }),
  ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

const runWorker = async (worker: string, args: ReadonlyArray<string | number>): Promise<unknown> => {
  const child = spawn(process.execPath, [worker, ...args.map(String)], { stdio: ["ignore", "pipe", "inherit"] })
  let text = ""
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString()
  })
  const [code] = await once(child, "close")
  if (code !== 0) throw new Error(`${args[0]} ended with ${code}`)
  return JSON.parse(text)
}

type Run = <A>(schema: Schema.Schema<A>, ...args: ReadonlyArray<string | number>) => Effect.Effect<A>

const inserting = (run: Run, folder: string): Effect.Effect<ReadonlyArray<BenchRow>> =>
  Effect.gen(function* () {
    const database = join(folder, "insert.db")
    const rounds = 5
    let from = 0
    const perSecond = (what: "insert" | "raw", tasks: number, fibers = 0) =>
      Effect.suspend(() => {
        const first = from
        from += tasks
        return run(Schema.Number, what, database, first, tasks, fibers)
      })
    yield* perSecond("insert", 500, 64)
    const figures: Array<{ readonly raw: number; readonly one: number; readonly some: number; readonly many: number }> =
      []
    for (let round = 0; round < rounds; round++) {
      figures.push({
        raw: yield* perSecond("raw", 1_500),
        one: yield* perSecond("insert", 1_000, 1),
        some: yield* perSecond("insert", 8_000, 64),
        many: yield* perSecond("insert", 8_000, 1_024)
      })
    }
    const row = (fibers: number, of: (figure: (typeof figures)[number]) => number, target?: number): BenchRow => {
      // Each round is compared with itself: what else the machine does changes from one to the next.
      const ratio = median(figures.map((figure) => of(figure) / figure.raw))
      return {
        name: `TaskStore.insert, ${fibers} ${fibers === 1 ? "fiber" : "fibers"}, beside one commit per row`,
        value: median(figures.map(of)),
        unit: "tasks/s",
        baseline: median(figures.map(({ raw }) => raw)),
        ratio,
        ...(target === undefined ? {} : { target: `>= ${target}`, met: ratio >= target })
      }
    }
    return [row(1, ({ one }) => one), row(64, ({ some }) => some, 3), row(1_024, ({ many }) => many)]
  })

const Drained = Schema.Struct({ cpuMs: Schema.Number, rssMb: Schema.Number })
type Drained = typeof Drained.Type

const draining = (run: Run, folder: string): Effect.Effect<ReadonlyArray<BenchRow>> =>
  Effect.gen(function* () {
    // A single one says little: when the garbage collector comes makes more difference than the queue.
    const rounds = 9
    const filled = join(folder, "filled.db")
    const few = join(folder, "few.db")
    const many = join(folder, "many.db")
    yield* run(Schema.Number, "fill", filled, 10_000)
    yield* run(Schema.Number, "fill", many, 1_000_000)
    const pairs: Array<{ readonly few: Drained; readonly many: Drained }> = []
    for (let round = 0; round < rounds; round++) {
      // Each round takes about 5,000 away, which only of the smaller one is much.
      copyFileSync(filled, few)
      pairs.push({ few: yield* run(Drained, "drain", few), many: yield* run(Drained, "drain", many) })
      for (const end of ["", "-wal", "-shm"]) rmSync(`${few}${end}`, { force: true })
    }
    const size = Math.round(statSync(many).size / 1_048_576)
    const row = (name: string, unit: string, of: (figure: Drained) => number): BenchRow => {
      const ratio = median(pairs.map((pair) => of(pair.many) / of(pair.few)))
      return {
        name: `${name} with 1,000,000 queued (${size} MB), beside 10,000`,
        value: median(pairs.map((pair) => of(pair.many))),
        unit,
        baseline: median(pairs.map((pair) => of(pair.few))),
        ratio,
        target: "<= 1.2",
        met: ratio <= 1.2
      }
    }
    return [
      row("a task claimed and finished", "ms CPU", ({ cpuMs }) => cpuMs),
      row("memory of the process", "MB", ({ rssMb }) => rssMb)
    ]
  })

/** How fast the store is, on an SQLite file in the temporary folder; needs about 1.5 GB there for a while. */
export const storeBench: Effect.Effect<ReadonlyArray<BenchRow>> = Effect.scoped(
  Effect.gen(function* () {
    const { outfile } = yield* bundled
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "dream-team-bench-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
    )
    const run: Run = (schema, ...args) =>
      Effect.flatMap(
        Effect.promise(() => runWorker(outfile, args)),
        (answer) => Effect.orDie(Schema.decodeUnknown(schema)(answer))
      )
    return [...(yield* inserting(run, folder)), ...(yield* draining(run, folder))]
  })
)

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  console.log(JSON.stringify(await Effect.runPromise(storeBench), undefined, 2))
}
