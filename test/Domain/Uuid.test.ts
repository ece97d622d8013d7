import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { randomUuid } from "../../src/Domain/Uuid.js"

it.effect("a random UUID is of version 4, and another one each time", () =>
  Effect.gen(function* () {
    const ids = yield* Effect.replicateEffect(randomUuid, 1_000)
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(new Set(ids).size).toBe(1_000)
  })
)
