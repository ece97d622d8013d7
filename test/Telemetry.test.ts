import { createServer, type IncomingHttpHeaders } from "node:http"
import { Headers, HttpClient } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted } from "effect"
import { Settings } from "../src/Settings.js"
import { resolveTarget } from "../src/Telemetry/OtelEnvironment.js"
import { Telemetry } from "../src/Telemetry.js"
import { captured } from "./support/CapturedConsole.js"

interface Received {
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** An HTTP server that takes whatever is posted to it. */
const collector = Effect.acquireRelease(
  Effect.async<{ readonly origin: string; readonly received: Array<Received>; readonly close: () => void }>(
    (resume) => {
      const received: Array<Received> = []
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          received.push({
            url: request.url ?? "",
            headers: request.headers,
            body: Buffer.concat(chunks).toString("utf8")
          })
          response.end("{}")
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ origin: `http://127.0.0.1:${port}`, received, close: () => server.close() }))
      })
    }
  ),
  ({ close }) => Effect.sync(close)
)

const traced = <A, E, R>(effect: Effect.Effect<A, E, R>, variables: Record<string, string>) =>
  effect.pipe(
    Effect.provide(
      Telemetry.layerConfig.pipe(
        Layer.provide(
          Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))
        )
      )
    ),
    Effect.provide(NodeHttpClient.layerUndici)
  )

