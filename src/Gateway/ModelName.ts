import { Array as Arr, Either } from "effect"
import { judge, knownModels } from "../AgentRouter/Requirement.js"
import { ModelClass, type PlatformId } from "../Domain/Platform.js"
import type { PlatformSettings } from "../Settings.js"

/** Alternatives of one chain, at most. */
const maxLinks = 10
const maxLength = 500

/** The name that leaves the choice to routing. */
export const auto = "auto"

/**
 * What the field `model` of a request says: alternatives in their order (`codex/gpt-6>synthetic>gemini`), and who asks
 * (`#<tag>`: letters, digits, `-` and `_`, at most 64).
 */
export interface ModelName {
  readonly links: Arr.NonEmptyReadonlyArray<string>
  readonly tag?: string | undefined
}

/** Who may serve one link of a chain: everybody, one platform, a model of anybody's, or a model of one platform. */
export interface Target {
  readonly link: string
  readonly platform?: PlatformId | undefined
  /** A model's name, or a class of models. */
  readonly model?: string | undefined
}

/** Reads a name; what is wrong with it is on the left. */
export const parse = (name: string): Either.Either<ModelName, string> => {
  if (name.length > maxLength) return Either.left(`it is longer than ${maxLength} characters`)
  const at = name.lastIndexOf("#")
  const tag = at === -1 ? undefined : name.slice(at + 1)
  if (tag !== undefined && !/^[A-Za-z0-9_-]{1,64}$/.test(tag)) {
    return Either.left("what follows # is not 1 to 64 letters, digits, - and _")
  }
  const links = (at === -1 ? name : name.slice(0, at)).split(">").map((link) => link.trim())
  if (links.length > maxLinks) return Either.left(`it has more than ${maxLinks} alternatives`)
  return Arr.isNonEmptyReadonlyArray(links) && links.every((link) => link !== "")
    ? Either.right(tag === undefined ? { links } : { links, tag })
    : Either.left(links.length > 1 ? "one of its alternatives is empty" : "it is empty")
}

/** The name that `parse` reads as this. */
export const format = ({ links, tag }: ModelName): string => links.join(">") + (tag === undefined ? "" : `#${tag}`)

const classes: ReadonlyArray<string> = ModelClass.literals

const serves = (platform: PlatformSettings, model: string): boolean =>
  Either.isRight(judge(platform, { capabilities: [], contextTokens: 0, model }))

/**
 * Whom a link means: `auto`, a class of models, a platform, `platform/model`, or a model that is exactly known somewhere.
 * Why it means nobody is on the left.
 */
export const resolve = (link: string, platforms: ReadonlyArray<PlatformSettings>): Either.Either<Target, string> => {
  if (link === auto) return Either.right({ link })
  const alone = platforms.find(({ id }) => id === link)
  if (alone !== undefined) return Either.right({ link, platform: alone.id })
  const slash = link.indexOf("/")
  const owner = slash === -1 ? undefined : platforms.find(({ id }) => id === link.slice(0, slash))
  const model = link.slice(slash + 1)
  if (owner !== undefined && serves(owner, model)) return Either.right({ link, platform: owner.id, model })
  if (platforms.some((platform) => serves(platform, link))) return Either.right({ link, model: link })
  if (classes.includes(link)) return Either.left(`no platform has a model of the class ${link}`)
  if (owner !== undefined)
    return Either.left(`${owner.id} does not serve the model ${model}; its own is ${owner.model}`)
  return Either.left("no platform is called so, and none is known to serve such a model")
}

/** Every name with one link that is worth to be offered to a person: `auto`, the platforms, and their models. */
export const offered = (
  platforms: ReadonlyArray<PlatformSettings>
): ReadonlyArray<{ readonly name: string; readonly owner: string }> => [
  { name: auto, owner: "dream-team" },
  ...platforms.flatMap((platform) => {
    const owner = platform.id
    return [{ name: owner, owner }, ...knownModels(platform).map((model) => ({ name: `${owner}/${model}`, owner }))]
  })
]
