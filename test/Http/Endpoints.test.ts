import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Open } from "../../src/Domain/Access.js"
import * as Endpoints from "../../src/Http/Endpoints.js"

describe("an endpoint", () => {
  it.effect("needs a key unless it says that it is open", () =>
    Effect.gen(function* () {
      const things = HttpApiGroup.make("things")
        .add(HttpApiEndpoint.get("forgotten", "/forgotten"))
        .add(HttpApiEndpoint.get("open", "/open").annotate(Open, true))
      const served = yield* Endpoints.of(
        things,
        Effect.succeed({ forgotten: () => Effect.void, open: () => Effect.void })
      )
      assert.deepStrictEqual(
        served.map(({ needsKey, path }) => [path, needsKey]),
        [
          ["/forgotten", true],
          ["/open", false]
        ]
      )
    })
  )
})
