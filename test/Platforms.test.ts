import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { PlatformId } from "../src/Domain/Platform.js"
import { Platforms } from "../src/Platforms.js"
import { Settings } from "../src/Settings.js"
import { apiKey, scripted } from "./Platforms/scripted.js"

const chatAnswer = (model: string) =>
  JSON.stringify({
    model,
    choices: [{ message: { content: "4" }, finish_reason: "stop" }],
    usage: { prompt_tokens: 1, completion_tokens: 1 }
  })

describe("Platforms", () => {
  it.effect("is one client for each platform of the settings, in their order, further ones included", () => {
    const http = scripted(() => ({ body: chatAnswer("llama") }))
    const settings = Settings.make({
      platforms: [
        Settings.platformDefaults("gemini", { apiKey: "g" }),
        Settings.platformDefaults("my-llama", { apiKey, baseUrl: "http://127.0.0.1:9/v1", model: "llama" }),
        Settings.platformDefaults("codex", { apiKey: "c" })
      ]
    })
    return Effect.gen(function* () {
      const platforms = yield* Platforms
      assert.deepStrictEqual<ReadonlyArray<string>>(
        platforms.all.map((client) => client.id),
        ["gemini", "my-llama", "codex"]
      )
      assert.isTrue(Option.isNone(platforms.get(PlatformId.make("nobody"))))
      const further = yield* platforms.get(PlatformId.make("my-llama"))
      const completion = yield* further.complete("llama", { messages: [{ role: "user", content: "what is 2+2" }] })
      assert.strictEqual(completion.text, "4")
      assert.strictEqual(http.received[0]?.url, "http://127.0.0.1:9/v1/chat/completions")
    }).pipe(Effect.provide(Platforms.layer.pipe(Layer.provide(http.layer), Layer.provide(Settings.layer(settings)))))
  })

  it.effect("can be given clients by a program", () => {
    const http = scripted({ body: "" })
    const settings = Settings.make({ platforms: [Settings.platformDefaults("codex", { apiKey })] })
    return Effect.gen(function* () {
      const { all } = yield* Platforms
      const again = yield* Effect.provide(Platforms, Platforms.layerClients(all))
      assert.strictEqual(again.all, all)
      assert.deepStrictEqual(again.get(PlatformId.make("codex")), Option.fromNullable(all[0]))
    }).pipe(Effect.provide(Platforms.layer.pipe(Layer.provide(http.layer), Layer.provide(Settings.layer(settings)))))
  })
})
