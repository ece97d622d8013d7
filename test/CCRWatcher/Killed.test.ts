import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope, Stream } from "effect"
import { leaseMs } from "../../src/CCRWatcher/Handoffs.js"
import { HandoffStore } from "../../src/SessionStore/Handoffs.js"
import { SessionStore } from "../../src/SessionStore.js"
import {
  answers,
  cutTranscript,
  latest,
  layerOf,
  makeWorld,
  noon,
  pass,
  report,
  settingsWith,
  settle,
  transcriptOf,
  type World,
  watch
} from "./world.js"

/** The store of a process that is killed at its n-th call: before it, or right after it. From then on it does nothing. */
const mortal = (store: HandoffStore["Type"], at: number, when: "before" | "after") => {
  const life = { calls: 0, isOver: false }
  const gone = Effect.die("killed")
  const call = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (life.isOver) return gone
      life.calls += 1
      if (life.calls !== at) return effect
      life.isOver = true
      return when === "before" ? gone : Effect.zipRight(effect, gone)
    })
  const killable: HandoffStore["Type"] = {
    ...store,
    open: (handoff) => call(store.open(handoff)),
    take: (id, owner, ms) => call(store.take(id, owner, ms)),
    write: (id, epoch, change) => call(store.write(id, epoch, change)),
    release: (id, epoch) => call(store.release(id, epoch)),
    renew: (id, epoch, ms) => (life.isOver ? gone : store.renew(id, epoch, ms))
  }
  return { life, killable }
}

/** What is left of a run whose starter was killed: nothing, a session cut in its midst, or a process that goes on. */
type Remains = "nothing" | "half a session" | "a process"

const kill = (at: number, when: "before" | "after", remains: Remains) =>
  Effect.gen(function* () {
    const world: World = makeWorld()
    return yield* Effect.gen(function* () {
      const store = yield* HandoffStore
      const sessions = yield* SessionStore
      const limit = { window: "five_hour", hitAt: noon - 60_000, resetsAt: noon + 3_600_000 }
      yield* sessions.record(report({ source: "hook", status: "limited", limit }))
      const { killable, life } = mortal(store, at, when)
      const good = answers(world)
      world.play = (run) =>
        Stream.concat(
          good(run).pipe(
            Stream.tap((event) =>
              Effect.sync(() => {
                const id = run.sessionId ?? run.resume ?? ""
                if (event._tag === "Spawned") world.processes.set(event.pid, `claude --session-id ${id}`)
                if (event._tag === "Started" && remains === "half a session") world.put(transcriptOf(id), cutTranscript)
                if (event._tag === "Finished") world.processes.clear()
              })
            )
          ),
          Stream.empty
        )
      const first = yield* Scope.make()
      yield* watch.pipe(Effect.provide(Layer.succeed(HandoffStore, killable)), Scope.extend(first))
      for (let look = 0; look < 3 && !life.isOver; look += 1) yield* pass(20_000)
      const wasKilled = life.isOver
      life.isOver = true
      yield* Scope.close(first, Exit.void)
      yield* settle
      // Its runs die with it, or go on without it for a while.
      const orphans = world.processes.size
      if (remains !== "a process") world.processes.clear()
      const before = world.runs.length
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* watch
          yield* pass(leaseMs + 40_000)
          if (remains === "a process" && orphans > 0) {
            // Nothing is started beside a run that is still at work.
            expect(world.runs).toHaveLength(before)
            const [id] = world.runs.map(({ sessionId }) => sessionId)
            world.processes.clear()
            yield* good({ ...world.runs[0], sessionId: id, prompt: "", cwd: "", timeoutMs: 1 }).pipe(Stream.runDrain)
            yield* pass(30_000)
            expect(world.runs).toHaveLength(before)
          }
        })
      )
      const record = yield* latest
      expect(record.state).toBe("succeeded")
      expect(record.answer).toBe("It was 4711.")
      expect(world.mostAtWork).toBe(1)
      expect(yield* store.list({ limit: 10 })).toHaveLength(1)
      // Whatever was begun is gone on with in the same session.
      const news = new Set(world.runs.map(({ resume, sessionId }) => sessionId ?? resume))
      expect(news.size).toBe(1)
      return wasKilled
    }).pipe(Effect.scoped, Effect.provide(layerOf(world, settingsWith())))
  })

describe("killed in any step of a hand-off, the next process ends it, and it runs once", () => {
  for (const remains of ["nothing", "half a session", "a process"] as const) {
    for (const when of ["before", "after"] as const) {
      it.effect(`${when} a step, where ${remains} is left of the run`, () =>
        Effect.gen(function* () {
          let steps = 0
          // 1 = opened, 2 = taken, 3 to 6 = kept, chosen, running, its process known, 7 = its end, 8 = given back.
          for (let at = 1; at < 20; at += 1) {
            if (!(yield* kill(at, when, remains))) break
            steps = at
          }
          expect(steps).toBeGreaterThanOrEqual(7)
        })
      )
    }
  }
})
