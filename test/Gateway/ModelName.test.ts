import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc, Option } from "effect"
import { PlatformId } from "../../src/Domain/Platform.js"
import { auto, format, offered, parse, resolve } from "../../src/Gateway/ModelName.js"
import * as Testing from "../../src/Testing.js"

const { platforms } = Testing.settings([
  { id: "codex", settings: { model: "gpt-x", prices: { "gpt-mini": { input: 1, output: 2, asOf: "2026-11-01" } } } },
  { id: "synthetic", settings: { model: "hf:zai-org/GLM-5.2", classes: { fast: "hf:zai-org/GLM-5.2" } } },
  { id: "gemini", settings: { model: "codex/gpt-x" } }
])

const link = fc.stringMatching(/^[a-z][A-Za-z0-9.:/_-]{0,20}$/)
const tag = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/)
const resolved = (name: string) => Either.getOrThrow(resolve(name, platforms))

describe("names of models", () => {
  it("are read as they were written, chain and tag alike", () => {
    fc.assert(
      fc.property(fc.array(link, { minLength: 1, maxLength: 10 }), fc.option(tag, { nil: undefined }), (links, tag) => {
        const name = format({ links: [links[0] ?? "", ...links.slice(1)], tag })
        const read = Either.getOrThrow(parse(name))
        assert.deepStrictEqual([...read.links], links)
        assert.strictEqual(read.tag, tag)
        assert.strictEqual(format(read), name)
      })
    )
  })

  it("are read or refused, whatever they are, and what is read has no empty link and only a good tag", () => {
    const piece = fc.oneof(fc.string(), fc.constantFrom(">", "#", " ", "/", "codex", "auto"))
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const read = parse(pieces.join(""))
        if (Either.isLeft(read)) {
          assert.isNotEmpty(read.left)
          return
        }
        assert.isTrue(read.right.links.every((link) => link.trim() === link && link !== "" && !link.includes(">")))
        assert.isTrue(read.right.tag === undefined || /^[A-Za-z0-9_-]{1,64}$/.test(read.right.tag))
      })
    )
  })

  it.each(["", " ", ">", "codex>", "a>>b", "#t", "codex#", "codex#a b", `codex#${"x".repeat(65)}`, "a".repeat(501)])(
    "refuse %j",
    (name) => assert.isTrue(Either.isLeft(parse(name)))
  )

  it("refuse more than ten alternatives", () => {
    assert.isTrue(Either.isRight(parse(Array(10).fill("codex").join(">"))))
    assert.isTrue(Either.isLeft(parse(Array(11).fill("codex").join(">"))))
  })

  it("mean routing, a platform, a platform's model, or a model known somewhere", () => {
    assert.deepStrictEqual(resolved(auto), { link: auto })
    assert.deepStrictEqual(resolved("codex"), { link: "codex", platform: PlatformId.make("codex") })
    assert.deepStrictEqual(resolved("codex/gpt-mini"), {
      link: "codex/gpt-mini",
      platform: PlatformId.make("codex"),
      model: "gpt-mini"
    })
    assert.deepStrictEqual(resolved("synthetic/hf:zai-org/GLM-5.2"), {
      link: "synthetic/hf:zai-org/GLM-5.2",
      platform: PlatformId.make("synthetic"),
      model: "hf:zai-org/GLM-5.2"
    })
    assert.deepStrictEqual(resolved("hf:zai-org/GLM-5.2"), { link: "hf:zai-org/GLM-5.2", model: "hf:zai-org/GLM-5.2" })
    assert.deepStrictEqual(resolved("fast"), { link: "fast", model: "fast" })
    assert.deepStrictEqual(resolved("synthetic/fast"), {
      link: "synthetic/fast",
      platform: PlatformId.make("synthetic"),
      model: "fast"
    })
    // what stands before the slash is the platform, where that serves what stands behind it
    assert.deepStrictEqual(resolved("codex/gpt-x"), {
      link: "codex/gpt-x",
      platform: PlatformId.make("codex"),
      model: "gpt-x"
    })
  })

  it.each(["gpt-9", "codex/gpt-9", "nobody", "nobody/gpt-x", "GPT-X"])("mean nobody: %s", (name) => {
    const found = resolve(name, platforms)
    assert.isTrue(Option.isSome(Either.getLeft(found)), name)
  })

  it("that are offered can be used", () => {
    const names = offered(platforms).map(({ name }) => name)
    assert.includeMembers(names, ["auto", "codex", "codex/gpt-x", "codex/gpt-mini", "synthetic"])
    for (const name of names) assert.isTrue(Either.isRight(resolve(name, platforms)), name)
  })
})
