import { Clock, Console, Effect, Option } from "effect"
import { PlatformList } from "../PlatformDetector/Api.js"
import { printAs, withService } from "./Connection.js"
import { CommandFailed } from "./Exit.js"
import { platformId } from "./Tasks.js"
import { platformTable } from "./Words.js"

export interface PlatformsOptions {
  readonly url: Option.Option<string>
  readonly json: boolean
}

const print = (list: PlatformList, json: boolean) =>
  json
    ? printAs(PlatformList, list)
    : Effect.flatMap(Clock.currentTimeMillis, (now) => Console.log(platformTable(list.platforms, now)))

export const list = ({ json, url }: PlatformsOptions) =>
  withService(url, (client) => Effect.flatMap(client.platforms.list(), (platforms) => print(platforms, json)))

/** Asks one platform, or each, whether it answers now. Fails where any is not to be used. */
export const check = ({ id, json, url }: PlatformsOptions & { readonly id: Option.Option<string> }) =>
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
