import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck, Option } from "effect"
import { filter, judge } from "../../src/AgentRouter/Requirement.js"
import type { Requirement } from "../../src/Domain/Lease.js"
import { Capability, PlatformId } from "../../src/Domain/Platform.js"
import { Settings } from "../../src/Settings.js"

const apiKey = "a-key-of-no-use"

/** The team as it is where nothing is configured but keys, and a further platform with nothing but URL and model. */
const team = [
  ...(["codex", "gemini", "qwen", "synthetic"] as const).map((id) => Settings.platformDefaults(id, { apiKey })),
  Settings.platformDefaults("local", { apiKey, baseUrl: "http://127.0.0.1:11434/v1", model: "llama" })
]

const id = (name: string) => PlatformId.make(name)

interface Case {
  readonly name: string
  readonly need?: Partial<Requirement>
  /** Who can, by the model that would serve. */
  readonly able: ReadonlyArray<string>
  /** Who cannot, and why. */
  readonly out?: Readonly<Record<string, string>>
}

const own = {
  codex: "codex:gpt-6-sol",
  gemini: "gemini:gemini-3.8-flash",
  qwen: "qwen:qwen3.8-max",
  synthetic: "synthetic:hf:zai-org/GLM-5.2",
  local: "local:llama"
}
const everybody = Object.values(own)

const lacking = (capability: string, ...names: ReadonlyArray<string>) =>
  Object.fromEntries(names.map((name) => [name, `it lacks ${capability}`]))

const only = (name: string) =>
  Object.fromEntries(
    Object.keys(own)
      .filter((other) => other !== name)
      .map((other) => [other, `the task asks for ${name} only`])
  )

const without = (model: string, ...names: ReadonlyArray<keyof typeof own>) =>
  Object.fromEntries(
    names.map((name) => [name, `it does not serve the model ${model}; its own is ${own[name].slice(name.length + 1)}`])
  )

const tooSmall = (tokens: string, ...names: ReadonlyArray<readonly [name: string, window: string]>) =>
  Object.fromEntries(
    names.map(([name, window]) => [
      name,
      `its context window of ${window} tokens is smaller than the ${tokens} the call may need`
    ])
  )

const unpriced = "its price is unknown: the settings have none for the model llama"
const tooDear = (cost: number, most: number) =>
  `the call may cost ${cost} USD there, more than the ${most} USD it may cost at most`

const sized = { contextTokens: 11_000, inputTokens: 10_000, outputTokens: 1_000 }

