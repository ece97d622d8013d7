import { FastCheck } from "effect"
import { describe, expect, it } from "vitest"
import { type Call, estimateInputTokens } from "../../src/Domain/Call.js"

const say = (text: string): Call => ({ messages: [{ role: "user", content: text }] })

describe("the estimate of a call's input", () => {
  it("is a quarter token an ASCII character, plus a little for the frame", () => {
    expect(estimateInputTokens(say("a".repeat(4_000)))).toBe(1_008)
  })

  it("counts scripts that tokenizers cut finer as more", () => {
    const perCharacter = (character: string): number =>
      (estimateInputTokens(say(character.repeat(10_000))) - 8) / 10_000
    expect(perCharacter("é")).toBe(0.5)
    expect(perCharacter("ж")).toBe(0.5)
    expect(perCharacter("م")).toBe(1)
    expect(perCharacter("語")).toBe(1)
    expect(perCharacter("한")).toBe(1)
    expect(perCharacter("🦊")).toBe(2)
  })

  it("is never below a token for each 4 bytes of UTF-8, wherever in the call the text stands", () => {
    const text = FastCheck.string({ unit: "binary", maxLength: 60 })
    const parts = FastCheck.array(FastCheck.record({ type: FastCheck.constant("text" as const), text }))
    FastCheck.assert(
      FastCheck.property(text, text, parts, text, (system, prompt, content, description) => {
        const call: Call = {
          system,
          messages: [
            { role: "user", content },
            { role: "user", content: prompt }
          ],
          tools: [{ name: "look", description, parameters: {} }]
        }
        const texts = [system, prompt, ...content.map((part) => part.text), JSON.stringify(call.tools)]
        const bytes = texts.reduce((sum, part) => sum + Buffer.byteLength(part), 0)
        expect(estimateInputTokens(call)).toBeGreaterThanOrEqual(Math.ceil(bytes / 4))
      })
    )
  })

  it("does not count the bytes of an image", () => {
    const image = { kind: "base64", mediaType: "image/png", data: "A".repeat(400_000) } as const
    expect(estimateInputTokens({ messages: [{ role: "user", content: [{ type: "image", source: image }] }] })).toBe(
      1_008
    )
  })

  it("takes milliseconds for 4 MB of text", () => {
    const call = say("漢字かなa".repeat(800_000))
    const start = performance.now()
    estimateInputTokens(call)
    expect(performance.now() - start).toBeLessThan(500)
  })
})
