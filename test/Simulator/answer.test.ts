import { describe, expect, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { answerOf, durationOf, inputTokensOf } from "../../src/Simulator/Answer.js"
import { jsonValueOf } from "../../src/Simulator/JsonValue.js"
import type { SimulatedRequest } from "../../src/Simulator/Request.js"
import { seeded } from "../../src/Simulator/Seeded.js"
import { firstTokens, tokensOf } from "../../src/Simulator/Tokens.js"
import { Simulator } from "../../src/Simulator.js"

const request = (changes: Partial<SimulatedRequest>): SimulatedRequest => ({
  model: "m",
  stream: false,
  includeUsage: false,
  sse: true,
  texts: [changes.prompt ?? ""],
  images: 0,
  prompt: "",
  maxOutputTokens: undefined,
  json: undefined,
  speaksOfJson: false,
  tools: [],
  toolChoice: "auto",
  ...changes
})

const answer = (changes: Partial<SimulatedRequest>, seed = 1) =>
  answerOf({
    seed,
    platformId: "codex",
    platform: Simulator.defaults.platforms.codex,
    latencyScale: 1,
    request: request(changes),
    inputTokens: inputTokensOf(request(changes))
  })

const median = (numbers: ReadonlyArray<number>): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN

describe("what the simulated model says", () => {
  it("is the same however it is sent: text, length and latency", () => {
    const whole = answer({ prompt: "Explain leases" })
    expect(answer({ prompt: "Explain leases", stream: true, includeUsage: true })).toEqual(whole)
    expect(answer({ prompt: "Explain leases" }, 2)).not.toEqual(whole)
    expect(durationOf(answer({ prompt: "Explain leases!" }))).not.toBe(durationOf(whole))
  })

  it("has the platform's median of latency and length", () => {
    const { answerTokens, latency, reasoningTokens } = Simulator.defaults.platforms.codex
    const answers = Array.from({ length: 400 }, (_, index) => answer({ prompt: `prompt ${index}` }))
    const near = (found: number, expected: number) => {
      expect(found).toBeGreaterThan(expected * 0.85)
      expect(found).toBeLessThan(expected * 1.15)
    }
    near(median(answers.map(({ pieces }) => pieces[0]?.afterMs ?? 0)), latency.firstTokenMs.median)
    near(
      median(answers.map(({ outputTokens, reasoningTokens }) => outputTokens - reasoningTokens)),
      answerTokens.median
    )
    near(median(answers.map((found) => found.reasoningTokens)), reasoningTokens?.median ?? Number.NaN)
  })

  it("never exceeds the bound, says so when it is cut, and its pieces are its text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme", maxLength: 200 }),
        fc.integer({ min: 1, max: 400 }),
        (prompt, bound) => {
          const found = answer({ prompt, maxOutputTokens: bound })
          expect(found.outputTokens).toBeLessThanOrEqual(bound)
          expect(found.pieces.map(({ text }) => text).join("")).toBe(found.text)
          expect(found.text).not.toContain("\uFFFD")
          expect(found.outputTokens - found.reasoningTokens).toBe(Math.max(1, tokensOf(found.text)))
          if (found.outputTokens < bound - 1) expect(found.finish).toBe("stop")
        }
      )
    )
  })
})

describe("the tokenizer", () => {
  it("counts 4 bytes of UTF-8 as a token and never cuts a character", () => {
    expect([tokensOf(""), tokensOf("abcd"), tokensOf("abcde"), tokensOf("日本")]).toEqual([0, 1, 2, 2])
    expect(firstTokens("a日本語", 1)).toBe("a日")
    expect(firstTokens("ab日本語", 1)).toBe("ab")
    expect(firstTokens("abc", 1)).toBe("abc")
  })
})

describe("the seeded source", () => {
  it("is a function of its seed and parts", () => {
    const draw = (seed: number, parts: ReadonlyArray<string>) => {
      const source = seeded(seed, parts)
      return [source.id, source.next(), source.below(10), source.sample({ median: 5, sigma: 1 })]
    }
    expect(draw(1, ["a", "b"])).toEqual(draw(1, ["a", "b"]))
    expect(draw(1, ["a", "b"])).not.toEqual(draw(1, ["ab", ""]))
    expect(draw(1, ["a", "b"])).not.toEqual(draw(2, ["a", "b"]))
  })
})

describe("JSON of a schema", () => {
  it("has the types and bounds that the schema wants", () => {
    const schema = {
      type: "object",
      properties: {
        text: { type: "string", minLength: 12 },
        short: { type: "string", maxLength: 3 },
        count: { type: "integer", minimum: 7 },
        above: { type: "number", exclusiveMinimum: 1 },
        least: { type: "integer", maximum: 0 },
        flag: { type: ["boolean", "null"] },
        nothing: { type: "null" },
        one: { const: 42 },
        either: { anyOf: [{ type: "string" }, { type: "null" }] },
        both: { allOf: [{ properties: { a: { type: "integer" } } }, { properties: { b: { type: "boolean" } } }] },
        list: { type: "array", items: { $ref: "#/$defs/kind" }, minItems: 2 }
      },
      $defs: { kind: { enum: ["x", "y"] } }
    }
    expect(jsonValueOf(schema, "simulated")).toEqual({
      text: "simulated...",
      short: "sim",
      count: 7,
      above: 1.5,
      least: 0,
      flag: true,
      nothing: null,
      one: 42,
      either: "simulated",
      both: { a: 1, b: true },
      list: ["x", "x"]
    })
  })

  it("ends for schemas that refer to themselves", () => {
    const self = {
      type: "object",
      properties: { a: { $ref: "#" }, b: { type: "array", items: { $ref: "#" }, minItems: 20 } },
      required: ["a", "b"]
    }
    expect(JSON.stringify(jsonValueOf(self, "x")).length).toBeLessThan(1_000_000)
    expect(jsonValueOf({ $ref: "#" }, "x")).toBeNull()
  })
})