const cases: ReadonlyArray<Case> = [
  // Capabilities
  { name: "nothing in particular", able: everybody },
  { name: "text", need: { capabilities: ["text"] }, able: everybody },
  { name: "code", need: { capabilities: ["code"] }, able: everybody },
  { name: "streaming", need: { capabilities: ["streaming"] }, able: everybody },
  {
    name: "vision",
    need: { capabilities: ["vision"] },
    able: [own.codex, own.gemini],
    out: lacking("vision", "qwen", "synthetic", "local")
  },
  {
    name: "tools",
    need: { capabilities: ["tools"] },
    able: [own.codex, own.gemini, own.qwen, own.synthetic],
    out: lacking("tools", "local")
  },
  {
    name: "json",
    need: { capabilities: ["json"] },
    able: [own.codex, own.gemini, own.qwen, own.synthetic],
    out: lacking("json", "local")
  },
  {
    name: "reasoning",
    need: { capabilities: ["reasoning"] },
    able: [own.codex, own.gemini, own.qwen, own.synthetic],
    out: lacking("reasoning", "local")
  },
  {
    name: "long-context",
    need: { capabilities: ["long-context"] },
    able: [own.codex, own.gemini],
    out: lacking("long-context", "qwen", "synthetic", "local")
  },
  {
    name: "several, each missing one named",
    need: { capabilities: ["code", "vision", "json"] },
    able: [own.codex, own.gemini],
    out: { qwen: "it lacks vision", synthetic: "it lacks vision", local: "it lacks vision, json" }
  },
  {
    name: "every capability there is",
    need: { capabilities: Capability.literals },
    able: [own.codex, own.gemini],
    out: {
      qwen: "it lacks vision, long-context",
      synthetic: "it lacks vision, long-context",
      local: "it lacks vision, tools, json, long-context, reasoning"
    }
  },
  // Size
  { name: "a small call", need: { contextTokens: 1 }, able: everybody },
  { name: "the smallest window, filled to the last token", need: { contextTokens: 131_072 }, able: everybody },
  {
    name: "one token more than the smallest windows",
    need: { contextTokens: 131_073 },
    able: [own.codex, own.gemini],
    out: tooSmall("131,073", ["qwen", "131,072"], ["synthetic", "131,072"], ["local", "131,072"])
  },
  { name: "codex's whole window", need: { contextTokens: 272_000 }, able: [own.codex, own.gemini] },
  {
    name: "one token more than codex's window",
    need: { contextTokens: 272_001 },
    able: [own.gemini],
    out: tooSmall("272,001", ["codex", "272,000"], ["qwen", "131,072"])
  },
  { name: "the largest window", need: { contextTokens: 1_048_576 }, able: [own.gemini] },
  {
    name: "more than anybody holds",
    need: { contextTokens: 1_048_577 },
    able: [],
    out: tooSmall("1,048,577", ["gemini", "1,048,576"])
  },
  {
    name: "a size nobody knows: nobody is taken to hold it",
    need: { contextTokens: Number.NaN },
    able: [],
    out: tooSmall("NaN", ["codex", "272,000"], ["local", "131,072"])
  },
  {
    name: "too large, and lacking something: both are said",
    need: { contextTokens: 200_000, capabilities: ["tools"] },
    able: [own.codex, own.gemini],
    out: {
      local: "it lacks tools; its context window of 131,072 tokens is smaller than the 200,000 the call may need"
    }
  },
  // Pin and denial
  { name: "codex only", need: { platform: id("codex") }, able: [own.codex], out: only("codex") },
  { name: "local only", need: { platform: id("local") }, able: [own.local], out: only("local") },
  {
    name: "local only, for what it lacks",
    need: { platform: id("local"), capabilities: ["vision"] },
    able: [],
    out: { ...only("local"), local: "it lacks vision" }
  },
  { name: "a platform nobody knows", need: { platform: id("nobody") }, able: [], out: only("nobody") },
  {
    name: "not codex",
    need: { deny: [id("codex")] },
    able: [own.gemini, own.qwen, own.synthetic, own.local],
    out: { codex: "the task denies it" }
  },
  {
    name: "nobody allowed",
    need: { deny: ["codex", "gemini", "qwen", "synthetic", "local"].map(id) },
    able: [],
    out: { codex: "the task denies it", local: "the task denies it" }
  },
  {
    name: "one pinned and denied",
    need: { platform: id("qwen"), deny: [id("qwen")] },
    able: [],
    out: { ...only("qwen"), qwen: "the task denies it" }
  },
  { name: "somebody denied who is not there", need: { deny: [id("nobody")] }, able: everybody },
  {
    name: "vision, but not at codex",
    need: { capabilities: ["vision"], deny: [id("codex")] },
    able: [own.gemini],
    out: { codex: "the task denies it", qwen: "it lacks vision" }
  },
  // Models
  {
    name: "a platform's own model",
    need: { model: "gpt-6-sol" },
    able: [own.codex],
    out: without("gpt-6-sol", "gemini", "qwen", "synthetic", "local")
  },
  { name: "another model with a price", need: { model: "gpt-5.4-mini" }, able: ["codex:gpt-5.4-mini"] },
  { name: "platform/model", need: { model: "qwen/qwen3-coder-plus" }, able: ["qwen:qwen3-coder-plus"] },
  {
    name: "a model whose own name has a slash",
    need: { model: "hf:moonshotai/Kimi-K3" },
    able: ["synthetic:hf:moonshotai/Kimi-K3"]
  },
  {
    name: "a model of another platform",
    need: { model: "qwen/gpt-6-sol" },
    able: [],
    out: without("qwen/gpt-6-sol", "codex", "gemini", "qwen", "synthetic", "local")
  },
  { name: "a model nobody has", need: { model: "gpt-2" }, able: [], out: without("gpt-2", "codex", "local") },
  {
    name: "a name that every object has",
    need: { model: "constructor" },
    able: [],
    out: without("constructor", "codex", "gemini", "qwen", "synthetic", "local")
  },
  {
    name: "a model pinned to the wrong platform",
    need: { model: "gpt-6-sol", platform: id("gemini") },
    able: [],
    out: { ...only("gemini"), ...without("gpt-6-sol", "gemini") }
  },
  // Classes of models
  {
    name: "fast",
    need: { model: "fast" },
    able: [
      "codex:gpt-6-luna",
      "gemini:gemini-3.5-flash-lite",
      "qwen:qwen3.8-flash",
      "synthetic:hf:zai-org/GLM-4.7-Flash"
    ],
    out: { local: "none of its models is of the class fast" }
  },
  { name: "balanced: the configured model, whoever it is", need: { model: "balanced" }, able: everybody },
  {
    name: "best",
    need: { model: "best" },
    able: ["codex:gpt-6-astra", "gemini:gemini-3.1-pro-preview", "qwen:qwen3.8-max", "synthetic:hf:moonshotai/Kimi-K3"],
    out: { local: "none of its models is of the class best" }
  },
  { name: "a class of one platform", need: { model: "codex/fast" }, able: ["codex:gpt-6-luna"] },
  {
    name: "best, with vision",
    need: { model: "best", capabilities: ["vision"] },
    able: ["codex:gpt-6-astra", "gemini:gemini-3.1-pro-preview"],
    out: { qwen: "it lacks vision", local: "it lacks vision; none of its models is of the class best" }
  },
  // Cost: 10,000 in (a quarter more as margin) and 1,000 out
  {
    name: "any cost but none unknown",
    need: { ...sized, maxCostUsd: 1 },
    able: [own.codex, own.gemini, own.qwen, own.synthetic],
    out: { local: unpriced }
  },
  {
    name: "at most what qwen costs to the last digit",
    need: { ...sized, maxCostUsd: 0.031 },
    able: [own.gemini, own.qwen, own.synthetic],
    out: { codex: tooDear(0.035, 0.031), local: unpriced }
  },
  {
    name: "at most two cents",
    need: { ...sized, maxCostUsd: 0.02 },
    able: [own.gemini],
    out: { codex: tooDear(0.035, 0.02), qwen: tooDear(0.031, 0.02), synthetic: tooDear(0.0219, 0.02), local: unpriced }
  },
  {
    name: "next to nothing",
    need: { ...sized, maxCostUsd: 0.000_001 },
    able: [],
    out: { gemini: tooDear(0.0132, 0.000_001) }
  },
  {
    name: "cheap by its class",
    need: { ...sized, maxCostUsd: 0.002, model: "fast" },
    able: ["codex:gpt-6-luna", "synthetic:hf:zai-org/GLM-4.7-Flash"],
    out: { qwen: tooDear(0.00235, 0.002), gemini: tooDear(0.00625, 0.002) }
  },
  {
    name: "a bound of the cost, but nobody knows how large the call is: input and output may each be all of it",
    need: { contextTokens: 10_000, maxCostUsd: 0.05 },
    able: [own.gemini],
    out: { codex: tooDear(0.125, 0.05), qwen: tooDear(0.085, 0.05), synthetic: tooDear(0.0615, 0.05) }
  },
  {
    name: "a bound that is no number",
    need: { ...sized, maxCostUsd: Number.NaN },
    able: [],
    out: { local: unpriced }
  },
  // Together
  {
    name: "a long analysis with a picture, cheap and not at gemini",
    need: {
      contextTokens: 200_000,
      inputTokens: 199_000,
      outputTokens: 1_000,
      capabilities: ["vision"],
      deny: [id("gemini")],
      maxCostUsd: 0.1
    },
    able: [],
    out: { codex: tooDear(0.508, 0.1), gemini: "the task denies it" }
  }
]

