import { Clock, Console, Effect } from "effect"
import { ResourcesView } from "../Domain/Lease.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { resourcesText } from "./ResourceWords.js"

/** Prints every limit, permit, breaker and queue as it stands now. */
export const run = ({ json, url }: ServiceOptions) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const view = yield* client.resources.show()
      yield* json ? printAs(ResourcesView, view) : Console.log(resourcesText(view, yield* Clock.currentTimeMillis))
    })
  )
