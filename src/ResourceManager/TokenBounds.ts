import type { TokensCounted } from "../Domain/Platform.js"
import type { TaskType } from "../Domain/Task.js"
import type { Usage } from "../Domain/Usage.js"
import type { SavedRatio } from "./Saved.js"

/** An estimate of an attempt's input and the bound of its output, tokens. */
export interface TokenEstimate {
  readonly input: number
  readonly maxOutput: number
}

/** Real input over its estimate before anything was measured: dense text, code and other scripts, and what tools add. */
const LOOSE_RATIO = 2
/** What wire formats add around the messages, tokens. */
const FRAME = 32
const SAMPLES = 128
/** Fewer measured inputs than this tighten nothing. */
const MIN_INPUTS = 8
/** The same of outputs, which scatter more. */
const MIN_OUTPUTS = 32
/**
 * How much further than the largest of the measured ones the next may go. Of `n` values measured the next is the largest
 * with a chance of 1 in n + 1, so the margin shrinks as they grow in number: 100 % at 8, 6 % at 128.
 */
const margin = (samples: number): number => 1 + 8 / samples

/** The latest values, and what the next one is bound by. */
const makeSamples = (least: number) => {
  let values: Array<number> = []
  let next = 0
  let largest = 0
  const add = (value: number): void => {
    const isLargestGone = values[next] === largest && value < largest
    values[next] = value
    next = (next + 1) % SAMPLES
    largest = isLargestGone ? values.reduce((max, each) => Math.max(max, each), 0) : Math.max(largest, value)
  }
  return {
    add,
    bound: (): number | undefined => (values.length < least ? undefined : largest * margin(values.length)),
    /** The oldest first. */
    all: (): ReadonlyArray<number> => [...values.slice(next), ...values.slice(0, next)],
    replace: (all: ReadonlyArray<number>): void => {
      values = []
      next = 0
      largest = 0
      for (const value of all.slice(-SAMPLES)) add(value)
    }
  }
}

const makeOfType = () => ({ inputRatios: makeSamples(MIN_INPUTS), outputs: makeSamples(MIN_OUTPUTS) })

const inputOf = (estimate: number, ratio: number): number => Math.ceil(estimate * ratio) + FRAME

/** The bound of an input of which only its estimate is known, tokens. */
export const inputBound = (estimate: number): number => inputOf(estimate, LOOSE_RATIO)

/**
 * Upper bounds of what an attempt will use, by type of task: loose at first, then from what answers really used. Where
 * estimates turn out too low the bounds become looser, not tighter.
 */
export interface TokenBounds {
  readonly input: (type: TaskType, tokens: TokenEstimate) => number
  /** Of what an answer will really be; never more than the attempt's own bound. */
  readonly output: (type: TaskType, tokens: TokenEstimate) => number
  /** What a provider that counts in this way counts at most. */
  readonly counted: (type: TaskType, tokens: TokenEstimate, tokensCounted: TokensCounted) => number
  /** What an attempt that was answered really used. */
  readonly learn: (type: TaskType, tokens: TokenEstimate, usage: Usage) => void
  readonly save: () => ReadonlyArray<SavedRatio>
  readonly restore: (saved: ReadonlyArray<SavedRatio>) => void
}

export const make = (): TokenBounds => {
  const types = new Map<TaskType, ReturnType<typeof makeOfType>>()

  const ofType = (type: TaskType): ReturnType<typeof makeOfType> => {
    const known = types.get(type)
    if (known !== undefined) return known
    const made = makeOfType()
    types.set(type, made)
    return made
  }

  const input = (type: TaskType, tokens: TokenEstimate): number =>
    inputOf(tokens.input, types.get(type)?.inputRatios.bound() ?? LOOSE_RATIO)

  const output = (type: TaskType, { maxOutput }: TokenEstimate): number =>
    Math.min(maxOutput, Math.ceil(types.get(type)?.outputs.bound() ?? maxOutput))

  return {
    input,
    output,

    counted: (type, tokens, tokensCounted) => {
      if (tokensCounted === "input") return input(type, tokens)
      return input(type, tokens) + (tokensCounted === "reserved" ? tokens.maxOutput : output(type, tokens))
    },

    learn: (type, tokens, { inputTokens, outputTokens }) => {
      // there is no call without input: the platform did not tell
      if (inputTokens === 0) return
      const { inputRatios, outputs } = ofType(type)
      if (tokens.input > 0) inputRatios.add(Math.max(0, inputTokens - FRAME) / tokens.input)
      outputs.add(outputTokens)
    },

    save: () =>
      [...types].map(([type, { inputRatios, outputs }]) => ({
        type,
        inputRatios: inputRatios.all(),
        outputs: outputs.all()
      })),

    restore: (saved) => {
      for (const { inputRatios, outputs, type } of saved) {
        const known = ofType(type)
        known.inputRatios.replace(inputRatios)
        known.outputs.replace(outputs)
      }
    }
  }
}
