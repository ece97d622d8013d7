import type { LimitReading } from "../Domain/Call.js"
import type { AttemptName, PlatformEventBody } from "../Domain/Event.js"
import type { PlatformFailure, PlatformReason } from "../Domain/Failure.js"
import { type Drained, drainedInWords, type PlatformResources, type Settlement } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { Priority } from "../Domain/Task.js"
import type { PlatformLimits } from "../Settings.js"
import * as Breaker from "./Breaker.js"
import { monotonicOf, type Now } from "./Now.js"
import type { Ask, Budget, Grant } from "./PlatformBudget.js"
import type { Exhausted } from "./Quota.js"
import type { SavedPlatform } from "./Saved.js"

/** Out of service, until an instant (epoch ms) where it is known. */
export interface Out {
  readonly reason: string
  readonly until?: number | undefined
}

/** What stands in the way of an attempt, in words, and when that is over (monotonic ms; Infinity = nobody knows). */
export interface Obstacle {
  readonly kind: Exclude<PlatformReason["kind"], undefined>
  readonly reason: string
  readonly earliest: number
}

/** What an attempt holds of a platform until it ends. */
export interface Taken {
  readonly grant: Grant
  readonly permit: Breaker.Permit
  /** Of the breaker of its model, where that one is known. */
  readonly modelPermit: Breaker.Permit | undefined
  readonly attempt: AttemptName | undefined
}

/** A model that the platform served. */
interface Model {
  readonly name: string
  breaker: Breaker.Breaker
  inFlight: number
  /** Less than Infinity while its breaker's ramp lasts. */
  maxInFlight: number
  /** When its latest failure came, monotonic ms. */
  failedAt: number
}

export interface SlotOptions {
  readonly id: PlatformId
  readonly budget: Budget
  readonly breaker: Breaker.Policy
  readonly onTransition: (transition: Breaker.BreakerTransition) => void
  readonly onEvent: (platform: PlatformId, body: PlatformEventBody, now: Now) => void
}

/** Models out of service that are remembered per platform. */
const MAX_MODELS_OUT = 256
/** Models with a breaker of their own per platform. */
const MAX_MODELS = 64
/** How long after its latest failure a model counts as failing, unless it succeeds, ms. */
const FAILING_MS = 60_000
const NEVER = Number.POSITIVE_INFINITY

/** No connection, or one that broke off: that is never the fault of one model. */
const isOfConnection = ({ reason }: PlatformFailure): boolean => reason === "unreachable" || reason === "network"

const success: Breaker.Outcome = { _tag: "Success" }
/** Of an attempt that says nothing of this breaker. */
const ignored: Breaker.Outcome = { _tag: "Ignored" }

/** A platform as the dispatcher knows it: its budget, its breakers, and whether it is in service. */
export type Slot = ReturnType<typeof make>

