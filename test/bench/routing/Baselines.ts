import { Deferred, Effect, Either, FiberId, Layer, Option, Random } from "effect"
import { backoffMs } from "../../../src/Delegation/Failover.js"
import { spendsAttempt, viewOf } from "../../../src/Domain/Failure.js"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import type { TaskType } from "../../../src/Domain/Task.js"
import { monotonicMs } from "../../../src/Domain/Time.js"
import { Settings } from "../../../src/Settings.js"
import { permitsOf } from "../support/Provider.js"
import { runWorld } from "../support/World.js"
import type { Day, DayTask } from "./Day.js"
import { DEADLINE_MS, type Ended, type Outcome } from "./Outcome.js"
import { makeSickPlatforms, platforms } from "./SickPlatforms.js"

/** How a baseline chooses among the platforms that have a permit free and do not cool down. */
export type Rule = "round robin" | "weighted random"

/** LiteLLM's default: a deployment that answered 429 is left alone for 5 s. */
const COOLDOWN_MS = 5_000

/** An attempt that waits for a platform, or has one. */
interface Turn {
  readonly type: TaskType
  /** Who failed the task just now. */
  readonly avoid: PlatformId | undefined
  readonly granted: Deferred.Deferred<PlatformId>
  holds: PlatformId | undefined
}

/**
 * A router that knows the permits and the suitabilities, and nothing of limits, health or speed. First come first served:
 * each attempt goes to a platform that has a permit free and does not cool down. What failed is tried again after a
 * backoff, on any platform but the one that failed it; a 429 cools its platform down instead. Attempt budget, backoff and
 * deadline are the product's.
 */
export const runBaseline = (rule: Rule, day: Day, seed: string): Effect.Effect<Outcome> => {
  const sick = makeSickPlatforms(day, seed)
  const clients = new Map(sick.clients.map((client) => [client.id, client]))
  const random = Random.make(`${seed} ${rule}`)
  const free = new Map(platforms.map((platform) => [platform.id, permitsOf(platform)]))
  const coolUntil = new Map<PlatformId, number>()
  const ended: Array<Ended> = []
  let waiting: Array<Turn> = []
  let next = 0

  const change = (id: PlatformId, by: number): void => {
    free.set(id, (free.get(id) ?? 0) + by)
  }

  const choose = ({ avoid, type }: Turn, now: number): PlatformId | undefined => {
    const turns = [...platforms.slice(next), ...platforms.slice(0, next)]
    const able = turns.filter(({ id }) => id !== avoid && (free.get(id) ?? 0) > 0 && (coolUntil.get(id) ?? 0) <= now)
    if (rule === "round robin" || able.length < 2) {
      const [first] = able
      if (first !== undefined) next = (platforms.indexOf(first) + 1) % platforms.length
      return first?.id
    }
    let left = Effect.runSync(random.next) * able.reduce((sum, { suitability }) => sum + suitability[type], 0)
    for (const { id, suitability } of able) {
      left -= suitability[type]
      if (left < 0) return id
    }
    return able.at(-1)?.id
  }

  const assign = Effect.map(monotonicMs, (now) => {
    waiting = waiting.filter((turn) => {
      const id = choose(turn, now)
      if (id === undefined) return true
      change(id, -1)
      turn.holds = id
      Deferred.unsafeDone(turn.granted, Effect.succeed(id))
      return false
    })
  })

  const attempt = (task: DayTask, avoid: PlatformId | undefined) =>
    Effect.suspend(() => {
      const turn: Turn = { type: task.type, avoid, granted: Deferred.unsafeMake(FiberId.none), holds: undefined }
      waiting.push(turn)
      const leave = Effect.suspend(() => {
        waiting = waiting.filter((other) => other !== turn)
        if (turn.holds !== undefined) change(turn.holds, 1)
        return assign
      })
      return assign.pipe(
        Effect.zipRight(Deferred.await(turn.granted)),
        Effect.flatMap((id) => {
          const client = clients.get(id)
          return client === undefined
            ? Effect.dieMessage(`no platform ${id}`)
            : Effect.either(client.complete(client.settings.model, sick.callOf(task)))
        }),
        Effect.ensuring(leave)
      )
    })

  const coolDown = (id: PlatformId) =>
    Effect.gen(function* () {
      coolUntil.set(id, (yield* monotonicMs) + COOLDOWN_MS)
      yield* Effect.forkDaemon(Effect.zipRight(Effect.sleep(COOLDOWN_MS), assign))
    })

  /** Who answered, or why nobody did. */
  const run = (task: DayTask) =>
    Effect.gen(function* () {
      let avoid: PlatformId | undefined
      let failures = 0
      for (let spent = 0; spent < Settings.defaults.tasks.maxAttempts; ) {
        const answer = yield* attempt(task, avoid)
        if (Either.isRight(answer)) {
          return { by: platforms.find(({ model }) => model === answer.right.model)?.id }
        }
        const failure = answer.left
        avoid = failure.platform
        if (spendsAttempt(viewOf(failure))) spent += 1
        if (failure._tag === "QuotaFailure") yield* coolDown(failure.platform)
        else {
          failures += 1
          yield* Effect.sleep(backoffMs(failures, yield* Random.next))
        }
      }
      return { why: "AttemptsExhausted" }
    }).pipe(Effect.timeoutOption(DEADLINE_MS), Effect.map(Option.getOrElse(() => ({ why: "DeadlineExceeded" }))))

  return runWorld(seed, Layer.empty, (world) =>
    Effect.sync(() => {
      for (const task of day.tasks) {
        world.agenda.add(
          task.arrivesAt,
          Effect.suspend(() => run(task)).pipe(
            Effect.map((end) => ended.push({ task, at: world.now(), ...end })),
            Effect.forkDaemon,
            Effect.asVoid
          )
        )
      }
      return {
        isOver: () => ended.length === day.tasks.length,
        outcome: (): Outcome => ({ ended, attempts: sick.attempts(), refused: sick.refused() })
      }
    })
  )
}
