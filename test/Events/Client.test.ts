import { FetchHttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as Client from "../../src/Client.js"
import type { ServiceEvent } from "../../src/Domain/Event.js"
import { JobId, TenantId } from "../../src/Domain/Task.js"
import { Events } from "../../src/Events.js"
import { Http } from "../../src/Http.js"
import { SqlWriter } from "../../src/Sql/Writer.js"
import { concerns, makeCoordinator } from "../Http/scripted.js"
import { eventually } from "../Http/server.js"

const job = JobId.make("01900000-0000-7000-8000-00000000000a")
const counts = { total: 1, succeeded: 0, failed: 0, cancelled: 0 }

describe("Client.events of everything", () => {
  it.scopedLive("goes on where a connection broke, whether anything had come by then or not", () =>
    Effect.gen(function* () {
      const { service } = yield* makeCoordinator
      const context = yield* Layer.build(Http.layer.pipe(Layer.provideMerge(concerns(service))))
      const { url } = yield* Effect.provide(Http, context)
      const store = Effect.gen(function* () {
        const events = yield* Events
        const { write } = yield* SqlWriter
        yield* write(events.appendJob(job, TenantId.make("local"), 0, [{ type: "job.progress", ...counts }]))
      }).pipe(Effect.provide(context))

      const connections: Array<AbortController> = []
      let pieces = 0
      const breakable = Layer.succeed(FetchHttpClient.Fetch, async (input, init) => {
        const breaking = new AbortController()
        connections.push(breaking)
        const signal = AbortSignal.any([breaking.signal, ...(init?.signal == null ? [] : [init.signal])])
        const response = await fetch(input, { ...init, signal })
        const counted = response.body?.pipeThrough(
          new TransformStream<Uint8Array, Uint8Array>({
            transform: (chunk, controller) => {
              pieces += 1
              controller.enqueue(chunk)
            }
          })
        )
        return new Response(counted ?? null, response)
      })
      const client = yield* Client.make({ baseUrl: url }).pipe(
        Effect.provide(Layer.provide(FetchHttpClient.layer, breakable))
      )
      const breakIt = Effect.sync(() => connections.at(-1)?.abort())
      const connected = (count: number) =>
        eventually(
          Effect.sync(() => connections.length),
          (length) => length >= count
        )
      const seen: Array<ServiceEvent> = []
      const reads = (count: number) =>
        eventually(
          Effect.sync(() => seen.length),
          (length) => length >= count
        )
      yield* store
      yield* client.events({ types: ["job.*"], kind: "job" }).pipe(
        Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
        Effect.forkScoped
      )
      // The first piece says where the stream begins.
      yield* eventually(
        Effect.sync(() => pieces),
        (count) => count === 1
      )
      yield* breakIt
      yield* store
      yield* connected(2)
      yield* reads(1)
      yield* breakIt
      yield* store
      yield* connected(3)
      yield* reads(2)
      assert.deepStrictEqual(
        seen.map(({ id }) => id),
        [2, 3]
      )
      const [oldest] = yield* Stream.runCollect(Stream.take(client.events({ job }, 0), 1))
      assert.deepInclude(oldest, { id: 1, jobId: job })
    })
  )
})
