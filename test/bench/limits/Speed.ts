import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import type { Priority } from "../../../src/Domain/Task.js"
import { type Lease, type LeaseRequest, ResourceManager } from "../../../src/ResourceManager.js"
import { type KnownPlatform, type PlatformSettings, Settings } from "../../../src/Settings.js"
import { tenantId } from "../support/Draw.js"
import { median } from "../support/Figures.js"
import { layerOf } from "./Subject.js"

export interface SpeedFigures {
  readonly waiting: number
  readonly grantsPerSecond: number
}

const CONCURRENT = 8
const ROUNDS = 9
const GRANTS_A_ROUND = 500
const priorities: ReadonlyArray<Priority> = ["HIGH", "MEDIUM", "LOW"]

const names: ReadonlyArray<KnownPlatform> = ["codex", "gemini", "qwen", "synthetic"]

/** Nothing binds but the permits, so that a grant follows on each settlement. */
const platforms: ReadonlyArray<PlatformSettings> = names.map((id) =>
  Settings.platformDefaults(id, {
    apiKey: "simulated",
    limits: {
      requestsPerMinute: 100_000_000,
      tokensPerMinute: 100_000_000_000,
      windowRequests: undefined,
      windowMs: undefined,
      maxConcurrent: CONCURRENT
    }
  })
)

/** Of all priorities, ten tenants, and of those any platform can serve and those that only three can. */
const requestOf = (index: number): LeaseRequest => ({
  candidates: platforms
    .slice(index % 4 === 0 ? 1 : 0)
    .map(({ id, model, weight }) => ({ platform: id, model, weight })),
  tokens: { input: 1_000, maxOutput: 1_000 },
  type: "analysis",
  priority: priorities[index % 3] ?? "MEDIUM",
  tenant: tenantId(`tenant-${index % 10}`),
  maxWaitMs: 3_600_000
})

const usage = { inputTokens: 1_000, cachedInputTokens: 0, outputTokens: 500, reasoningTokens: 0 }

interface Granted {
  readonly lease: Lease
  readonly scope: Scope.CloseableScope
}

/** A resource manager with `waiting` calls in its line, all of whose permits are out. */
const makeLine = (waiting: number) =>
  Effect.gen(function* () {
    const manager = yield* ResourceManager
    const granted: Array<Granted> = []
    let entered = 0
    const enter = Effect.suspend(() => {
      entered += 1
      return Effect.gen(function* () {
        const scope = yield* Scope.make()
        const lease = yield* Scope.extend(manager.acquire(requestOf(entered)), scope)
        granted.push({ lease, scope })
      }).pipe(Effect.orDie, Effect.fork)
    })
    const fill = Effect.gen(function* () {
      const fibers = yield* Effect.replicateEffect(enter, waiting)
      yield* Effect.yieldNow()
      return fibers
    })
    yield* Effect.replicateEffect(enter, CONCURRENT * platforms.length, { discard: true })
    yield* Effect.yieldNow()
    /** One lease ends, another one is granted, another call takes its place in the line. */
    const turn = Effect.gen(function* () {
      const next = granted.shift()
      if (next === undefined) return yield* Effect.dieMessage("nothing was granted")
      yield* next.lease.started([])
      yield* next.lease.settle({ _tag: "Succeeded", usage })
      yield* Scope.close(next.scope, Exit.void)
      yield* enter
      yield* Effect.yieldNow()
    })
    return { fill, turn }
  })

/**
 * Grants a second of the resource manager on the live clock while so many calls wait: each turn settles a lease, which
 * grants the next call, and enters a new one. The lines take turns, and the median round counts; time is the CPU's, so
 * that what else the machine does matters less.
 */
export const measureSpeed = (depths: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<SpeedFigures>> =>
  Effect.gen(function* () {
    const lines = yield* Effect.forEach(depths, (waiting) =>
      Effect.gen(function* () {
        const services = yield* Layer.build(layerOf(platforms))
        const line = yield* Effect.provide(makeLine(waiting), services)
        yield* line.fill
        const rates: Array<number> = []
        return { waiting, rates, turn: line.turn }
      })
    )
    for (let round = 0; round <= ROUNDS; round++) {
      for (const { rates, turn } of lines) {
        const start = process.cpuUsage()
        yield* Effect.repeatN(turn, GRANTS_A_ROUND - 1)
        const { system, user } = process.cpuUsage(start)
        // the first round is for the compiler
        if (round > 0) rates.push(GRANTS_A_ROUND / ((system + user) / 1e6))
      }
    }
    return lines.map(({ rates, waiting }) => ({ waiting, grantsPerSecond: median(rates) }))
  }).pipe(Effect.scoped)

const collectGarbage: Effect.Effect<void> = Effect.sync(() => {
  setFlagsFromString("--expose-gc")
  const collect: unknown = runInNewContext("gc")
  if (typeof collect === "function") collect()
})

/** Heap that a waiting call takes up, its fiber and scope included, bytes. */
export const measureMemory = (waiting: number): Effect.Effect<number> =>
  Effect.gen(function* () {
    const { fill } = yield* makeLine(waiting)
    const heap = Effect.zipRight(
      Effect.zipRight(collectGarbage, collectGarbage),
      Effect.sync(() => process.memoryUsage().heapUsed)
    )
    const before = yield* heap
    const fibers = yield* fill
    const after = yield* heap
    yield* Fiber.interruptAll(fibers)
    return (after - before) / waiting
  }).pipe(Effect.provide(layerOf(platforms)))
