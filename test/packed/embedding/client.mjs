// Uses the typed client where no database driver is installed, against a server that answers one request.
import { createServer } from "node:http"
import { FetchHttpClient } from "@effect/platform"
import * as Client from "dream-team/client"
import { Effect } from "effect"

const server = createServer((_, response) => {
  response.setHeader("content-type", "application/json").end('{"status":"live"}')
})
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
const ask = Effect.flatMap(Client.make({ baseUrl: `http://127.0.0.1:${server.address().port}` }), (client) =>
  client.health.live()
)
console.log(JSON.stringify(await Effect.runPromise(Effect.provide(ask, FetchHttpClient.layer))))
server.close()
server.closeAllConnections()
