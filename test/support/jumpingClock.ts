import { Clock, Effect } from "effect"

/** The clock at hand, but with a wall clock that `jump` sets forward by so many ms; the monotonic one runs on. */
export const jumpingClock = Effect.map(Effect.clock, (clock) => {
  let jumpedMs = 0
  const jumping: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + jumpedMs,
    unsafeCurrentTimeNanos: () => clock.unsafeCurrentTimeNanos(),
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (ms) => ms + jumpedMs),
    currentTimeNanos: clock.currentTimeNanos,
    sleep: (duration) => clock.sleep(duration)
  }
  return {
    clock,
    jumping,
    jump: (ms: number): void => {
      jumpedMs += ms
    }
  }
})