const need = (over: Partial<Requirement> = {}): Requirement => ({ capabilities: [], contextTokens: 1_000, ...over })

const filterOne = (requirement: Requirement) => judge(Settings.platformDefaults("codex", { apiKey }), requirement)

describe("Requirement", () => {
  for (const { able, name, need: over, out = {} } of cases) {
    it(`${name}: ${able.length === 0 ? "nobody" : able.map((one) => one.split(":")[0]).join(", ")}`, () => {
      const found = filter(team, need(over))
      assert.deepStrictEqual(
        found.able.map(({ model, settings }) => `${settings.id}:${model}`),
        able
      )
      const reasons = Object.fromEntries(found.excluded.map(({ platform, reason }) => [platform, reason]))
      assert.deepStrictEqual({ ...reasons, ...out }, reasons)
      assert.strictEqual(found.able.length + found.excluded.length, team.length)
      assert.strictEqual(able.length === team.length, Object.keys(reasons).length === 0)
    })
  }

  it("tells what a call may cost where it is able, without the margin of the bound", () => {
    const [codex] = filter(team, need(sized)).able
    assert.closeTo(codex?.costUsd ?? 0, 0.03, 1e-12)
    const local = filter(team, need({ ...sized, platform: id("local") })).able
    assert.strictEqual(local[0]?.costUsd, undefined)
  })

  it("never says of a cost above the bound that it is the bound", () => {
    const cost = Either.getLeft(filterOne(need({ ...sized, maxCostUsd: 0.03499 })))
    assert.deepStrictEqual(cost, Option.some(tooDear(0.035, 0.03499)))
    const hair = Either.getLeft(filterOne(need({ ...sized, inputTokens: 10_001, maxCostUsd: 0.035 })))
    assert.deepStrictEqual(hair, Option.some(tooDear(0.0351, 0.035)))
    const tiny = Either.getLeft(filterOne(need({ ...sized, maxCostUsd: 1e-7 })))
    assert.include(
      Option.getOrElse(tiny, () => ""),
      "more than the 0.0000001 USD it may cost at most"
    )
  })

  it("a setting maps a class, `balanced` too; its model is served by its own name, and one of a class's very name by that", () => {
    const mapped = Settings.platformDefaults("local", {
      apiKey,
      baseUrl: "http://127.0.0.1:11434/v1",
      model: "best",
      classes: { fast: "small", balanced: "middle" }
    })
    const modelFor = (model: string) =>
      Option.getOrUndefined(Option.map(Either.getRight(judge(mapped, need({ model }))), (able) => able.model))
    assert.deepStrictEqual(["fast", "balanced", "best", "local/fast", "middle", "local/small", "large"].map(modelFor), [
      "small",
      "middle",
      "best",
      "small",
      "middle",
      "small",
      undefined
    ])
  })

  it("never lets through what a platform is not known to have", () => {
    const names = ["codex", "gemini", "qwen", "synthetic", "local", "nobody"] as const
    const models = ["fast", "balanced", "best", "gpt-6-sol", "llama", "unheard-of", "qwen/best"] as const
    const requirements = FastCheck.record({
      capabilities: FastCheck.uniqueArray(FastCheck.constantFrom(...Capability.literals)),
      contextTokens: FastCheck.oneof(FastCheck.nat(2_000_000), FastCheck.constant(Number.NaN)),
      inputTokens: FastCheck.option(FastCheck.nat(1_000_000), { nil: undefined }),
      outputTokens: FastCheck.option(FastCheck.nat(100_000), { nil: undefined }),
      platform: FastCheck.option(FastCheck.constantFrom(...names).map(id), { nil: undefined, freq: 4 }),
      deny: FastCheck.uniqueArray(FastCheck.constantFrom(...names).map(id), { maxLength: 3 }),
      model: FastCheck.option(FastCheck.constantFrom(...models), { nil: undefined }),
      maxCostUsd: FastCheck.option(FastCheck.double({ min: 0, max: 1 }), { nil: undefined })
    })
    FastCheck.assert(
      FastCheck.property(requirements, (requirement: Requirement) => {
        const { able, excluded } = filter(team, requirement)
        for (const { model, settings } of able) {
          assert.isTrue(requirement.capabilities.every((capability) => settings.capabilities.includes(capability)))
          assert.isAtMost(requirement.contextTokens, settings.contextWindow)
          assert.isTrue(requirement.platform === undefined || requirement.platform === settings.id)
          assert.notInclude(requirement.deny ?? [], settings.id)
          assert.isTrue(model === settings.model || Object.hasOwn(settings.prices, model))
          if (requirement.maxCostUsd !== undefined) assert.property(settings.prices, model)
        }
        for (const { reason } of excluded) assert.isNotEmpty(reason)
        assert.sameMembers(
          [...able.map(({ settings }) => settings.id), ...excluded.map(({ platform }) => platform)],
          team.map((platform) => platform.id)
        )
      }),
      { numRuns: 500 }
    )
  })
})
