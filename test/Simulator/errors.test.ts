import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { ask, at, type FourIds, ids, models, send, simulator } from "./support.js"

const invalidKey: Record<FourIds, { readonly status: number; readonly body: object }> = {
  codex: {
    status: 401,
    body: { error: { code: "invalid_api_key", message: expect.any(String), type: expect.any(String) } }
  },
  gemini: {
    status: 400,
    body: {
      error: {
        code: 400,
        status: "INVALID_ARGUMENT",
        details: [
          { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "API_KEY_INVALID", domain: "googleapis.com" },
          {}
        ]
      }
    }
  },
  qwen: { status: 401, body: { error: { code: "invalid_api_key" }, request_id: expect.any(String) } },
  synthetic: { status: 401, body: { error: expect.any(String) } }
}

const unknownModel: Record<FourIds, { readonly status: number; readonly body: object }> = {
  codex: { status: 404, body: { error: { code: "model_not_found" } } },
  gemini: { status: 404, body: { error: { code: 404, status: "NOT_FOUND" } } },
  qwen: { status: 404, body: { error: { code: "model_not_found" }, request_id: expect.any(String) } },
  synthetic: { status: 404, body: { error: expect.stringContaining("nothing-4") } }
}

const tooLong: Record<FourIds, { readonly status: number; readonly body: object }> = {
  codex: { status: 400, body: { error: { code: "context_length_exceeded" } } },
  gemini: {
    status: 400,
    body: {
      error: {
        status: "INVALID_ARGUMENT",
        message: "The input token count (100) exceeds the maximum number of tokens allowed (50)."
      }
    }
  },
  qwen: {
    status: 400,
    body: {
      error: {
        code: "invalid_parameter_error",
        message: expect.stringContaining("Range of input length should be [1, 50]")
      }
    }
  },
  synthetic: { status: 400, body: { error: expect.stringContaining("context length") } }
}

const callUrl = (baseUrls: Readonly<Record<FourIds, string>>, id: FourIds, model: string): string =>
  id === "gemini"
    ? `${baseUrls.gemini}/models/${model}:generateContent`
    : `${baseUrls[id]}/${id === "codex" ? "responses" : "chat/completions"}`

const simplest = (id: FourIds, model: string): unknown =>
  id === "gemini"
    ? { contents: [{ parts: [{ text: "hello" }] }] }
    : id === "codex"
      ? { model, input: "hello" }
      : { model, messages: [{ role: "user", content: "hello" }] }

describe("refusals, each in its platform's own shape", () => {
  it.scoped("a wrong key, and none", () =>
    Effect.gen(function* () {
      const running = yield* simulator(Object.fromEntries(ids.map((id) => [id, { apiKey: "right" }])))
      for (const id of ids) {
        const wrong = yield* ask(running.baseUrls, id, "hello", { key: "wrong" })
        expect(wrong.status, id).toBe(invalidKey[id].status)
        expect(wrong.json, id).toMatchObject(invalidKey[id].body)
        expect(wrong.text).not.toContain("wrong")
        const none = yield* ask(running.baseUrls, id, "hello", { key: null })
        expect(none.status, id).toBe(id === "gemini" ? 403 : 401)
        expect((yield* ask(running.baseUrls, id, "hello", { key: "right" })).status, id).toBe(200)
        expect((yield* send(`${running.baseUrls[id]}/models`, { key: "wrong" })).status, id).toBe(invalidKey[id].status)
      }
      const { platforms } = yield* running.stats
      expect(platforms.qwen).toMatchObject({ received: 3, refused: 2, answered: 1, otherRequests: 1, inputTokens: 2 })
    })
  )

  it.scoped("an unknown model, and too much input", () =>
    Effect.gen(function* () {
      const running = yield* simulator(Object.fromEntries(ids.map((id) => [id, { contextWindow: 50 }])))
      for (const id of ids) {
        const unknown = yield* send(callUrl(running.baseUrls, id, "nothing-4"), { body: simplest(id, "nothing-4") })
        expect(unknown.status, id).toBe(unknownModel[id].status)
        expect(unknown.json, id).toMatchObject(unknownModel[id].body)
        const long = yield* ask(running.baseUrls, id, "x".repeat(400))
        expect(long.status, id).toBe(tooLong[id].status)
        expect(long.json, id).toMatchObject(tooLong[id].body)
      }
    })
  )

  it.scoped("bodies that are not JSON, or not a request", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      for (const id of ids) {
        const url = callUrl(baseUrls, id, models[id])
        for (const body of ["{", "", "[]", { model: models[id] }]) {
          const reply = yield* send(url, { method: "POST", body })
          expect(reply.status, `${id} ${JSON.stringify(body)}`).toBe(400)
          expect(at(reply.json, "error"), id).toBeDefined()
        }
      }
      const named = yield* send(callUrl(baseUrls, "qwen", ""), {
        body: { model: models.qwen, messages: [{ role: "wizard", content: "x" }] }
      })
      expect(at(named.json, "error")).toMatchObject({ code: "invalid_parameter_error", param: "messages.0.role" })
      const extra = yield* send(callUrl(baseUrls, "gemini", models.gemini), {
        body: { contents: [{ parts: [{ text: "x" }] }], max_tokens: 5 }
      })
      expect(at(extra.json, "error")).toMatchObject({
        status: "INVALID_ARGUMENT",
        message: expect.stringContaining("Unknown name")
      })
    })
  )

  it.scoped("unknown routes and wrong methods", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      for (const id of ids) {
        expect((yield* send(`${baseUrls[id]}/nothing`)).status, id).toBe(404)
        const get = yield* send(callUrl(baseUrls, id, models[id]))
        expect(get.status, id).toBe(id === "gemini" ? 404 : 405)
        expect(at(get.json, "error"), id).toBeDefined()
      }
    })
  )

  it.scoped("a body of more than 8 MiB is a 413 that its sender can read", () =>
    Effect.gen(function* () {
      const { baseUrls } = yield* simulator()
      const reply = yield* ask(baseUrls, "codex", "x".repeat(9 * 1024 * 1024))
      expect(reply.status).toBe(413)
      expect(at(reply.json, "error", "code")).toBe("request_too_large")
      expect((yield* ask(baseUrls, "codex", "small")).status).toBe(200)
    })
  )
})
