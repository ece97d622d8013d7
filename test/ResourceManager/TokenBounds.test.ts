import { describe, expect, it } from "vitest"
import * as TokenBounds from "../../src/ResourceManager/TokenBounds.js"
import { usageOf } from "./fixtures.js"
import { randomOf } from "./saturation.js"

const tokens = { input: 1_000, maxOutput: 8_000 }

const after = (answers: number, ratio: () => number) => {
  const bounds = TokenBounds.make()
  for (let index = 0; index < answers; index++) {
    bounds.learn("testing", tokens, usageOf(Math.ceil(1_000 * ratio()) + 32, 100))
  }
  return bounds
}

describe("bounds of what an attempt will use", () => {
  it("are loose before anything was measured, and until enough was", () => {
    expect(TokenBounds.make().input("testing", tokens)).toBe(2_032)
    expect(after(7, () => 0.5).input("testing", tokens)).toBe(2_032)
    expect(after(31, () => 0.5).output("testing", tokens)).toBe(8_000)
  })

  it("tighten with what answers really used, by type", () => {
    const bounds = after(128, () => 0.5)
    expect(bounds.input("testing", tokens)).toBeLessThan(600)
    expect(bounds.input("analysis", tokens)).toBe(2_032)
    expect(bounds.output("testing", tokens)).toBeLessThan(120)
  })

  it("loosen where estimates are too low", () => {
    expect(after(128, () => 3).input("testing", tokens)).toBeGreaterThan(3_000)
  })

  it("hold for the next ones, however estimates scatter", () => {
    const random = randomOf(1)
    const ratio = (): number => 0.5 + random()
    const bounds = after(128, ratio)
    for (let index = 0; index < 1_000; index++) {
      expect(bounds.input("testing", tokens)).toBeGreaterThanOrEqual(1_000 * ratio())
    }
    expect(bounds.input("testing", tokens)).toBeLessThan(1_700)
  })

  it("never lower what is reserved whole, and count no output where only input counts", () => {
    const bounds = after(128, () => 1)
    expect(bounds.counted("testing", tokens, "reserved")).toBeGreaterThan(9_000)
    expect(bounds.counted("testing", tokens, "actual")).toBeLessThan(1_300)
    expect(bounds.counted("testing", tokens, "input")).toBeLessThan(1_200)
  })

  it("forget old answers, and learn nothing where the platform did not tell", () => {
    const bounds = after(128, () => 3)
    for (let index = 0; index < 128; index++) bounds.learn("testing", tokens, usageOf(500, 10))
    expect(bounds.input("testing", tokens)).toBeLessThan(600)
    for (let index = 0; index < 128; index++) bounds.learn("testing", tokens, usageOf(0, 0))
    expect(bounds.input("testing", tokens)).toBeGreaterThan(450)
  })

  it("outlive the process", () => {
    const bounds = after(100, () => 0.7)
    const next = TokenBounds.make()
    next.restore(bounds.save())
    expect(next.input("testing", tokens)).toBe(bounds.input("testing", tokens))
    expect(next.output("testing", tokens)).toBe(bounds.output("testing", tokens))
    next.learn("testing", tokens, usageOf(5_000, 100))
    expect(next.input("testing", tokens)).toBeGreaterThan(5_000)
  })
})
