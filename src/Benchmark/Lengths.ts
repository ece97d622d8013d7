import type { TaskType } from "../Domain/Task.js"
import * as RankedWindow from "./RankedWindow.js"

/** Answers that make a length worth going by. */
const enoughAnswers = 10

/** Of answers of one type, tokens. */
export interface Length {
  /** Half of them are no longer. */
  readonly typical: number
  /** Nineteen of twenty are no longer. */
  readonly long: number
}

/** How long the latest 256 answers are, whoever gave them: what nobody knows beforehand of the one that is being made. */
export interface Lengths {
  readonly add: (type: TaskType, outputTokens: number) => void
  /** None below ten answers. */
  readonly of: (type: TaskType) => Length | undefined
}

export const make = (): Lengths => {
  const types = new Map<TaskType, { readonly answers: RankedWindow.RankedWindow; known: Length | undefined }>()
  return {
    add: (type, outputTokens) => {
      const its = types.get(type) ?? { answers: RankedWindow.make(Number.POSITIVE_INFINITY), known: undefined }
      types.set(type, its)
      its.answers.add(outputTokens, 0)
      its.known = undefined
    },
    of: (type) => {
      const its = types.get(type)
      if (its === undefined || its.answers.size(0) < enoughAnswers) return undefined
      if (its.known === undefined) {
        const [typical, long] = [its.answers.percentile(0.5, 0), its.answers.percentile(0.95, 0)]
        if (typical !== undefined && long !== undefined) its.known = { typical, long }
      }
      return its.known
    }
  }
}
