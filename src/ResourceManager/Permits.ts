import type { PlatformResources } from "../Domain/Lease.js"
import type { PlatformLimits } from "../Settings.js"
import * as Learning from "./Learning.js"
import { makeMeter } from "./Utilization.js"

/** Where so many attempts may run at once or more, one of them is kept for HIGH calls. */
const RESERVE_FROM = 4
/** Models of which is remembered how many attempts at once they refused. */
const MAX_LEARNED_MODELS = 32

interface Holder {
  readonly model: string
  readonly mayUseReserve: boolean
}

/** How many attempts run at once, and how many may. Instants are monotonic ms. */
export interface Permits {
  /** What is in the way of one more, if anything is; only the end of a running attempt clears it away. */
  readonly obstacle: (model: string, mayUseReserve: boolean) => string | undefined
  /** Whether nothing is. */
  readonly fits: (model: string, mayUseReserve: boolean) => boolean
  /** Whether `ask`, were it to start now, would take what `waiting` could take at any time. */
  readonly delays: (ask: Holder, waiting: Holder) => boolean
  /** Whether a HIGH call may start on some model. */
  readonly isOpen: () => boolean
  /** Takes in what the passing of time alone has changed. */
  readonly review: (at: number) => void
  /** When time alone changes how many may run. */
  readonly changesAt: () => number
  readonly max: () => number
  readonly take: (model: string, at: number) => void
  readonly giveBack: (model: string, at: number) => void
  /**
   * The provider says that an attempt, which is over already, was one too many; `undefined` where nothing was learned
   * from it.
   */
  readonly refused: (
    model: string,
    perModel: boolean,
    grantedAt: number,
    at: number
  ) => { readonly from: number; readonly to: number } | undefined
  readonly rampTo: (fraction: number) => void
  readonly configure: (limits: PlatformLimits) => void
  readonly view: (at: number) => PlatformResources["permits"]
}

export const make = (initial: PlatformLimits): Permits => {
  let limits = initial
  let fraction = 1
  let inUse = 0
  const byModel = new Map<string, number>()
  const learned = Learning.make()
  const learnedByModel = new Map<string, Learning.Learned>()
  const meter = makeMeter()
  let countedTo: number | undefined
  /** The latest change: what was learned changes with time, but no question must change what another was told. */
  let seenAt = 0

  const whole = (): number => learned.limit(limits.maxConcurrent, seenAt) ?? limits.maxConcurrent
  const max = (): number => Math.max(1, Math.floor(whole() * fraction))

  const ceilingOf = (model: string): number =>
    limits.models?.[model]?.maxConcurrent ?? limits.maxConcurrentPerModel ?? Number.POSITIVE_INFINITY
  const maxOf = (model: string): number => {
    const ceiling = ceilingOf(model)
    return learnedByModel.get(model)?.limit(ceiling, seenAt) ?? ceiling
  }

  const change = (model: string, by: number, at: number): void => {
    if (countedTo !== undefined) meter.addLevel(inUse, countedTo, at)
    countedTo = at
    seenAt = at
    inUse += by
    const ofModel = (byModel.get(model) ?? 0) + by
    if (ofModel === 0) byModel.delete(model)
    else byModel.set(model, ofModel)
  }

  const learnerOf = (model: string): Learning.Learned => {
    const known = learnedByModel.get(model)
    if (known !== undefined) return known
    const [oldest] = learnedByModel.keys()
    if (learnedByModel.size >= MAX_LEARNED_MODELS && oldest !== undefined) learnedByModel.delete(oldest)
    const made = Learning.make()
    learnedByModel.set(model, made)
    return made
  }

  const freeFor = ({ model, mayUseReserve }: Holder): { readonly total: number; readonly ofModel: number } => {
    const most = max()
    return {
      total: most - inUse - (!mayUseReserve && most >= RESERVE_FROM ? 1 : 0),
      ofModel: maxOf(model) - (byModel.get(model) ?? 0)
    }
  }

  const isKept = (most: number): boolean => most >= RESERVE_FROM && inUse >= most - 1

  return {
    delays: (ask, waiting) => {
      const { ofModel, total } = freeFor(waiting)
      // one that is held up by running attempts gets its permit from the first of them that ends
      if (total <= 0 || ofModel <= 0) return false
      return total <= 1 || (ask.model === waiting.model && ofModel <= 1)
    },
    obstacle: (model, mayUseReserve) => {
      const most = max()
      if (inUse >= most) return `all ${most} concurrent attempts are in use`
      const mostOfModel = maxOf(model)
      if ((byModel.get(model) ?? 0) >= mostOfModel) {
        return `all ${mostOfModel} concurrent attempts of its model ${model} are in use`
      }
      return !mayUseReserve && isKept(most)
        ? `the last of ${most} concurrent attempts is kept for HIGH calls`
        : undefined
    },
    fits: (model, mayUseReserve) => {
      const most = max()
      return inUse < most && (byModel.get(model) ?? 0) < maxOf(model) && (mayUseReserve || !isKept(most))
    },
    isOpen: () => inUse < max(),
    review: (at) => {
      seenAt = at
      whole()
      for (const model of learnedByModel.keys()) maxOf(model)
    },
    changesAt: () => {
      let next = learned.changesAt()
      for (const model of learnedByModel.values()) next = Math.min(next, model.changesAt())
      return next
    },
    max,
    take: (model, at) => {
      change(model, 1, at)
      learned.saw(inUse, at)
      learnedByModel.get(model)?.saw(byModel.get(model) ?? 0, at)
    },
    giveBack: (model, at) => change(model, -1, at),

    refused: (model, perModel, grantedAt, at) => {
      const from = perModel ? maxOf(model) : whole()
      const hasLearned = perModel
        ? learnerOf(model).refused(byModel.get(model) ?? 0, ceilingOf(model), grantedAt, at)
        : learned.refused(inUse, limits.maxConcurrent, grantedAt, at)
      return hasLearned ? { from, to: perModel ? maxOf(model) : whole() } : undefined
    },

    rampTo: (next) => {
      fraction = next
    },
    configure: (next) => {
      if (next.maxConcurrent !== limits.maxConcurrent) learned.forget()
      limits = next
    },

    view: (at) => {
      if (countedTo !== undefined) meter.addLevel(inUse, countedTo, at)
      countedTo = at
      const most = max()
      const models = new Set([...byModel.keys(), ...Object.keys(limits.models ?? {}), ...learnedByModel.keys()])
      return {
        inUse,
        max: most,
        keptForHigh: most >= RESERVE_FROM ? 1 : 0,
        utilization: meter.parts(whole(), at),
        models: [...models].flatMap((model) => {
          const mostOfModel = maxOf(model)
          return Number.isFinite(mostOfModel) ? [{ model, inUse: byModel.get(model) ?? 0, max: mostOfModel }] : []
        })
      }
    }
  }
}
