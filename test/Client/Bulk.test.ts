import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Stream } from "effect"
import * as Client from "../../src/Client.js"
import type { BulkLine, BulkVerdict } from "../../src/Coordinator/Api.js"
import { maxBulkLines } from "../../src/Coordinator/Api.js"
import { Http } from "../../src/Http.js"
import { answer, layer } from "../../src/Testing.js"

class OwnError extends Error {
  readonly _tag = "OwnError"
}

const service = layer([{ id: "codex", attempts: [answer("done")] }], { port: 0 })

const overSocket = (transport: Layer.Layer<HttpClient.HttpClient>) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Layer.provideMerge(Http.layer, service))
    const { url } = yield* Effect.provide(Http, context)
    return yield* Effect.provide(Client.make({ baseUrl: url }), yield* Layer.build(transport))
  })

const transports = {
  memory: Effect.gen(function* () {
    const context = yield* Layer.build(Layer.provide(Http.layerClientMemory, service))
    return yield* Effect.provide(Client.make({ baseUrl: "http://localhost" }), context)
  }),
  fetch: overSocket(FetchHttpClient.layer),
  undici: overSocket(NodeHttpClient.layerUndici),
  "node:http": overSocket(NodeHttpClient.layer)
}

const two = Stream.make<[BulkLine, BulkLine]>({ prompt: "one" }, { prompt: "two" })

describe.each(Object.keys(transports) as ReadonlyArray<keyof typeof transports>)("many tasks over %s", (name) => {
  it.scopedLive("fail with what their own stream fails with", () =>
    Effect.gen(function* () {
      const client = yield* transports[name]
      const own = new OwnError("the file is gone")
      const failing = Stream.runDrain(client.tasks.submitAll(Stream.concat(two, Stream.fail(own))))
      assert.strictEqual(yield* Effect.flip(failing), own)
      const typed: Effect.Effect<void, Client.BulkError | Client.InvalidLine | OwnError> = failing
      assert.strictEqual(yield* Effect.flip(typed), own)
      const bytes = Stream.concat(Stream.encodeText(Stream.make('{"prompt":"one"}\n{"pro')), Stream.fail(own))
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(client.tasks.submitLines(bytes))), own)
    })
  )

  it.scopedLive("die of what their own stream dies of", () =>
    Effect.gen(function* () {
      const client = yield* transports[name]
      const exit = yield* Effect.exit(
        Stream.runDrain(client.tasks.submitAll(Stream.concat(two, Stream.die(new Error("a bug")))))
      )
      assert(Exit.isFailure(exit))
      assert.isTrue(Cause.isDie(exit.cause) && !Cause.isFailure(exit.cause))
      assert.include(Cause.squash(exit.cause), { message: "a bug" })
    })
  )

  it.scopedLive("name the line that is no submission", () =>
    Effect.gen(function* () {
      const client = yield* transports[name]
      const submissions = Stream.concat(two, Stream.make({ prompt: "three", maxOutputTokens: 0 }))
      const error = yield* Effect.flip(Stream.runDrain(client.tasks.submitAll(submissions)))
      assert.instanceOf(error, Client.InvalidLine)
      assert.include(error, { line: 3 })
      assert.match(error.message, /^Line 3 is no valid submission: [\s\S]*maxOutputTokens/)
    })
  )

  it.scopedLive("get a verdict each where nothing is wrong", () =>
    Effect.gen(function* () {
      const client = yield* transports[name]
      const verdicts = yield* Stream.runCollect(client.tasks.submitAll(two))
      assert.deepStrictEqual(
        Array.from(verdicts, (verdict) => "id" in verdict && verdict.line),
        [1, 2]
      )
    })
  )
})

const accepted = (line: number): string =>
  `${JSON.stringify({ line, id: "00000000-0000-4000-8000-000000000000", state: "queued" })}\n`

const refused = (line: number): string =>
  `${JSON.stringify({ line, error: { type: "task-refused", message: "no", details: {} } })}\n`

/** A client of a service that reads everything, unless told not to, and answers this. */
const answeredBy = (pieces: ReadonlyArray<string>, end: "ends" | "breaks" = "ends", isRead = true) =>
  Effect.provide(
    Client.make({ baseUrl: "http://localhost" }),
    Http.layerClientOver(async (request) => {
      if (isRead) await request.text()
      const encoder = new TextEncoder()
      const left = [...pieces]
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          const piece = left.shift()
          if (piece !== undefined) controller.enqueue(encoder.encode(piece))
          else if (end === "ends") controller.close()
          else controller.error(new Error("the connection is gone"))
        }
      })
      return new Response(body)
    })
  )

const linesOf = (text: string) => Stream.encodeText(Stream.fromIterable(text.split(/(?<=a)/)))

const outcome = (client: Client.Client, text: string, idempotencyKey?: string) => {
  const seen: Array<BulkVerdict> = []
  return client.tasks.submitLines(linesOf(text), { idempotencyKey }).pipe(
    Stream.runForEach((verdict) => Effect.sync(() => seen.push(verdict))),
    Effect.exit,
    Effect.map((exit) => ({
      lines: seen.map(({ line }) => line),
      error: Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
    }))
  )
}

describe("an answer with fewer verdicts than lines", () => {
  it.effect("is an error that says how many lines are known to be accepted", () =>
    Effect.gen(function* () {
      const client = yield* answeredBy([accepted(1), refused(2)])
      const { error, lines } = yield* outcome(client, "{a}\n\n{b}\n \t\r\n{c}")
      assert.deepStrictEqual(lines, [1, 2])
      assert.instanceOf(error, Client.VerdictsMissing)
      assert.include(error, { sent: 3, answered: 2, accepted: 1 })
      assert.include(error.message, "only with an idempotency key")
      const keyed = yield* outcome(client, "{a}\n{b}\n{c}\n", "K")
      assert.instanceOf(keyed.error, Client.VerdictsMissing)
      assert.include(keyed.error.message, "send all again with the same idempotency key")
    })
  )

  it.effect("is one too where it breaks off, within a verdict or between two", () =>
    Effect.gen(function* () {
      for (const cut of ["", accepted(2).slice(0, 20)]) {
        for (const end of ["ends", "breaks"] as const) {
          const client = yield* answeredBy(
            [accepted(1), cut].filter((piece) => piece !== ""),
            end
          )
          const { error } = yield* outcome(client, "{a}\n{b}\n")
          assert.instanceOf(error, Client.VerdictsMissing)
          assert.include(error, { sent: 2, answered: 1, accepted: 1 })
          assert.strictEqual(error.cause !== undefined, end === "breaks")
        }
      }
    })
  )

  it.effect("is one too where it ends before all lines were sent", () =>
    Effect.gen(function* () {
      const client = yield* answeredBy([accepted(1)], "ends", false)
      const endless = Stream.concat(linesOf("{a}\n"), Stream.never)
      assert.instanceOf(yield* Effect.flip(Stream.runDrain(client.tasks.submitLines(endless))), Client.VerdictsMissing)
    })
  )

  it.effect("is none where blank lines are the difference, or the bound, which the last verdict tells", () =>
    Effect.gen(function* () {
      const blank = yield* answeredBy([accepted(2), accepted(4)])
      assert.isUndefined((yield* outcome(blank, "\n{a}\n \t\r\n\t{b}\n\n")).error)
      const many = yield* answeredBy([accepted(1), refused(maxBulkLines + 1)])
      assert.isUndefined((yield* outcome(many, "{a}\n{b}\n{c}\n")).error)
    })
  )
})
