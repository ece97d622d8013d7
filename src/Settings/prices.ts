import type { Price } from "../Domain/Usage.js"

type PerMillion = readonly [input: number, cachedInput: number | undefined, output: number]

const dated = (asOf: string, rows: Readonly<Record<string, PerMillion>>): Readonly<Record<string, Price>> =>
  Object.fromEntries(
    Object.entries(rows).map(([model, [input, cachedInput, output]]) => [
      model,
      cachedInput === undefined ? { input, output, asOf } : { input, cachedInput, output, asOf }
    ])
  )

/**
 * List prices, USD per million tokens (input, cached input, output), by platform and model.
 * Prices that rise with the length of the input are given for short inputs. A model that is not here has no known
 * price: its cost stays unknown until the settings name one (`platforms.<id>.prices`).
 *
 * Sources: the public model lists of LiteLLM, models.dev and OpenRouter (2026-09-16); LiteLLM's documentation for the
 * two of 2026-09-22.
 */
export const prices = {
  codex: {
    ...dated("2026-09-16", {
      "gpt-5.6": [4, 0.4, 20],
      "gpt-5.6-sol": [4, 0.4, 20],
      "gpt-5.6-terra": [2, 0.2, 12],
      "gpt-5.6-luna": [0.2, 0.02, 1.2],
      "gpt-6-astra": [10, 1, 50],
      "gpt-5.5": [5, 0.5, 30],
      "gpt-5.4": [2.5, 0.25, 15],
      "gpt-5.4-mini": [0.75, 0.075, 4.5],
      "gpt-5.3-codex": [1.75, 0.175, 14]
    }),
    ...dated("2026-09-22", {
      "gpt-6-sol": [2, undefined, 10],
      "gpt-6-luna": [0.1, undefined, 0.5]
    })
  },
  gemini: dated("2026-09-16", {
    "gemini-3.8-flash": [0.75, 0.075, 3.75],
    "gemini-3.5-flash": [1.5, 0.15, 9],
    "gemini-3.5-flash-lite": [0.3, 0.03, 2.5],
    "gemini-3.1-pro-preview": [2, 0.2, 12],
    "gemini-3.1-flash-lite": [0.25, 0.025, 1.5],
    "gemini-2.5-pro": [1.25, 0.125, 10],
    "gemini-2.5-flash": [0.3, 0.03, 2.5],
    "gemini-2.5-flash-lite": [0.1, 0.01, 0.4]
  }),
  qwen: dated("2026-09-16", {
    "qwen3.8-max": [2, 0.25, 6],
    "qwen3.8-flash": [0.15, 0.016, 0.47],
    "qwen3.7-max": [2.5, 0.5, 7.5],
    "qwen3.7-plus": [0.5, 0.05, 3],
    "qwen3.6-flash": [0.1875, undefined, 1.125],
    "qwen3-coder-plus": [1, undefined, 5],
    "qwen3-coder-flash": [0.3, undefined, 1.5]
  }),
  synthetic: dated("2026-09-16", {
    "hf:zai-org/GLM-5.2": [1.4, 1.4, 4.4],
    "hf:zai-org/GLM-4.7-Flash": [0.1, 0.1, 0.5],
    "hf:zai-org/GLM-5.3-Flash": [0.15, 0.04, 0.5],
    "hf:moonshotai/Kimi-K3": [3, 0.45, 15],
    "hf:moonshotai/Kimi-K2.7-Code": [0.95, 0.95, 4],
    "hf:openai/gpt-oss-120b": [0.1, 0.1, 0.1]
  })
} satisfies Readonly<Record<string, Readonly<Record<string, Price>>>>
