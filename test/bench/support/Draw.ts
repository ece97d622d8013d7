import { Effect, Random, Schema } from "effect"
import { PlatformId } from "../../../src/Domain/Platform.js"
import { type Priority, type TaskType, TenantId } from "../../../src/Domain/Task.js"

const SHARE_HIGH = 0.15
const SHARE_MEDIUM = 0.35
const TENANTS = 5

/** The types of work, with how long their answers are beside the load's median. */
const types: ReadonlyArray<readonly [TaskType, number]> = [
  ["implementation", 1.5],
  ["documentation", 1.25],
  ["testing", 1.25],
  ["architecture", 1],
  ["analysis", 0.75],
  ["question-answering", 0.5]
]

export const platformId = Schema.decodeSync(PlatformId)
export const tenantId = Schema.decodeSync(TenantId)

/** A standard normal number. */
const normal = Effect.map(Effect.all([Random.next, Random.next]), ([radius, angle]) => {
  return Math.sqrt(-2 * Math.log(1 - radius)) * Math.cos(2 * Math.PI * angle)
})

/** Log-normal with a whole number as outcome; the tails beyond 2.5 sigma are cut off. */
export const logNormal = (median: number, sigma: number): Effect.Effect<number> =>
  Effect.map(normal, (z) => Math.max(1, Math.round(median * Math.exp(sigma * Math.max(-2.5, Math.min(2.5, z))))))

export const somePriority: Effect.Effect<Priority> = Effect.map(Random.next, (chance) =>
  chance < SHARE_HIGH ? "HIGH" : chance < SHARE_HIGH + SHARE_MEDIUM ? "MEDIUM" : "LOW"
)

/** A type of work, and how long its answers are beside the median. */
export const someType = Effect.map(
  Random.nextIntBetween(0, types.length),
  (index) => types[index] ?? (["analysis", 1] as const)
)

export const someTenant: Effect.Effect<TenantId> = Effect.map(Random.nextIntBetween(0, TENANTS), (index) =>
  tenantId(`tenant-${index}`)
)
