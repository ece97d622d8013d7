import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import * as OtlpTracer from "@effect/opentelemetry/OtlpTracer"
import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import {
  Config,
  ConfigProvider,
  Duration,
  Effect,
  FiberRef,
  HashSet,
  Layer,
  Logger,
  LogLevel,
  Option,
  Record
} from "effect"
import { Settings } from "./Settings.js"
import { type OtlpTarget, resolveTarget } from "./Telemetry/OtelEnvironment.js"

export type { OtlpTarget } from "./Telemetry/OtelEnvironment.js"

/** How log entries are written: a JSON object a line for programs, or coloured text for people. */
export type LogFormat = "json" | "pretty"

/** Exports that may be under way at once; what comes while all are slow is dropped, so that memory stays bounded. */
const maxExports = 8

/** Header names whose values a span never shows, beside those that @effect/platform hides by itself. */
const secretHeaders = ["x-goog-api-key", "proxy-authorization"]

/**
 * The one logger, on stderr: stdout belongs to results. It takes the place of every other one but the one that puts log
 * entries into spans.
 */
const layerLogger = (format: LogFormat, level: LogLevel.Literal): Layer.Layer<never> =>
  Layer.merge(
    Layer.scopedDiscard(
      Effect.locallyScoped(
        FiberRef.currentLoggers,
        HashSet.make<Array<Logger.Logger<unknown, unknown>>>(
          format === "pretty" ? Logger.prettyLogger({ stderr: true }) : Logger.withConsoleError(Logger.jsonLogger),
          Logger.tracerLogger
        )
      )
    ),
    Logger.minimumLogLevel(LogLevel.fromLiteral(level))
  )

/** A client for exports: each ends within `timeoutMs`, and only `maxExports` go on at once. */
const exporting = (client: HttpClient.HttpClient, timeoutMs: number): HttpClient.HttpClient => {
  let underWay = 0
  return HttpClient.transform(client, (response, request) =>
    Effect.suspend(() => {
      if (underWay >= maxExports) {
        // Not `Transport`, which the exporter would retry.
        return new HttpClientError.RequestError({
          request,
          reason: "Encode",
          description: "the collector is too slow, spans are dropped"
        })
      }
      underWay++
      return response.pipe(
        Effect.timeoutFail({
          duration: Duration.millis(timeoutMs),
          onTimeout: () =>
            new HttpClientError.RequestError({
              request,
              reason: "Transport",
              description: `no answer within ${timeoutMs} ms`
            })
        }),
        Effect.ensuring(
          Effect.sync(() => {
            underWay--
          })
        )
      )
    })
  )
}

/**
 * Sends spans to an OpenTelemetry collector over OTLP/HTTP, in batches, at the latest after 5 s and when the scope
 * closes. The requests it makes are no spans themselves. While the collector is out of reach, spans are dropped.
 */
const layerOtlp = (target: OtlpTarget): Layer.Layer<never, never, HttpClient.HttpClient> =>
  Layer.merge(
    Layer.unwrapScoped(
      Effect.gen(function* () {
        const client = yield* HttpClient.HttpClient
        const tracer = yield* OtlpTracer.make({
          url: target.tracesUrl,
          headers: target.headers,
          resource: { serviceName: target.serviceName, attributes: target.attributes }
        }).pipe(
          Effect.provideService(HttpClient.HttpClient, exporting(client, target.timeoutMs)),
          // The resource is already complete: read again, it would hold the service's name twice.
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map()))
        )
        return Layer.setTracer(tracer)
      })
    ).pipe(
      Layer.provide(target.protocol === "http/protobuf" ? OtlpSerialization.layerProtobuf : OtlpSerialization.layerJson)
    ),
    Layer.scopedDiscard(Effect.locallyScopedWith(Headers.currentRedactedNames, (names) => [...names, ...secretHeaders]))
  )

const variables = [
  "OTEL_SDK_DISABLED",
  "OTEL_TRACES_EXPORTER",
  "OTEL_EXPORTER_OTLP_ENDPOINT",
  "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
  "OTEL_EXPORTER_OTLP_HEADERS",
  "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
  "OTEL_EXPORTER_OTLP_PROTOCOL",
  "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
  "OTEL_EXPORTER_OTLP_TIMEOUT",
  "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
  "OTEL_SERVICE_NAME",
  "OTEL_RESOURCE_ATTRIBUTES"
] as const

/** Logs and spans. */
export const Telemetry = {
  layerLogger,

  /** Log entries on stderr, at the level of the settings: JSON lines, or text for people where stderr is a terminal. */
  layer: Layer.unwrapEffect(
    Effect.map(Settings, ({ logLevel }) =>
      layerLogger(process.stderr.isTTY === true ? "pretty" : "json", logLevel ?? "Info")
    )
  ),

  layerOtlp,

  /**
   * Spans to the collector that OpenTelemetry's own variables name; where they name none, tracing is switched off.
   * `OTEL_EXPORTER_OTLP_PROTOCOL` may be `http/json` (the default) or `http/protobuf`.
   */
  layerConfig: Layer.unwrapEffect(
    Effect.gen(function* () {
      const found = yield* Effect.forEach(variables, (name) =>
        Config.option(Config.string(name)).pipe(
          Effect.orElseSucceed(() => Option.none<string>()),
          Effect.map((value) => [name, Option.getOrElse(value, () => "").trim()] as const)
        )
      )
      const { target, warnings } = resolveTarget(Record.fromEntries(found.filter(([, value]) => value !== "")))
      yield* Effect.forEach(warnings, (warning) => Effect.logWarning(warning), { discard: true })
      // Spans that nobody reads are not made at all.
      return target === undefined ? Layer.setTracerEnabled(false) : layerOtlp(target)
    })
  )
} as const
