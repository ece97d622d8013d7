import { Effect, Predicate, Schema } from "effect"
import type { SimulatedLimits, SimulatedPlatform } from "../../src/Simulator.js"
import { Simulator } from "../../src/Simulator.js"

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** Undefined where the body is not JSON. */
  readonly json: unknown
}

export const send = (
  url: string,
  options: {
    readonly method?: string
    readonly key?: string | null
    readonly headers?: Record<string, string>
    readonly body?: unknown
  } = {}
): Effect.Effect<Reply> =>
  Effect.promise(async (signal) => {
    const key = options.key === undefined ? "any-key" : options.key
    const response = await fetch(url, {
      method: options.method ?? (options.body === undefined ? "GET" : "POST"),
      headers: {
        ...(key === null ? {} : { authorization: `Bearer ${key}`, "x-goog-api-key": key }),
        "content-type": "application/json",
        ...options.headers
      },
      ...(options.body === undefined
        ? {}
        : { body: typeof options.body === "string" ? options.body : JSON.stringify(options.body) }),
      signal
    })
    const text = await response.text()
    let json: unknown
    try {
      json = JSON.parse(text)
    } catch {
      json = undefined
    }
    return { status: response.status, headers: response.headers, text, json }
  })

/** The data of each server-sent event; `[DONE]` stays text. */
export const events = (text: string): ReadonlyArray<unknown> =>
  text
    .split(/\r?\n\r?\n/)
    .flatMap((block) => block.split(/\r?\n/))
    .filter((line) => line.startsWith("data: "))
    .map((line) => line.slice(6))
    .map((data): unknown => (data === "[DONE]" ? data : JSON.parse(data)))

type Path = ReadonlyArray<string | number>

/** What is at `path`, undefined where any of it is absent. A negative index counts from the end. */
export const maybeAt = (json: unknown, ...path: Path): unknown =>
  path.reduce<unknown>((value, key) => {
    if (Array.isArray(value) && typeof key === "number") return value.at(key)
    return Predicate.hasProperty(value, key) ? value[key] : undefined
  }, json)

/** What is at `path`. Only its last step may be absent: an assertion must not hold because nothing was there. */
export const at = (json: unknown, ...path: Path): unknown =>
  path.reduce<unknown>((value, key) => {
    if (Predicate.isNullable(value)) throw new Error(`no ${path.join(".")} in ${JSON.stringify(json)}`)
    return maybeAt(value, key)
  }, json)

const typedAt =
  <A>(schema: Schema.Schema<A>) =>
  (json: unknown, ...path: Path): A =>
    Schema.decodeUnknownSync(schema)(at(json, ...path))

export const textAt = typedAt(Schema.String)
export const numberAt = typedAt(Schema.Number)
export const listAt = typedAt(Schema.Array(Schema.Unknown))

export const models = {
  codex: "gpt-6-sol",
  gemini: "gemini-3.8-flash",
  qwen: "qwen3.8-max",
  synthetic: "hf:zai-org/GLM-5.2"
} as const

export type FourIds = keyof typeof models
export const ids: ReadonlyArray<FourIds> = ["codex", "gemini", "qwen", "synthetic"]

/** A request of each platform's own format that asks `prompt`. */
export const ask = (
  baseUrls: Readonly<Record<FourIds, string>>,
  id: FourIds,
  prompt: string,
  options: {
    readonly stream?: boolean
    readonly maxOutputTokens?: number
    readonly key?: string | null
    readonly model?: string
  } = {}
): Effect.Effect<Reply> => {
  const { maxOutputTokens, model = models[id], stream = false } = options
  const base = baseUrls[id]
  const key = options.key === undefined ? {} : { key: options.key }
  switch (id) {
    case "codex":
      return send(`${base}/responses`, {
        ...key,
        body: { model, input: prompt, stream, max_output_tokens: maxOutputTokens }
      })
    case "gemini":
      return send(`${base}/models/${model}:${stream ? "streamGenerateContent?alt=sse" : "generateContent"}`, {
        ...key,
        body: { contents: [{ role: "user", parts: [{ text: prompt }] }], generationConfig: { maxOutputTokens } }
      })
    case "qwen":
    case "synthetic":
      return send(`${base}/chat/completions`, {
        ...key,
        body: {
          model,
          messages: [{ role: "user", content: prompt }],
          max_tokens: maxOutputTokens,
          ...(stream ? { stream, stream_options: { include_usage: true } } : {})
        }
      })
  }
}

/** The four platforms at once, `id`'s limits and others as told. */
export const simulator = (
  changes: Partial<Record<FourIds, Partial<SimulatedPlatform>>> = {},
  options: { readonly seed?: number; readonly latencyScale?: number } = {}
) =>
  Simulator.make({
    ...options,
    seed: options.seed ?? 1,
    platforms: {
      codex: { ...Simulator.instant.platforms.codex, ...changes.codex },
      gemini: { ...Simulator.instant.platforms.gemini, ...changes.gemini },
      qwen: { ...Simulator.instant.platforms.qwen, ...changes.qwen },
      synthetic: { ...Simulator.instant.platforms.synthetic, ...changes.synthetic }
    }
  })

export const limitedTo = (id: FourIds, limits: SimulatedLimits) => simulator({ [id]: { limits } })

/** What the answer says, whatever its format. */
export const textOf = (reply: Reply): string => {
  const body = reply.json
  if (maybeAt(body, "output") !== undefined) return textAt(body, "output", -1, "content", 0, "text")
  if (maybeAt(body, "candidates") !== undefined) return textAt(body, "candidates", 0, "content", "parts", 0, "text")
  return textAt(body, "choices", 0, "message", "content")
}