describe("Telemetry.layerConfig", () => {
  it.scopedLive("exports spans over real HTTP when the scope closes, and not the export itself", () =>
    Effect.gen(function* () {
      const { origin, received } = yield* collector
      yield* traced(
        Effect.void.pipe(Effect.withSpan("inner", { attributes: { platform: "codex" } }), Effect.withSpan("outer")),
        {
          OTEL_EXPORTER_OTLP_ENDPOINT: `${origin}/`,
          OTEL_EXPORTER_OTLP_HEADERS: "x-token=a%20b, x-other=c=d",
          OTEL_SERVICE_NAME: "team",
          OTEL_RESOURCE_ATTRIBUTES: "service.name=ignored,deployment.environment=test%2C1"
        }
      )
      expect(received).toHaveLength(1)
      const [request] = received
      expect(request).toMatchObject({ url: "/v1/traces", headers: { "x-token": "a b", "x-other": "c=d" } })
      expect(request?.headers).not.toHaveProperty("traceparent")
      expect(request?.headers).not.toHaveProperty("b3")
      const { resourceSpans } = JSON.parse(request?.body ?? "")
      expect(resourceSpans).toHaveLength(1)
      const [{ resource, scopeSpans }] = resourceSpans
      expect(resource.attributes).toEqual(
        expect.arrayContaining([
          { key: "service.name", value: { stringValue: "team" } },
          { key: "deployment.environment", value: { stringValue: "test,1" } }
        ])
      )
      expect(resource.attributes).toHaveLength(2)
      const spans: ReadonlyArray<{ name: string; spanId: string; parentSpanId?: string }> = scopeSpans[0].spans
      expect(spans.map(({ name }) => name)).toEqual(["inner", "outer"])
      expect(spans[0]?.parentSpanId).toBe(spans[1]?.spanId)
    })
  )

  it.scopedLive("hides the keys of outgoing requests", () =>
    Effect.gen(function* () {
      const { origin, received } = yield* collector
      const secrets = { authorization: "hush-1", "x-api-key": "hush-2", "x-goog-api-key": "hush-3" }
      yield* traced(Effect.scoped(HttpClient.get(`${origin}/asked`, { headers: Headers.fromInput(secrets) })), {
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${origin}/own/path`
      })
      const exported = received.find(({ url }) => url === "/own/path")
      expect(exported?.body).toContain("/asked")
      expect(exported?.body).not.toContain("hush")
    })
  )

  it.scopedLive("survives a collector that is not there", () =>
    Effect.gen(function* () {
      const { origin } = yield* Effect.scoped(collector)
      const result = yield* traced(Effect.withSpan(Effect.succeed("done"), "span"), {
        OTEL_EXPORTER_OTLP_ENDPOINT: origin
      })
      expect(result).toBe("done")
    })
  )

  it.effect("does nothing where no collector is named or it is switched off", () =>
    Effect.gen(function* () {
      const calls: Array<string> = []
      const forbidden = HttpClient.make((request) => {
        calls.push(request.url)
        return Effect.die("no request was expected")
      })
      for (const variables of [
        {},
        { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_SDK_DISABLED: "TRUE" },
        { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_TRACES_EXPORTER: "none" }
      ]) {
        const { traceId } = yield* Effect.withSpan(Effect.currentSpan, "span").pipe(
          Effect.provide(Telemetry.layerConfig),
          Effect.provideService(HttpClient.HttpClient, forbidden),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))
        )
        expect(traceId).toBe("noop")
      }
      expect(calls).toEqual([])
    })
  )
})

describe("resolveTarget", () => {
  it("prefers the variables of the signal and appends the path only to the general endpoint", () => {
    const { target } = resolveTarget({
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://general:4318",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://own/path",
      OTEL_EXPORTER_OTLP_HEADERS: "a=1",
      OTEL_EXPORTER_OTLP_TRACES_HEADERS: "b=2",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
      OTEL_EXPORTER_OTLP_TIMEOUT: "250",
      OTEL_RESOURCE_ATTRIBUTES: "service.name=from-attributes"
    })
    expect(target).toEqual({
      tracesUrl: "https://own/path",
      protocol: "http/protobuf",
      headers: { b: "2" },
      serviceName: "from-attributes",
      attributes: {},
      timeoutMs: 250
    })
    expect(resolveTarget({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://general:4318/base/" }).target).toMatchObject({
      tracesUrl: "http://general:4318/base/v1/traces",
      protocol: "http/json",
      serviceName: "dream-team",
      timeoutMs: 10_000
    })
  })

  it("ignores what it does not understand, with a warning that shows no secret", () => {
    const { target, warnings } = resolveTarget({
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://general:4318",
      OTEL_EXPORTER_OTLP_HEADERS: "hush,ok=1,bad=%zz-hush",
      OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
      OTEL_EXPORTER_OTLP_TIMEOUT: "soon"
    })
    expect(target).toMatchObject({ protocol: "http/json", headers: { ok: "1" }, timeoutMs: 10_000 })
    expect(warnings).toHaveLength(4)
    expect(warnings.join()).not.toContain("hush")
    expect(resolveTarget({ OTEL_EXPORTER_OTLP_ENDPOINT: "localhost:4318" })).toMatchObject({
      target: undefined,
      warnings: [expect.stringContaining("OTEL_EXPORTER_OTLP_ENDPOINT")]
    })
  })
})

describe("Telemetry.layerLogger", () => {
  it.effect("writes JSON lines to stderr, at the level asked for, without secrets", () =>
    Effect.gen(function* () {
      const { error, out } = yield* captured(
        Effect.logInfo("started").pipe(
          Effect.zipRight(Effect.logDebug("not wanted")),
          Effect.annotateLogs({ key: Redacted.make("hush"), port: 7337 }),
          Effect.provide(Telemetry.layerLogger("json", "Info"))
        )
      )
      expect(out).toBe("")
      expect(JSON.parse(error)).toMatchObject({
        message: "started",
        logLevel: "INFO",
        annotations: { port: 7337 }
      })
      expect(error).not.toContain("hush")
    })
  )

  it.effect("takes its level from the settings", () =>
    Effect.gen(function* () {
      const layer = Telemetry.layer.pipe(Layer.provide(Settings.layer(Settings.make({ logLevel: "Error" }))))
      const { error } = yield* captured(
        Effect.provide(Effect.zipRight(Effect.logInfo("quiet"), Effect.logError("loud")), layer)
      )
      expect(error).toContain("loud")
      expect(error).not.toContain("quiet")
    })
  )
})
