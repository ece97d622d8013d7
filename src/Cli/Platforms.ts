import { Clock, Console, Effect, Option } from "effect"
import { PlatformResources } from "../Domain/Lease.js"
import { PlatformList } from "../PlatformDetector/Api.js"
import { PlatformHistory } from "../ResourceManager/Api.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { platformEventLine } from "./EventWords.js"
import { CommandFailed } from "./Exit.js"
import { platformId } from "./Ids.js"
import { counted } from "./Output.js"
import { platformTable } from "./PlatformWords.js"

const print = (list: PlatformList, json: boolean) =>
  json
    ? printAs(PlatformList, list)
    : Effect.flatMap(Clock.currentTimeMillis, (now) => Console.log(platformTable(list.platforms, now)))

export const list = ({ json, url }: ServiceOptions) =>
  withService(url, (client) => Effect.flatMap(client.platforms.list(), (platforms) => print(platforms, json)))

/** Asks one platform, or each, whether it answers now. Fails where any is not to be used. */
export const check = ({ id, json, url }: ServiceOptions & { readonly id: Option.Option<string> }) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const ids = Option.isSome(id)
        ? [yield* platformId(id.value)]
        : (yield* client.platforms.list()).platforms.map((platform) => platform.id)
      const platforms = yield* Effect.forEach(ids, (one) => client.platforms.check({ path: { id: one } }), {
        concurrency: "unbounded"
      })
      yield* print({ platforms }, json)
      const out = platforms.filter(({ status }) => status === "unavailable").map((platform) => platform.id)
      if (out.length > 0) return yield* new CommandFailed({ message: `Not available: ${out.join(", ")}.` })
    })
  )

export interface DrainOptions extends ServiceOptions {
  readonly id: string
  readonly reason: Option.Option<string>
}

const setDrained = ({ id, json, reason, url }: DrainOptions, drained: boolean) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const platform = yield* platformId(id)
      const resources = yield* client.resources.patch({
        path: { id: platform },
        payload: { drained, reason: Option.getOrUndefined(reason) }
      })
      if (json) return yield* printAs(PlatformResources, resources)
      const { inUse } = resources.permits
      const running = inUse === 0 ? "none is running" : `${counted(inUse, "running one")} may end`
      yield* Console.log(
        drained
          ? `${platform} is drained: it gets no new attempts until it is resumed, and ${running}.`
          : `${platform} is resumed.`
      )
    })
  )

/** Gives a platform no new attempts until it is resumed; running ones end in peace. */
export const drain = (options: DrainOptions) => setDrained(options, true)

export const resume = (options: DrainOptions) => setDrained(options, false)

export interface HistoryOptions extends ServiceOptions {
  readonly id: string
  readonly limit: number
  readonly before: Option.Option<number>
}

/** Prints what happened to a platform, the latest first. */
export const history = ({ before, id, json, limit, url }: HistoryOptions) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const page = yield* client.resources.history({
        path: { id: yield* platformId(id) },
        urlParams: { limit, before: Option.getOrUndefined(before) }
      })
      if (json) return yield* printAs(PlatformHistory, page)
      yield* Console.log(page.events.length === 0 ? "Nothing yet." : page.events.map(platformEventLine).join("\n"))
      if (page.next !== undefined) yield* Console.log(`\nMore: --before ${page.next}`)
    })
  )
