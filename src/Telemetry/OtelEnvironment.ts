import { Either, Encoding, Option } from "effect"

/** A collector, and who we are to it. */
export interface OtlpTarget {
  /** Where spans are posted, such as `http://127.0.0.1:4318/v1/traces`. */
  readonly tracesUrl: string
  readonly protocol: "http/json" | "http/protobuf"
  readonly headers: Readonly<Record<string, string>>
  readonly serviceName: string
  /** Further attributes of the resource. */
  readonly attributes: Readonly<Record<string, string>>
  /** How long one export may take, ms. */
  readonly timeoutMs: number
}

type Variables = Readonly<Record<string, string>>

export interface Resolved {
  /** Absent where nothing is to be exported. */
  readonly target: OtlpTarget | undefined
  /** What was not understood and so ignored. */
  readonly warnings: ReadonlyArray<string>
}

const decoded = (text: string): string | undefined =>
  Option.getOrUndefined(Either.getRight(Encoding.decodeUriComponent(text)))

/** `key=value,key=value` with percent-encoded values: the form of headers and attributes in OpenTelemetry's variables. */
const pairs = (
  name: string,
  text: string | undefined,
  warn: (text: string) => void
): Readonly<Record<string, string>> => {
  const result: Record<string, string> = {}
  for (const pair of (text ?? "").split(",").filter((part) => part.trim() !== "")) {
    const equals = pair.indexOf("=")
    const key = pair.slice(0, Math.max(equals, 0)).trim()
    const value = equals === -1 ? undefined : decoded(pair.slice(equals + 1).trim())
    // A pair may hold a secret: only the variable is named.
    if (key === "" || value === undefined) warn(`${name} holds a part that is not key=value; that part is ignored`)
    else result[key] = value
  }
  return result
}

const isHttp = (text: string): boolean => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)

/**
 * Reads OpenTelemetry's variables as its specification has them ("Environment Variable Specification" and "OpenTelemetry
 * Protocol Exporter"): the variable of the signal wins over the general one, a general endpoint gets `/v1/traces`
 * appended, and a value that is not understood is ignored with a warning.
 */
export const resolveTarget = (variables: Variables): Resolved => {
  const warnings: Array<string> = []
  const warn = (text: string): void => {
    warnings.push(text)
  }
  const signal = (name: string): readonly [name: string, value: string | undefined] => {
    const own = `OTEL_EXPORTER_OTLP_TRACES_${name}`
    const general = `OTEL_EXPORTER_OTLP_${name}`
    return variables[own] === undefined ? [general, variables[general]] : [own, variables[own]]
  }

  const off =
    variables.OTEL_SDK_DISABLED?.toLowerCase() === "true" || variables.OTEL_TRACES_EXPORTER?.toLowerCase() === "none"
  const [endpointName, endpoint] = signal("ENDPOINT")
  if (off || endpoint === undefined) return { target: undefined, warnings }
  if (!isHttp(endpoint)) {
    warn(`${endpointName} is not an http or https URL; no spans are exported`)
    return { target: undefined, warnings }
  }
  const tracesUrl =
    endpointName === "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" ? endpoint : `${endpoint.replace(/\/+$/, "")}/v1/traces`

  const [protocolName, protocol] = signal("PROTOCOL")
  if (protocol !== undefined && protocol !== "http/json" && protocol !== "http/protobuf") {
    warn(`${protocolName}=${protocol} is not supported; http/json is used`)
  }

  const [timeoutName, timeout] = signal("TIMEOUT")
  const timeoutMs = timeout === undefined ? undefined : Number(timeout)
  const usable = timeoutMs !== undefined && Number.isInteger(timeoutMs) && timeoutMs > 0
  if (timeout !== undefined && !usable) warn(`${timeoutName} is not a number of milliseconds; 10000 is used`)

  const [headersName, headers] = signal("HEADERS")
  const { "service.name": named, ...attributes } = pairs(
    "OTEL_RESOURCE_ATTRIBUTES",
    variables.OTEL_RESOURCE_ATTRIBUTES,
    warn
  )
  return {
    target: {
      tracesUrl,
      protocol: protocol === "http/protobuf" ? protocol : "http/json",
      headers: pairs(headersName, headers, warn),
      serviceName: variables.OTEL_SERVICE_NAME ?? named ?? "dream-team",
      attributes,
      timeoutMs: usable ? timeoutMs : 10_000
    },
    warnings
  }
}
