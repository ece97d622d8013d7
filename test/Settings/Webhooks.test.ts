import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"
import { load } from "../../src/Settings/Load.js"

const secret = `whsec_${Buffer.from("a secret of at least 24 bytes").toString("base64")}`
const other = `whsec_${Buffer.from("another one, twice as long as the first one").toString("base64")}`

const loaded = (variables: Readonly<Record<string, string>>) =>
  load({}).pipe(
    Effect.provide(NodeFileSystem.layer),
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))
  )

const mistakes = (variables: Readonly<Record<string, string>>) =>
  Effect.map(Effect.flip(loaded(variables)), (error) => {
    assert.notInclude(JSON.stringify(error), "c2VjcmV0")
    return error.problems.map(({ key, problem, expected }) => `${key}: ${problem}; ${expected}`).join("\n")
  })

describe("the settings of webhooks", () => {
  it.effect("take several secrets, and show none of them", () =>
    Effect.gen(function* () {
      const { entries, settings } = yield* loaded({
        DREAM_TEAM_WEBHOOK_SECRETS: `${secret}, ${other}`,
        DREAM_TEAM_WEBHOOK_URL: "https://ops.example/hooks?token=hidden"
      })
      assert.deepStrictEqual(settings.webhooks.secrets.map(Redacted.value), [secret, other])
      assert.deepInclude(settings.webhooks, { allowPrivate: false, urlFor: "attention", expireMs: 3 * 86_400_000 })
      assert.strictEqual(settings.webhooks.url, "https://ops.example/hooks?token=hidden")
      const shown = JSON.stringify([entries, settings])
      assert.notInclude(shown, secret)
      assert.notInclude(JSON.stringify(entries), "hidden")
      assert.include(shown, "ops.example")
    })
  )

  it.effect("refuse what is no secret, and a URL that no webhook could go to", () =>
    Effect.gen(function* () {
      for (const wrong of ["c2VjcmV0", "whsec_c2VjcmV0", `whsec_${"c2VjcmV0".repeat(20)}`, "whsec_c2VjcmV0!"]) {
        const said = yield* mistakes({ DREAM_TEAM_WEBHOOK_SECRETS: wrong })
        assert.include(said, "DREAM_TEAM_WEBHOOK_SECRETS")
        assert.include(said, "whsec_ and the base64 of 24 to 64 random bytes")
      }
      assert.include(yield* mistakes({ DREAM_TEAM_WEBHOOK_URL: "https://ops.example/" }), "there is no secret")
      const secrets = { DREAM_TEAM_WEBHOOK_SECRETS: secret }
      for (const url of ["https://10.0.0.1/", "http://ops.example/", "https://user:pass@ops.example/"]) {
        assert.include(yield* mistakes({ ...secrets, DREAM_TEAM_WEBHOOK_URL: url }), "webhooks cannot go there", url)
      }
      const { settings } = yield* loaded({
        ...secrets,
        DREAM_TEAM_WEBHOOK_URL: "http://10.0.0.1/",
        DREAM_TEAM_WEBHOOK_ALLOW_PRIVATE: "true"
      })
      assert.strictEqual(settings.webhooks.allowPrivate, true)
    })
  )
})
