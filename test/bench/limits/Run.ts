import type { PlatformId } from "../../../src/Domain/Platform.js"
import {
  countedBy,
  countsAtEnd,
  makeProvider,
  nameOf,
  type Provider,
  permitsOf,
  type SimulatedPlatform
} from "../support/Provider.js"
import type { SimulatedCall } from "./Load.js"

/** An attempt that its provider took in: from the sending to the answer, ms. */
interface Flight {
  readonly platform: PlatformId
  readonly from: number
  readonly to: number
  /** Of each limit: what was held until the answer and not counted by then. */
  readonly held: ReadonlyArray<number>
}

/** What one policy made of a load. */
export interface Run {
  /** 429s of all providers. */
  readonly refused: number
  /** Answers that took an `actual` token window beyond its limit. */
  readonly excesses: number
  readonly completed: number
  /** Until the last answer, ms. */
  readonly makespanMs: number
  /** Until the last start, ms: as long there was more to do than could be done. */
  readonly saturatedMs: number
  /** From the arrival of each HIGH call to the sending that was taken in, ms. */
  readonly highWaits: ReadonlyArray<number>
  /** How far each limit of each platform was used while saturated, 0 to 1. */
  readonly used: ReadonlyArray<LimitUse>
}

export interface LimitUse {
  readonly platform: PlatformId
  /** Such as `requests/60s`, or `permits`. */
  readonly limit: string
  /** As the provider counts it. */
  readonly share: number
  /** What running calls held beyond what was counted of them by then: nobody can give that to others. */
  readonly held: number
}

/** Watches the attempts of one run and counts them. */
export interface Recorder {
  readonly providers: ReadonlyMap<PlatformId, Provider>
  /** `reserved`: what it held of each of its provider's limits while it ran; nothing where it is left out. */
  readonly answered: (
    call: SimulatedCall,
    platform: PlatformId,
    sentAt: number,
    at: number,
    reserved?: ReadonlyArray<number>
  ) => void
  readonly run: () => Run
}

/**
 * Over as many whole windows as the saturated time holds, but for the first: it began with a limit not yet used.
 * A limit whose window is longer than half of that time is not measured.
 */
const windowUse = (provider: Provider, index: number, saturatedMs: number): number | undefined => {
  const limit = provider.limits[index]
  if (limit === undefined) return undefined
  const windows = Math.floor(saturatedMs / limit.windowMs) - 1
  if (windows < 1) return undefined
  const counted = provider.countedBetween(index, limit.windowMs, (windows + 1) * limit.windowMs)
  return counted / (windows * limit.capacity)
}

export const makeRecorder = (platforms: ReadonlyArray<SimulatedPlatform>): Recorder => {
  const providers = new Map(platforms.map((platform) => [platform.id, makeProvider(platform)]))
  const flights: Array<Flight> = []
  const highWaits: Array<number> = []
  let makespanMs = 0
  let saturatedMs = 0

  const heldShare = (platform: SimulatedPlatform, index: number, capacity: number): number =>
    flights.reduce(
      (sum, { from, held, platform: at, to }) =>
        at === platform.id ? sum + (held[index] ?? 0) * Math.max(0, Math.min(to, saturatedMs) - from) : sum,
      0
    ) /
    (capacity * Math.max(1, saturatedMs))

  const permitUse = (platform: SimulatedPlatform): number => {
    const busyMs = flights.reduce(
      (sum, { from, platform: at, to }) =>
        at === platform.id ? sum + Math.max(0, Math.min(to, saturatedMs) - from) : sum,
      0
    )
    return saturatedMs === 0 ? 0 : busyMs / (permitsOf(platform) * saturatedMs)
  }

  return {
    providers,
    answered: (call, platform, sentAt, at, reserved = []) => {
      const of = platforms.find(({ id }) => id === platform)
      const held = (providers.get(platform)?.limits ?? []).map(({ unit }, index) => {
        const whole = reserved[index] ?? 0
        return of === undefined || countsAtEnd(of, unit) ? whole : Math.max(0, whole - countedBy(of, unit, call))
      })
      flights.push({ platform, from: sentAt, to: at, held })
      makespanMs = Math.max(makespanMs, at)
      saturatedMs = Math.max(saturatedMs, sentAt)
      if (call.priority === "HIGH") highWaits.push(sentAt - call.arrivesAt)
    },
    run: () => {
      const all = [...providers.values()]
      return {
        refused: all.reduce((sum, provider) => sum + provider.refused(), 0),
        excesses: all.reduce((sum, provider) => sum + provider.excesses(), 0),
        completed: flights.length,
        makespanMs,
        saturatedMs,
        highWaits,
        used: platforms.flatMap((platform) => {
          const { id } = platform
          const provider = providers.get(id)
          if (provider === undefined) return []
          return [
            ...provider.limits.flatMap((limit, index) => {
              const share = windowUse(provider, index, saturatedMs)
              if (share === undefined) return []
              return [{ platform: id, limit: nameOf(limit), share, held: heldShare(platform, index, limit.capacity) }]
            }),
            { platform: id, limit: "permits", share: permitUse(platform), held: 0 }
          ]
        })
      }
    }
  }
}
