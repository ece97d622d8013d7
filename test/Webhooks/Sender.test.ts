import { createServer, type IncomingHttpHeaders, type Server } from "node:http"
import type { LookupFunction } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Webhook } from "standardwebhooks"
import { Settings } from "../../src/Settings.js"
import { publicOnly, WebhookSender } from "../../src/Webhooks/Sender.js"
import { signedHeaders } from "../../src/Webhooks/Signature.js"

const secret = `whsec_${Buffer.from("a secret of at least 24 bytes").toString("base64")}`

interface Got {
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** A receiver on loopback; `answer` decides by the path. */
const receiver = (answer: Parameters<typeof createServer>[1] = (_, response) => response.writeHead(204).end()) =>
  Effect.gen(function* () {
    const got: Array<Got> = []
    const counts = { connections: 0 }
    const server = yield* Effect.acquireRelease(
      Effect.async<Server>((resume) => {
        const made = createServer((request, response) => {
          let body = ""
          request.on("data", (chunk: Buffer) => {
            body += chunk.toString()
          })
          request.on("end", () => {
            got.push({ url: request.url ?? "", headers: request.headers, body })
            answer?.(request, response)
          })
        })
        made.on("connection", () => {
          counts.connections += 1
        })
        made.listen(0, "127.0.0.1", () => resume(Effect.succeed(made)))
      }),
      (made) =>
        Effect.async<void>((resume) => {
          made.closeAllConnections()
          made.close(() => resume(Effect.void))
        })
    )
    const address = server.address()
    const port = address !== null && typeof address === "object" ? address.port : 0
    return { got, counts, port, url: `http://127.0.0.1:${port}` }
  })

const sending = (allowPrivate: boolean, resolve?: LookupFunction) =>
  (resolve === undefined ? WebhookSender.layer : WebhookSender.layerWith(resolve)).pipe(
    Layer.provide(Settings.layer(Settings.make({ webhooks: { secrets: [Redacted.make(secret)], allowPrivate } })))
  )

const send = (url: string, headers: Readonly<Record<string, string>> = {}, body = "{}") =>
  Effect.flatMap(WebhookSender, (sender) => sender.send({ url, headers, body }))

const refused = (url: string) => Effect.map(Effect.flip(send(url)), ({ message }) => message)

describe("the sender of webhooks", () => {
  it.scopedLive("posts what the package of the standard verifies", () =>
    Effect.gen(function* () {
      const { got, url } = yield* receiver()
      const body = JSON.stringify({ type: "task.succeeded", data: { text: "größer ☂" } })
      const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
      const answer = yield* send(
        `${url}/hook?from=team#part`,
        { "content-type": "application/json", ...signedHeaders([Redacted.make(secret)], "msg_1", now, body) },
        body
      ).pipe(Effect.withSpan("a span"))
      assert.strictEqual(answer.status, 204)
      const [request] = got
      assert(request !== undefined)
      assert.strictEqual(request.url, "/hook?from=team")
      const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]))
      assert.deepStrictEqual(new Webhook(secret).verify(request.body, headers), JSON.parse(body))
      assert.throws(() => new Webhook(secret).verify(`${request.body} `, headers))
      // Nothing of our own tracing.
      assert.notProperty(headers, "traceparent")
      assert.notProperty(headers, "b3")
    }).pipe(Effect.provide(sending(true)))
  )

  it.scopedLive("follows no redirect, and reads no more of an answer than it needs", () =>
    Effect.gen(function* () {
      const target = yield* receiver()
      const endless = yield* receiver((_, response) => {
        response.writeHead(200)
        const more = () => {
          while (!response.destroyed && response.write(Buffer.alloc(65_536))) {}
        }
        response.on("drain", more)
        more()
      })
      const redirecting = yield* receiver((_, response) =>
        response.writeHead(307, { location: `${target.url}/x` }).end()
      )
      assert.strictEqual((yield* send(redirecting.url)).status, 307)
      assert.strictEqual(target.counts.connections, 0)
      assert.strictEqual((yield* send(endless.url)).status, 200)
    }).pipe(Effect.provide(sending(true)))
  )

  it.scopedLive("answers with what a busy receiver asks for, and says why nobody answered", () =>
    Effect.gen(function* () {
      const { url } = yield* receiver((request, response) => {
        if (request.url === "/cut") return request.socket.destroy()
        return response.writeHead(503, { "retry-after": "120" }).end("busy")
      })
      assert.deepStrictEqual(yield* send(url), { status: 503, retryAfter: "120" })
      assert.strictEqual(yield* refused(`${url}/cut`), "the connection was cut")
      assert.strictEqual(yield* refused("http://127.0.0.1:1/"), "nothing listens there")
      assert.match(yield* refused("http://no-such-name.invalid/"), /^its host name /)
      assert.match(yield* refused(`${url.replace("http:", "https:")}/`), /certificate|request failed|cut/)
    }).pipe(Effect.provide(sending(true)))
  )

  it.scopedLive("connects to nothing that is not public, whatever its name resolves to", () =>
    Effect.gen(function* () {
      const { counts, port } = yield* receiver()
      for (const addresses of [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["10.0.0.1", "169.254.169.254"],
        ["fd00::1", "fe80::1"],
        ["64:ff9b::7f00:1"],
        ["0.0.0.0"]
      ]) {
        const found = addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }))
        let asked = 0
        const resolve: LookupFunction = (_, options, callback) => {
          asked += 1
          const [first] = found
          if (options.all === true) callback(null, found)
          else callback(null, first?.address ?? "", first?.family ?? 4)
        }
        const message = yield* Effect.provide(refused(`https://rebound.example:${port}/`), sending(false, resolve))
        assert.include(message, "not public", addresses.join())
        assert.strictEqual(asked, 1)
      }
      for (const host of ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"]) {
        const message = yield* Effect.provide(refused(`https://${host}:${port}/`), sending(false))
        assert.include(message, "not public", host)
      }
      assert.strictEqual(counts.connections, 0)
    })
  )

  it.effect("keeps of a name's addresses the public ones", () =>
    Effect.gen(function* () {
      const lookup = publicOnly((_, __, callback) =>
        callback(null, [
          { address: "127.0.0.1", family: 4 },
          { address: "2606:4700::1111", family: 6 },
          { address: "8.8.8.8", family: 4 }
        ])
      )
      const found = (all: boolean) =>
        Effect.async<unknown>((resume) =>
          lookup("name", { all }, (error, address, family) => resume(Effect.succeed([error, address, family])))
        )
      assert.deepStrictEqual(yield* found(true), [
        null,
        [
          { address: "2606:4700::1111", family: 6 },
          { address: "8.8.8.8", family: 4 }
        ],
        undefined
      ])
      assert.deepStrictEqual(yield* found(false), [null, "2606:4700::1111", 6])
    })
  )
})
