import type { ServerResponse } from "node:http"
import { type Clock, Duration, Effect, type Fiber, FiberId } from "effect"
import type { Frame } from "./Wire.js"

/** Runs an effect on a fiber that ends with the simulator. */
export type Fork = (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>

/** What is sent, and when. */
export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly frames: ReadonlyArray<Frame>
  /** After the last frame: end the body, reset the connection, or say nothing more. */
  readonly ending: "end" | "reset" | "hang"
}

/** Sends replies; at once where nothing is to be waited for, else from a fiber that the client's leaving ends. */
export class Exchange {
  private readonly response: ServerResponse
  private readonly clock: Clock.Clock
  private readonly fork: Fork
  private fiber: Fiber.RuntimeFiber<void> | undefined
  private over = false
  private onGone: ReadonlyArray<() => void>
  /** Frames sent so far. */
  sent = 0

  /** `onGone` is called once if the client closes the connection before the reply is over. */
  constructor(response: ServerResponse, clock: Clock.Clock, fork: Fork, onGone: () => void) {
    this.onGone = [onGone]
    this.response = response
    this.clock = clock
    this.fork = fork
    // A write may meet a connection that is gone; "close" tells of that.
    response.on("error", () => {})
    response.once("close", () => {
      if (this.over) return
      this.over = true
      this.fiber?.unsafeInterruptAsFork(FiberId.none)
      for (const run of this.onGone) run()
    })
  }

  /** Runs it too if the client closes the connection before the reply is over. */
  whenGone(run: () => void): void {
    this.onGone = [...this.onGone, run]
  }

  /** Goes on after a while, unless the client has left by then. */
  later(ms: number, next: () => void): void {
    this.fiber = this.fork(
      Effect.flatMap(this.clock.sleep(Duration.millis(ms)), () =>
        Effect.sync(() => {
          if (!this.over) next()
        })
      )
    )
  }

  /** Sends the reply; `onOver` is called once, just before the client can see its end. */
  play(reply: Reply, onOver: () => void = () => {}): void {
    if (this.over) return
    const immediate = reply.ending === "end" && reply.frames.every(({ afterMs }) => afterMs <= 0)
    if (immediate) {
      const body =
        reply.frames.length === 1 ? (reply.frames[0]?.data ?? "") : reply.frames.map(({ data }) => data).join("")
      this.sent = reply.frames.length
      this.over = true
      onOver()
      this.response.writeHead(reply.status, reply.headers)
      this.response.end(body)
      return
    }
    this.fiber = this.fork(this.playSlowly(reply, onOver))
  }

  private playSlowly(reply: Reply, onOver: () => void): Effect.Effect<void> {
    const { frames, ending } = reply
    const self = this
    return Effect.gen(function* () {
      let index = 0
      while (index < frames.length) {
        yield* self.clock.sleep(Duration.millis(frames[index]?.afterMs ?? 0))
        let data = frames[index]?.data ?? ""
        index++
        // What is due at the same moment goes out in one write.
        while (index < frames.length && (frames[index]?.afterMs ?? 0) <= 0) {
          data += frames[index]?.data ?? ""
          index++
        }
        self.sent = index
        if (!self.response.headersSent) self.response.writeHead(reply.status, reply.headers)
        if (index === frames.length && ending === "end") {
          self.over = true
          onOver()
          self.response.end(data)
          return
        }
        yield* self.write(data)
      }
      if (ending === "reset") {
        self.over = true
        onOver()
        self.response.socket?.resetAndDestroy()
        return
      }
      return yield* Effect.never
    })
  }

  /** Done when the connection has taken the data. */
  private write(data: string): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      this.response.write(data, () => resume(Effect.void))
    })
  }
}
