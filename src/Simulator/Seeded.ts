import { createHash } from "node:crypto"
import { Utils } from "effect"
import type { Distribution } from "./Options.js"

/** A source of pseudo-random numbers that is a function of its seed and parts alone. */
export interface Seeded {
  /** At least 0, less than 1. */
  readonly next: () => number
  /** At least 0, less than `bound`. */
  readonly below: (bound: number) => number
  readonly sample: (distribution: Distribution) => number
  /** 24 hexadecimal digits, the same for the same seed and parts. */
  readonly id: string
}

export const seeded = (seed: number, parts: ReadonlyArray<string>): Seeded => {
  const hash = createHash("sha256").update(String(seed))
  for (const part of parts) hash.update("\0").update(part)
  const digest = hash.digest()
  const generator = new Utils.PCGRandom(
    digest.readUInt32LE(0),
    digest.readUInt32LE(4),
    digest.readUInt32LE(8),
    digest.readUInt32LE(12)
  )
  const next = () => generator.number()
  return {
    next,
    below: (bound) => Math.floor(next() * bound),
    sample: ({ median, sigma }) => {
      if (median === 0 || sigma === 0) return median
      const normal = Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
      return median * Math.exp(sigma * normal)
    },
    id: digest.toString("hex", 16, 28)
  }
}
