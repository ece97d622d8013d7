import type { PlatformResources, PlatformView } from "../Domain/Lease.js"
import { drainedInWords } from "../Domain/Lease.js"
import type { PlatformId } from "../Domain/Platform.js"
import type { Conveyance } from "../SessionStore/Handoffs.js"
import type { PlatformSettings } from "../Settings.js"

/** A platform as far as it matters to who may continue a session. */
export interface Continuer {
  readonly settings: PlatformSettings
  readonly view: PlatformView
  readonly resources: PlatformResources
}

export interface Wanted {
  /** In order of preference. */
  readonly chain: ReadonlyArray<PlatformId>
  /** The one that was asked for. */
  readonly to: PlatformId | undefined
  /** Tokens in the context, as the provider counted them or estimated. */
  readonly contextTokens: number
}

export type Choice =
  | {
      readonly _tag: "Chosen"
      readonly chain: ReadonlyArray<PlatformId>
      readonly conveyance: Conveyance
      /** The smallest context window among them, tokens. */
      readonly window: number
      /** Why not those that were left out. */
      readonly others: ReadonlyArray<string>
    }
  | {
      readonly _tag: "Nobody"
      readonly why: string
      /** When one of them may be there again, epoch ms, where that is known. */
      readonly earliestAt: number | undefined
    }

/** Other models count the same text as more tokens. */
const otherCounting = 1.15
/** What the next turns need beside the context: their answers, and what tools return, tokens. */
const room = 16_000

/** Whether a context of so many tokens, and some turns more, has room in a window. */
const fits = (contextTokens: number, window: number): boolean => contextTokens * otherCounting + room <= window

interface Refusal {
  readonly id: PlatformId
  readonly why: string
  readonly until?: number | undefined
}

/** Why a platform cannot continue a session now, or nothing where it can. */
const refusal = (id: PlatformId, continuer: Continuer | undefined, now: number): Refusal | undefined => {
  if (continuer === undefined) return { id, why: "it is not configured" }
  const { resources, settings, view } = continuer
  if (view.drained !== undefined) return { id, why: drainedInWords(view.drained) }
  if (!settings.capabilities.includes("tools")) return { id, why: "it cannot use tools" }
  const exhausted = resources.exhausted
    .filter(({ model, until }) => until > now && (model === undefined || model === settings.model))
    .sort((left, right) => right.until - left.until)[0]
  if (exhausted !== undefined) return { id, why: exhausted.why, until: exhausted.until }
  if (view.breaker === "open") {
    return { id, why: "its circuit breaker is open", until: resources.breaker.probesAt }
  }
  const model = view.models.find((known) => known.model === settings.model)
  if (view.status === "unavailable" || model?.status === "unavailable") {
    const reasons = view.status === "unavailable" ? view.reasons : (model?.reasons ?? [])
    return { id, why: reasons.join("; ") || "it is unavailable", until: resources.exhaustedUntil }
  }
  return undefined
}

/**
 * Who continues: those of the chain that can now, and whose window holds the whole conversation; where none has such a
 * window, those that can now, with a summary.
 */
export const choose = (
  { chain, contextTokens, to }: Wanted,
  continuers: ReadonlyMap<PlatformId, Continuer>,
  now: number
): Choice => {
  const asked = to === undefined ? chain : [to]
  const refusals = asked.flatMap((id) => refusal(id, continuers.get(id), now) ?? [])
  const able = asked.filter((id) => !refusals.some((refused) => refused.id === id))
  const words = refusals.map(({ id, why }) => `${id}: ${why}`)
  if (able.length === 0) {
    const instants = refusals.flatMap(({ until }) => until ?? [])
    return {
      _tag: "Nobody",
      why: words.length === 0 ? "nobody is configured to continue" : `nobody can continue now (${words.join("; ")})`,
      earliestAt: instants.length === 0 ? undefined : Math.min(...instants)
    }
  }
  const windowOf = (id: PlatformId): number => continuers.get(id)?.settings.contextWindow ?? 0
  const whole = able.filter((id) => fits(contextTokens, windowOf(id)))
  const chosen = whole.length > 0 ? whole : able
  return {
    _tag: "Chosen",
    chain: chosen,
    conveyance: whole.length > 0 ? "whole" : "summary",
    window: Math.min(...chosen.map(windowOf)),
    others: [
      ...words,
      ...able.flatMap((id) =>
        chosen.includes(id) ? [] : `${id}: its window of ${windowOf(id)} tokens is too small for ${contextTokens}`
      )
    ]
  }
}
