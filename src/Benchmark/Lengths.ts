import type { TaskType } from "../Domain/Task.js"
import { percentile } from "./percentile.js"

/** Answers remembered of each type. */
const maxAnswers = 256
/** Answers that make a length worth going by. */
const enoughAnswers = 10

/** Of answers of one type, tokens. */
export interface Length {
  /** Half of them are no longer. */
  readonly typical: number
  /** Nineteen of twenty are no longer. */
  readonly long: number
}

/** How long answers are, whoever gave them: what nobody knows beforehand of the one that is being made. */
export interface Lengths {
  readonly add: (type: TaskType, outputTokens: number) => void
  /** None below ten answers. */
  readonly of: (type: TaskType) => Length | undefined
}

export const make = (): Lengths => {
  const types = new Map<TaskType, { readonly ring: Array<number>; next: number; known: Length | undefined }>()
  return {
    add: (type, outputTokens) => {
      const answers = types.get(type) ?? { ring: [], next: 0, known: undefined }
      types.set(type, answers)
      answers.ring[answers.next] = outputTokens
      answers.next = (answers.next + 1) % maxAnswers
      answers.known = undefined
    },
    of: (type) => {
      const answers = types.get(type)
      if (answers === undefined || answers.ring.length < enoughAnswers) return undefined
      if (answers.known === undefined) {
        const [typical, long] = [percentile(answers.ring, 0.5), percentile(answers.ring, 0.95)]
        if (typical !== undefined && long !== undefined) answers.known = { typical, long }
      }
      return answers.known
    }
  }
}
