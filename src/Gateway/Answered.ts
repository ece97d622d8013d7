import type { PlatformId } from "../Domain/Platform.js"

/** A call that was answered, and by whom. */
export interface AnsweredBy {
  readonly platform: PlatformId
  /** As the platform names it. */
  readonly model: string
  /** Epoch ms. */
  readonly at: number
}

/** Tags remembered; beyond them the one answered least recently is forgotten. */
const maxTags = 1_000
/** Answers remembered of one tag, the newest. */
const maxAnswers = 100

/** Who answered the calls of a tag, in their order. In memory only. */
export const make = () => {
  const byTag = new Map<string, Array<AnsweredBy>>()
  return {
    note: (tag: string, answer: AnsweredBy): void => {
      const answers = byTag.get(tag) ?? []
      byTag.delete(tag)
      byTag.set(tag, answers)
      answers.push(answer)
      if (answers.length > maxAnswers) answers.shift()
      const oldest = byTag.size > maxTags ? byTag.keys().next().value : undefined
      if (oldest !== undefined) byTag.delete(oldest)
    },
    of: (tag: string): ReadonlyArray<AnsweredBy> => [...(byTag.get(tag) ?? [])]
  }
}