export const make = ({ breaker: policy, budget, id, onEvent, onTransition }: SlotOptions) => {
  let breaker = Breaker.initial
  /** Whether the smallest attempt of a HIGH call could start on some model, as of the latest look. */
  let isOpen = false
  let out: Out | undefined
  /** By hand: holds whatever is known of its health, and nothing of that ends it. */
  let drained: Drained | undefined
  const modelsOut = new Map<string, Out>()
  /** The one that was used last is the last. */
  const models = new Map<string, Model>()
  let newest: Model | undefined
  /** When quotas that are used up reset, epoch ms. */
  let resets: ReadonlyArray<number> = []
  /** Counts changes of what is saved: the latest, the one of the latest save, the one that has reached the disk. */
  let version = 1
  let versionSaved = 0
  let versionStored = 0
  const credit: Record<Priority, number> = { HIGH: 0, MEDIUM: 0, LOW: 0 }

  const touch = (): void => {
    version += 1
  }

  // What happened

  const drain = (now: Now, attempt?: AttemptName): void => {
    for (const body of budget.takeEvents(now)) {
      if (body.type === "quota.exhausted") resets = [...resets, body.until]
      const isCaused = attempt !== undefined && (body.type === "quota.exhausted" || body.type === "limit.learned")
      onEvent(id, isCaused ? { ...body, attempt } : body, now)
      touch()
    }
  }

  const tell = (transition: Breaker.Transition, model: string | undefined, now: Now, attempt?: AttemptName): void => {
    onTransition({ ...transition, platform: id, model, attempt, at: now.epochMs })
    onEvent(id, { type: "breaker.changed", ...transition, model, attempt }, now)
  }

  const rampBudget = (now: Now): void =>
    budget.rampTo(breaker.state === "closed" ? Breaker.capacityPercent(breaker) / 100 : 1, now)

  const step = (next: Breaker.Step, now: Now, attempt?: AttemptName): void => {
    if (next.breaker !== breaker) touch()
    breaker = next.breaker
    if (next.transition === undefined) return
    rampBudget(now)
    tell(next.transition, undefined, now, attempt)
  }

  /** A model has no rate of its own to ramp up: its attempts in flight are. */
  const limitModel = (model: Model, now: Now): void => {
    const percent = Breaker.capacityPercent(model.breaker)
    const isRamping = model.breaker.state === "closed" && percent < 100
    model.maxInFlight = isRamping ? Math.max(1, Math.floor((budget.view(now).permits.max * percent) / 100)) : NEVER
  }

  const stepModel = (model: Model, next: Breaker.Step, now: Now, attempt?: AttemptName): void => {
    if (next.breaker !== model.breaker) touch()
    model.breaker = next.breaker
    if (next.transition === undefined) return
    limitModel(model, now)
    tell(next.transition, model.name, now, attempt)
  }

  // What is in the way

  const holds = (of: Out | undefined, now: Now): of is Out =>
    of !== undefined && (of.until === undefined || of.until > now.epochMs)

  const outOf = (model: string, now: Now): Out | undefined => {
    if (drained !== undefined) return { reason: drainedInWords(drained) }
    if (holds(out, now)) return out
    const modelOut = modelsOut.size === 0 ? undefined : modelsOut.get(model)
    return holds(modelOut, now) ? modelOut : undefined
  }

  const modelAdmits = (name: string, now: Now): boolean => {
    const model = models.get(name)
    return model === undefined || (Breaker.admits(model.breaker, now.ms) && model.inFlight < model.maxInFlight)
  }

  const look = (now: Now): void => {
    isOpen = drained === undefined && !holds(out, now) && Breaker.admits(breaker, now.ms) && budget.isOpen(now)
  }

  const isUsable = (model: string, now: Now): boolean =>
    isOpen && (modelsOut.size === 0 || !holds(modelsOut.get(model), now)) && modelAdmits(model, now)

  const heldUntil = (model: string, now: Now): number => {
    const of = outOf(model, now)
    const outUntil = of === undefined ? now.ms : of.until === undefined ? NEVER : monotonicOf(of.until, now)
    return Math.max(outUntil, breaker.until, models.get(model)?.breaker.until ?? 0, budget.quotaFreeAt(model, now))
  }

  /** Infinity where the end of a running attempt has to come first. */
  const admittedAt = (name: string, now: Now): number => {
    const waitsForProbe = (of: Breaker.Breaker): boolean => of.state === "half-open" && !Breaker.admits(of, now.ms)
    const model = models.get(name)
    const isHeld = model !== undefined && (waitsForProbe(model.breaker) || model.inFlight >= model.maxInFlight)
    return isHeld || waitsForProbe(breaker) ? NEVER : now.ms
  }

  // Models

  const learn = (name: string): Model | undefined => {
    const known = models.get(name)
    if (known !== undefined && known === newest) return known
    models.delete(name)
    if (known === undefined && models.size >= MAX_MODELS) {
      const idle = [...models].filter(([, { inFlight }]) => inFlight === 0)
      const [oldest] = idle.find(([, model]) => model.breaker.state === "closed") ?? idle[0] ?? []
      if (oldest === undefined) return undefined
      models.delete(oldest)
    }
    const model = known ?? {
      name,
      breaker: Breaker.initial,
      inFlight: 0,
      maxInFlight: NEVER,
      failedAt: Number.NEGATIVE_INFINITY
    }
    models.set(name, model)
    newest = model
    return model
  }

  const isFailing = ({ breaker: its, failedAt }: Model, at: number): boolean =>
    its.state === "open" || (its.consecutiveFailures > 0 && at - failedAt < FAILING_MS)

  const failing = (now: Now): number => [...models.values()].filter((each) => isFailing(each, now.ms)).length

  /**
   * Whose breakers an attempt's outcome counts for. While only one model is known, the platform's alone. Of several, a
   * sick one is not the platform's fault until another one fails too; a lost connection always is.
   */
  const settleBreakers = (taken: Taken, settlement: Settlement, now: Now, random: number): void => {
    const name = taken.grant.ask.model
    const failure =
      settlement._tag === "Failed" && settlement.failure._tag === "PlatformFailure" ? settlement.failure : undefined
    const outcome: Breaker.Outcome =
      settlement._tag === "Succeeded"
        ? success
        : failure === undefined
          ? ignored
          : { _tag: "Failure", why: `${failure.reason}: ${failure.message}`, retryAfterMs: failure.retryAfterMs }
    const isConnection = failure !== undefined && isOfConnection(failure)
    const model = outcome._tag === "Ignored" || isConnection ? models.get(name) : learn(name)
    const areSeveral = models.size > 1

    if (model !== undefined) {
      if (taken.modelPermit !== undefined) model.inFlight -= 1
      const isCounted = areSeveral && !isConnection
      if (isCounted && failure !== undefined) model.failedAt = now.ms
      // while the platform is on probation one failure is enough: the next probe is then another model's
      const its = breaker.state === "half-open" ? { ...policy, failures: 1 } : policy
      // it may not have been known when the attempt began
      const permit = taken.modelPermit ?? { generation: 0 }
      const next = Breaker.settle(model.breaker, its, permit, isCounted ? outcome : ignored, now.ms, random)
      stepModel(model, next, now, taken.attempt)
    }

    const isItsOwn = failure === undefined || !areSeveral || isConnection || failing(now) > 1
    const next = Breaker.settle(breaker, policy, taken.permit, isItsOwn ? outcome : ignored, now.ms, random)
    step(next, now, taken.attempt)
  }

  return {
    id,
    budget,
    /** What lower priorities are owed of it, as parts of its largest limit. */
    credit,
    /** Whether lower calls wait for its windows, as the budget was told last. */
    hasBacklog: false,
    /** Until when they count as waiting for its windows, monotonic ms. */
    shortUntil: Number.NEGATIVE_INFINITY,

    /** Takes in what the passing of time alone has changed. */
    refresh: (now: Now): void => {
      if (out?.until !== undefined && out.until <= now.epochMs) {
        out = undefined
        onEvent(id, { type: "platform.back" }, now)
      }
      for (const [model, { until }] of modelsOut) {
        if (until === undefined || until > now.epochMs) continue
        modelsOut.delete(model)
        onEvent(id, { type: "platform.back", model }, now)
      }
      while (Breaker.changesAt(breaker) <= now.ms) step(Breaker.tick(breaker, policy, now.ms), now)
      for (const model of models.values()) {
        while (Breaker.changesAt(model.breaker) <= now.ms) {
          stepModel(model, Breaker.tick(model.breaker, policy, now.ms), now)
        }
      }
      drain(now)
      if (resets.length > 0) resets = resets.filter((until) => until > now.epochMs)
      look(now)
    },

    /** When `refresh` changes something next, monotonic ms. */
    changesAt: (now: Now): number => {
      let next = Math.min(Breaker.changesAt(breaker), budget.changesAt())
      for (const model of models.values()) next = Math.min(next, Breaker.changesAt(model.breaker))
      if (out?.until !== undefined) next = Math.min(next, monotonicOf(out.until, now))
      for (const { until } of modelsOut.values())
        if (until !== undefined) next = Math.min(next, monotonicOf(until, now))
      for (const until of resets) next = Math.min(next, monotonicOf(until, now))
      return next
    },

    isUsable,
    /** Nothing but the passing of time, or a word from outside, ends these; the instant at which time does. */
    heldUntil,
    /** When it can start if nothing more is granted; Infinity where that takes the end of a running attempt. */
    earliest: (ask: Ask, now: Now): number =>
      Math.max(heldUntil(ask.model, now), admittedAt(ask.model, now), budget.earliest(ask, now)),
    /** The same of the smallest attempt of a HIGH call. */
    opensAt: (model: string, now: Now): number =>
      Math.max(heldUntil(model, now), admittedAt(model, now), budget.opensAt(now)),
    /** It certainly cannot start before this instant; in the past where it may at any moment. */
    notBefore: (ask: Ask, now: Now): number => Math.max(heldUntil(ask.model, now), budget.notBefore(ask, now)),

    /** Why it cannot start now, and when it could. */
    obstacle: (ask: Ask, now: Now): Obstacle | undefined => {
      const held = heldUntil(ask.model, now)
      const of = outOf(ask.model, now)
      if (of !== undefined) return { kind: "out", reason: of.reason, earliest: held }
      const failed = (reason: string, earliest: number): Obstacle => ({ kind: "failure", reason, earliest })
      const its = models.get(ask.model)
      for (const [each, name] of [
        [breaker, "its circuit breaker"],
        [its?.breaker ?? breaker, `the circuit breaker of its model ${ask.model}`]
      ] as const) {
        if (each.state === "open") return failed(`${name} is open`, held)
        if (each.until > now.ms) return failed("it asked for a pause after a failure", held)
        if (!Breaker.admits(each, now.ms)) return failed(`${name} waits for the outcome of a probe`, NEVER)
      }
      const shortage = budget.shortage(ask, now)
      if (shortage !== undefined) {
        return { kind: "limit", reason: shortage.reason, earliest: Math.max(held, shortage.earliest) }
      }
      return modelAdmits(ask.model, now)
        ? undefined
        : failed(`its model ${ask.model} recovers: its attempts in use are all it may have`, NEVER)
    },

    /** Takes all that an attempt needs, or nothing. */
    take: (ask: Ask, attempt: AttemptName | undefined, now: Now): Taken | undefined => {
      const grant = budget.tryTake(ask, now)
      if (grant === undefined) return undefined
      const admitted = Breaker.admit(breaker)
      breaker = admitted.breaker
      const model = models.get(ask.model)
      const ofModel = model === undefined ? undefined : Breaker.admit(model.breaker)
      if (model !== undefined && ofModel !== undefined) {
        model.breaker = ofModel.breaker
        model.inFlight += 1
      }
      touch()
      look(now)
      return { grant, permit: admitted.permit, modelPermit: ofModel?.permit, attempt }
    },

    /** It was never used. */
    giveBack: (taken: Taken, now: Now): void => {
      touch()
      budget.giveBack(taken.grant, now)
      settleBreakers(taken, { _tag: "Ignored" }, now, 0)
    },

    started: (taken: Taken, readings: ReadonlyArray<LimitReading>, now: Now): void => {
      touch()
      budget.started(taken.grant, readings, now)
      drain(now, taken.attempt)
    },

    settle: (taken: Taken, settlement: Settlement, now: Now, random: number): void => {
      touch()
      budget.settle(taken.grant, settlement, now)
      drain(now, taken.attempt)
      settleBreakers(taken, settlement, now, random)
    },

    setOut: (model: string | undefined, to: Out | undefined, now: Now): void => {
      const was = model === undefined ? out : modelsOut.get(model)
      const held = holds(was, now) ? was : undefined
      if (model === undefined) out = to
      else {
        modelsOut.delete(model)
        const [oldest] = modelsOut.keys()
        if (to !== undefined && modelsOut.size >= MAX_MODELS_OUT && oldest !== undefined) modelsOut.delete(oldest)
        if (to !== undefined) modelsOut.set(model, to)
      }
      if (to === undefined && held !== undefined) onEvent(id, { type: "platform.back", model }, now)
      if (to !== undefined && to.reason !== held?.reason) {
        onEvent(id, { type: "platform.out", model, why: to.reason, until: to.until }, now)
      }
    },

    setDrained: (to: Drained | undefined): void => {
      drained = to
    },

    exhaust: (quota: Exhausted, now: Now): void => {
      touch()
      budget.exhaust(quota, now)
      drain(now)
    },

    clearExhausted: (now: Now): void => {
      touch()
      budget.clearExhausted(now)
      drain(now)
    },

    correct: (readings: ReadonlyArray<LimitReading>, now: Now): void => {
      touch()
      budget.correct(readings, now)
      drain(now)
    },

    configure: (limits: PlatformLimits, now: Now): void => {
      touch()
      budget.configure(limits, now)
      drain(now)
    },

    isUnsaved: (): boolean => version !== versionStored,

    save: (now: Now): Pick<SavedPlatform, "budget" | "breakers"> => {
      versionSaved = version
      const ofModels = models.size > 1 ? [...models] : []
      return {
        budget: budget.save(now),
        breakers: [
          Breaker.save(breaker, now),
          ...ofModels.map(([model, { breaker: its }]) => ({ ...Breaker.save(its, now), model }))
        ]
      }
    },

    saved: (state: Pick<SavedPlatform, "budget">): void => {
      versionStored = versionSaved
      budget.saved(state.budget)
    },

    restore: (state: SavedPlatform, now: Now): void => {
      touch()
      budget.restore(state.budget, state.isClean, now)
      resets = state.budget.quotas.map(({ until }) => until)
      for (const { model: name, ...saved } of state.breakers) {
        const restored = Breaker.restore(saved, policy, now)
        if (name === undefined) {
          breaker = restored
          rampBudget(now)
          continue
        }
        const model = learn(name)
        if (model === undefined) continue
        model.breaker = restored
        limitModel(model, now)
      }
    },

    view: (now: Now): PlatformResources => ({
      platform: id,
      ...budget.view(now),
      drained,
      breaker: Breaker.view(breaker, now),
      modelBreakers:
        models.size > 1 ? [...models].map(([model, { breaker: its }]) => ({ model, ...Breaker.view(its, now) })) : []
    })
  }
}
