import { Effect, Random } from "effect"
import type { PlatformId } from "../../../src/Domain/Platform.js"
import { makeAgenda, runAgenda } from "../support/Agenda.js"
import { permitsOf, type SimulatedPlatform } from "../support/Provider.js"
import type { SimulatedCall } from "./Load.js"
import { makeRecorder, type Run } from "./Run.js"

/** How a baseline chooses among the platforms that can serve a call and do not cool down. */
export type Rule = "weighted-random" | "least-busy"

/** LiteLLM's default: a deployment that answered 429 is left alone for 5 s. */
const COOLDOWN_MS = 5_000

type Event =
  | { readonly _tag: "CallArrives"; readonly call: SimulatedCall }
  | { readonly _tag: "ProviderReached"; readonly call: SimulatedCall; readonly to: PlatformId; readonly sentAt: number }
  | { readonly _tag: "Answered"; readonly call: SimulatedCall; readonly to: PlatformId; readonly sentAt: number }
  | { readonly _tag: "Refused"; readonly call: SimulatedCall; readonly to: PlatformId }
  | { readonly _tag: "Completed"; readonly call: SimulatedCall; readonly to: PlatformId }
  | { readonly _tag: "CooledDown" }

/**
 * A router that knows no limits: first come first served, as many calls out at once as the platforms allow together
 * (the best setting its user could make), each sent to a platform of its candidates that does not cool down. A 429 cools
 * its platform down for 5 s; the call goes elsewhere at once, or waits for the first cooldown to end.
 * Weights are the parts of the requests that the platforms' limits allow.
 */
export const runBaseline = (
  rule: Rule,
  platforms: ReadonlyArray<SimulatedPlatform>,
  calls: ReadonlyArray<SimulatedCall>,
  seed: string
): Run => {
  const recorder = makeRecorder(platforms)
  const agenda = makeAgenda<Event>()
  const random = Random.make(seed)
  const maxOut = platforms.reduce((sum, platform) => sum + permitsOf(platform), 0)
  const coolUntil = new Map<PlatformId, number>()
  const inFlight = new Map<PlatformId, number>()
  const weights = new Map(
    platforms.map(({ id, limits }) => [
      id,
      limits.requestsPerMinute ?? ((limits.windowRequests ?? 1) / (limits.windowMs ?? 60_000)) * 60_000
    ])
  )
  let queue: Array<SimulatedCall> = []
  let out = 0

  const change = (platform: PlatformId, by: number): void => {
    inFlight.set(platform, (inFlight.get(platform) ?? 0) + by)
  }

  const choose = (free: ReadonlyArray<PlatformId>): PlatformId | undefined => {
    if (free.length < 2) return free[0]
    if (rule === "least-busy") {
      return free.reduce<PlatformId | undefined>(
        (best, id) => (best === undefined || (inFlight.get(id) ?? 0) < (inFlight.get(best) ?? 0) ? id : best),
        undefined
      )
    }
    const total = free.reduce((sum, id) => sum + (weights.get(id) ?? 0), 0)
    let left = Effect.runSync(random.next) * total
    for (const id of free) {
      left -= weights.get(id) ?? 0
      if (left < 0) return id
    }
    return free.at(-1)
  }

  /** Sends what may go; who finds all its platforms cooling down is passed by. */
  const send = (at: number): void => {
    if (platforms.every(({ id }) => (coolUntil.get(id) ?? 0) > at)) return
    const kept: Array<SimulatedCall> = []
    for (const [index, call] of queue.entries()) {
      if (out >= maxOut || kept.length >= 64) {
        kept.push(...queue.slice(index))
        break
      }
      const to = choose(call.platforms.filter((id) => (coolUntil.get(id) ?? 0) <= at))
      if (to === undefined) {
        kept.push(call)
        continue
      }
      out += 1
      change(to, 1)
      agenda.add(at + call.lagMs, { _tag: "ProviderReached", call, to, sentAt: at })
    }
    queue = kept
  }

  for (const call of calls) agenda.add(call.arrivesAt, { _tag: "CallArrives", call })
  runAgenda(agenda, (event, at) => {
    switch (event._tag) {
      case "CallArrives":
        queue.push(event.call)
        break
      case "ProviderReached": {
        const { call, sentAt, to } = event
        if (recorder.providers.get(to)?.arrive(call, at)._tag === "Accepted") {
          agenda.add(sentAt + call.durationMs - call.lagMs, { _tag: "Completed", call, to })
          agenda.add(sentAt + call.durationMs, { _tag: "Answered", call, to, sentAt })
        } else agenda.add(at + call.lagMs, { _tag: "Refused", call, to })
        break
      }
      case "Completed":
        recorder.providers.get(event.to)?.complete(event.call, at)
        break
      case "Answered":
        out -= 1
        change(event.to, -1)
        recorder.answered(event.call, event.to, event.sentAt, at)
        break
      case "Refused":
        out -= 1
        change(event.to, -1)
        coolUntil.set(event.to, at + COOLDOWN_MS)
        agenda.add(at + COOLDOWN_MS, { _tag: "CooledDown" })
        // its turn was before everybody's who has not been sent yet
        queue.unshift(event.call)
        break
      case "CooledDown":
        break
    }
    if (agenda.nextAt() > at) send(at)
  })
  return recorder.run()
}
