import { Effect } from "effect"
import type { SimulatedLimits, SimulatedPlatform } from "../../src/Simulator.js"
import { Simulator } from "../../src/Simulator.js"

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: bodies of four wire formats are looked into freely here
  readonly json: any
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
// biome-ignore lint/suspicious/noExplicitAny: as above
export const events = (text: string): ReadonlyArray<any> =>
  text
    .split(/\r?\n\r?\n/)
    .flatMap((block) => block.split(/\r?\n/))
    .filter((line) => line.startsWith("data: "))
    .map((line) => line.slice(6))
    .map((data) => (data === "[DONE]" ? data : JSON.parse(data)))

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
  options: { readonly stream?: boolean; readonly maxOutputTokens?: number; readonly key?: string | null } = {}
): Effect.Effect<Reply> => {
  const { maxOutputTokens, stream = false } = options
  const base = baseUrls[id]
  const key = options.key === undefined ? {} : { key: options.key }
  switch (id) {
    case "codex":
      return send(`${base}/responses`, {
        ...key,
        body: { model: models.codex, input: prompt, stream, max_output_tokens: maxOutputTokens }
      })
    case "gemini":
      return send(`${base}/models/${models.gemini}:${stream ? "streamGenerateContent?alt=sse" : "generateContent"}`, {
        ...key,
        body: { contents: [{ role: "user", parts: [{ text: prompt }] }], generationConfig: { maxOutputTokens } }
      })
    case "qwen":
    case "synthetic":
      return send(`${base}/chat/completions`, {
        ...key,
        body: {
          model: models[id],
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
  if (body?.output !== undefined) {
    return body.output.at(-1).content[0].text
  }
  if (body?.candidates !== undefined) return body.candidates[0].content.parts[0].text
  return body?.choices?.[0]?.message?.content
}
