import { Effect, Ref } from "effect"
import type { PlatformView } from "../../Domain/Lease.js"
import { duration, table } from "../Output.js"

export interface Snapshot {
  readonly submitted: number
  readonly done: number
  readonly doneBy: Readonly<Record<string, number>>
  readonly platforms: ReadonlyArray<PlatformView>
  readonly elapsedMs: number
}

const barWidth = 40

const bar = (done: number, of: number): string => {
  const filled = of === 0 ? 0 : Math.round((barWidth * done) / of)
  return `${"█".repeat(filled)}${"░".repeat(barWidth - filled)}`
}

const measured = (ms: number | undefined): string => (ms === undefined ? "-" : duration(ms))

const stateOf = ({ breaker, status }: PlatformView): string => (breaker === "closed" ? status : `breaker ${breaker}`)

/** One picture of the work as it goes on. */
export const frame = ({ done, doneBy, elapsedMs, platforms, submitted }: Snapshot): string =>
  [
    `${bar(done, submitted)} ${done}/${submitted} tasks, ${duration(elapsedMs)}`,
    "",
    table(
      ["platform", "state", "in flight", "done", "tokens", "p50", "p95"],
      platforms.map((platform) => [
        platform.id,
        stateOf(platform),
        String(platform.inFlight),
        String(doneBy[platform.id] ?? 0),
        platform.performance.tokens.toLocaleString("en-US"),
        measured(platform.performance.durationMsP50),
        measured(platform.performance.durationMsP95)
      ])
    )
  ].join("\n")

/** Draws each picture over the one before, on `terminal`; does nothing where that is none. */
export const makeScreen = (
  terminal: Pick<NodeJS.WriteStream, "isTTY" | "columns" | "write">
): Effect.Effect<(picture: string) => Effect.Effect<void>> =>
  Effect.map(
    Ref.make(0),
    (drawnLines) => (picture: string) =>
      terminal.isTTY
        ? Effect.flatMap(Ref.getAndSet(drawnLines, picture.split("\n").length), (lines) =>
            Effect.sync(() => {
              const up = lines === 0 ? "" : `\u001b[${lines}A`
              // A line that the terminal wraps would take two, and the next picture would miss its place.
              const fitting = picture.split("\n").map((line) => line.slice(0, terminal.columns))
              terminal.write(`${up}\u001b[0J${fitting.join("\n")}\n`)
            })
          )
        : Effect.void
  )
