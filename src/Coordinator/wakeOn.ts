import { Effect, Schedule, type Scope, Stream } from "effect"
import type { ServiceUnavailable } from "../Domain/ApiError.js"
import type { PlatformId } from "../Domain/Platform.js"
import { supervised } from "../Telemetry/supervised.js"

/**
 * Wakes the tasks that wait for each of the platforms told of, for as long as the scope. What cannot be woken now is tried
 * again each second; where the whole breaks the log says `trouble`.
 */
export const wakeOn = <E>(
  platforms: Stream.Stream<PlatformId, E>,
  wake: (platform: PlatformId) => Effect.Effect<void, ServiceUnavailable>,
  trouble: string
): Effect.Effect<void, never, Scope.Scope> =>
  supervised(
    trouble,
    Stream.runForEach(platforms, (platform) => Effect.retry(wake(platform), Schedule.spaced("1 second")))
  )
