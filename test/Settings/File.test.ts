import { describe, expect, it } from "@effect/vitest"
import { decode, jsonSchema, keysAt } from "../../src/Settings/File.js"

describe("the settings file", () => {
  it.each([
    ["30s", 30_000],
    ["5h", 18_000_000],
    ["1h30m", 5_400_000],
    ["1h 30m", 5_400_000],
    ["0.5s", 500],
    ["250ms", 250],
    ["2d", 172_800_000],
    [1500, 1500]
  ])("reads the duration %s", (written, ms) => {
    expect(decode({ shutdownGraceMs: written })).toEqual({ values: { shutdownGraceMs: ms }, mistakes: [] })
  })

  it.each(["30", "", "s", "5 hours", "-5s", "0s", "400d", 0, -1, 1.5, null])("refuses the duration %s", (written) => {
    const { mistakes, values } = decode({ shutdownGraceMs: written, port: 1 })
    expect(values).toEqual({ port: 1 })
    expect(mistakes).toMatchObject([{ path: ["shutdownGraceMs"], leaf: true }])
    expect(mistakes[0]?.expected).toContain("a duration such as")
  })

  it("keeps what is right beside any number of mistakes", () => {
    const { mistakes, values } = decode({
      port: 1,
      host: 5,
      use: ["codex", "NO", "qwen", 3],
      platforms: {
        codex: { model: "m", weight: -1, limits: { burst: 2, maxConcurrent: 0 } },
        qwen: [],
        gemini: { prices: { a: { output: 1 }, b: { input: 1, output: 1, asOf: "2026-01-01" } } }
      }
    })
    expect(values).toEqual({
      port: 1,
      use: ["codex", "qwen"],
      platforms: {
        codex: { model: "m", limits: { burst: 2 } },
        gemini: { prices: { b: { input: 1, output: 1, asOf: "2026-01-01" } } }
      }
    })
    expect(mistakes.map(({ path }) => path.join("."))).toEqual([
      "host",
      "use.1",
      "use.3",
      "platforms.codex.weight",
      "platforms.codex.limits.maxConcurrent",
      "platforms.qwen",
      "platforms.gemini.prices.a.input",
      "platforms.gemini.prices.a.asOf"
    ])
  })

  it("cuts a wrong item out of a list, and no other", () => {
    const window = { windowMs: 5000, requests: 1 }
    const decoded = decode({
      platforms: { codex: { limits: { windows: [{ windowMs: 1, requests: 0, x: 1 }, window, { ...window, y: 1 }] } } }
    })
    expect(decoded.values).toEqual({ platforms: { codex: { limits: { windows: [window] } } } })
    expect(decoded.mistakes.map(({ path }) => path.slice(4).join(".")).sort()).toEqual([
      "0.requests",
      "0.windowMs",
      "0.x",
      "2.y"
    ])
  })

  it.each([["text"], [null], [[]], [5], [undefined]])("ends on %s", (raw) => {
    expect(decode(raw).values).toEqual({})
    expect(decode(raw).mistakes).toHaveLength(1)
  })

  it("has a JSON Schema that explains every key", () => {
    const schema = jsonSchema()
    expect(schema).toMatchObject({ type: "object", additionalProperties: false })
    const properties = "properties" in schema ? schema.properties : {}
    expect(Object.keys(properties)).toEqual(keysAt([]))
    for (const property of Object.values(properties)) expect(property).toHaveProperty("description")
  })
})
