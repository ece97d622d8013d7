import { readFileSync } from "node:fs"
import { it } from "@effect/vitest"
import { Cause, Effect, Layer } from "effect"
import { assert, describe } from "vitest"
import { PlatformId } from "../../src/Domain/Platform.js"
import { Platforms } from "../../src/Platforms.js"
import { Settings } from "../../src/Settings.js"
import { Simulator } from "../../src/Simulator.js"
import { Team } from "../../src/Team.js"
import { ask, team } from "./embedding.js"
import * as own from "./own-platform.js"

describe("the example with a platform of one's own", () => {
  it.live("answers", () =>
    Effect.gen(function* () {
      const task = yield* own.ask("Hello")
      assert.deepStrictEqual([task.state, task.result?.text], ["succeeded", "You said: Hello"])
    }).pipe(Effect.provide(own.team))
  )

  it.scopedLive("is refused at once with the settings of another one", () =>
    Effect.gen(function* () {
      const mistaken = { ...own.echo, id: PlatformId.make("parrot") }
      const team = Team.layerWithPlatforms.pipe(
        Layer.provide(Platforms.layerClients([mistaken])),
        Layer.provide(Settings.layer(Settings.make({ database: ":memory:" })))
      )
      const cause = yield* Effect.flip(Effect.sandbox(Layer.build(team)))
      assert.include(Cause.pretty(cause), "The platform parrot has the settings of echo: give both the same id")
    })
  )
})

describe("the embedding example", () => {
  it.scopedLive("answers", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make(Simulator.instant)
      const settings = Settings.make({
        database: ":memory:",
        platforms: [
          Settings.platformDefaults("gemini", {
            apiKey: simulator.apiKeys.gemini,
            baseUrl: simulator.baseUrls.gemini
          })
        ]
      })
      const task = yield* Effect.provide(ask("Which HTTP status says that a resource is locked?"), team(settings))
      assert.strictEqual(task.state, "succeeded")
      assert.include(task.result?.text ?? "", "Simulated answer of gemini")
    })
  )

  it("is what the README shows", () => {
    const shown = readFileSync("README.md", "utf8")
    const source = readFileSync("test/examples/embedding.ts", "utf8").replace("../../src/index.js", "dream-team")
    assert.include(shown, `\`\`\`ts\n${source}\`\`\``)
  })
})
