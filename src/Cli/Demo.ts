import * as FileSystem from "@effect/platform/FileSystem"
import { Clock, Console, Context, Duration, Effect, Fiber, Layer, Logger, LogLevel, Random, Schedule } from "effect"
import * as Client from "../Client.js"
import { isTerminal, type TaskSummary } from "../Domain/Task.js"
import { monotonicMs } from "../Domain/Time.js"
import { Http } from "../Http.js"
import * as Transport from "../Platforms/Transport.js"
import { Settings } from "../Settings.js"
import { Simulator } from "../Simulator.js"
import { Team } from "../Team.js"
import { faultMs, mixedLoad, patient, platformIds, settingsFor, simulatorOptions } from "./Demo/Load.js"
import { frame, makeScreen } from "./Demo/Progress.js"
import { complaint, inWords, summarize } from "./Demo/Summary.js"
import { CommandFailed } from "./Exit.js"
import { counted, duration, printJson } from "./Output.js"

export interface DemoOptions {
  readonly tasks: number
  readonly seed: number
  readonly json: boolean
}

/** Submissions under way at once. */
const submitters = 8

/** What has not ended after so long counts as lost, ms: a minute, and for larger loads a second for each 5 tasks. */
const patienceMs = (tasks: number): number => 60_000 + tasks * 200

const allTasks = (client: Client.Client): Effect.Effect<ReadonlyArray<TaskSummary>, CommandFailed> => {
  const from = (cursor: string | undefined): Effect.Effect<ReadonlyArray<TaskSummary>, CommandFailed> =>
    client.tasks.list({ urlParams: { limit: 200, cursor } }).pipe(
      Effect.mapError(failedTo("list the tasks")),
      Effect.flatMap(({ next, tasks }) =>
        next === undefined ? Effect.succeed(tasks) : Effect.map(from(next), (rest) => [...tasks, ...rest])
      )
    )
  return from(undefined)
}

const fault = (tense: "is" | "was"): string => `${patient} ${tense} made to fail for ${duration(faultMs)}`

/** Progress is told on a terminal only. */
const onTerminal = (line: string): Effect.Effect<void> => (process.stderr.isTTY ? Console.error(line) : Effect.void)

const failedTo =
  (what: string) =>
  (error: { readonly message: string }): CommandFailed =>
    new CommandFailed({ message: `The demo could not ${what}: ${error.message}` })

const countBy = (names: ReadonlyArray<string | undefined>): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const name of names) if (name !== undefined) counts[name] = (counts[name] ?? 0) + 1
  return counts
}

/**
 * Starts the simulator and the service in this process, gives the team a mixed load through the HTTP API, makes a
 * platform fail and recover on the way, and tells how it went. Fails where a task was lost or a limit was violated.
 */
export const run = Effect.fn("Demo.run")(
  function* ({ json, seed, tasks }: DemoOptions) {
    const files = yield* FileSystem.FileSystem
    const folder = yield* files
      .makeTempDirectoryScoped({ prefix: "dream-team-demo-" })
      .pipe(Effect.mapError(failedTo("make a temporary folder")))
    const simulator = yield* Simulator.make(simulatorOptions(seed))
    const settings = Settings.layer(settingsFor(simulator, `${folder}/tasks.db`))
    const service = yield* Layer.build(
      Http.layer.pipe(Layer.provide(Team.layer), Layer.provideMerge(Transport.layer), Layer.provide(settings))
    )
    const client = yield* Client.make({ baseUrl: Context.get(service, Http).url }).pipe(Effect.provide(service))

    const draw = yield* makeScreen(process.stderr)
    yield* onTerminal(
      `${counted(tasks, "task")} for four simulated platforms on this machine. ${fault("is")} on the way.\n`
    )
    const load = yield* mixedLoad(tasks).pipe(Effect.withRandom(Random.make(seed)))
    const startedAt = yield* monotonicMs

    const submitting = yield* Effect.forEach(
      load,
      (payload, index) => client.tasks.submit({ payload, headers: { "idempotency-key": `demo-${index}` } }),
      { concurrency: submitters, discard: true }
    ).pipe(Effect.mapError(failedTo("submit its tasks")), Effect.forkScoped)

    let faultSet = false
    const look = Effect.gen(function* () {
      const listed = yield* allTasks(client)
      const ended = listed.filter(({ state }) => isTerminal(state))
      if (!faultSet && ended.length >= tasks / 3) {
        faultSet = true
        yield* simulator
          .fault({ platform: patient, fault: "status", status: 503, forMs: faultMs })
          .pipe(Effect.mapError(failedTo(`make ${patient} fail`)))
      }
      const { platforms } = yield* client.platforms.list().pipe(Effect.mapError(failedTo("list the platforms")))
      yield* draw(
        frame({
          submitted: tasks,
          done: ended.length,
          doneBy: countBy(ended.map(({ platform }) => platform)),
          platforms,
          elapsedMs: (yield* monotonicMs) - startedAt
        })
      )
      return ended.length
    })
    yield* look.pipe(
      Effect.repeat({ until: (ended) => ended >= tasks, schedule: Schedule.spaced(Duration.millis(100 + tasks / 2)) }),
      Effect.timeoutOption(Duration.millis(patienceMs(tasks)))
    )
    yield* Fiber.interrupt(submitting)

    const listed = yield* allTasks(client)
    const lastAnswer = Math.max(...listed.map(({ finishedAt }) => finishedAt ?? 0))
    const wallMs = Math.max(0, lastAnswer - ((yield* Clock.currentTimeMillis) - ((yield* monotonicMs) - startedAt)))
    const attempts = yield* Effect.forEach(
      listed,
      ({ id }) => Effect.map(client.tasks.attempts({ path: { id } }), (answer) => answer.attempts),
      { concurrency: submitters }
    ).pipe(Effect.mapError(failedTo("list the attempts")))

    const summary = summarize({
      submitted: tasks,
      tasks: listed,
      attempts,
      platforms: platformIds,
      stats: yield* simulator.stats,
      wallMs: Math.round(wallMs)
    })
    yield* onTerminal("")
    yield* json ? printJson(summary) : Console.log(inWords(summary, fault("was")))
    const wrong = complaint(summary)
    if (wrong !== undefined) return yield* new CommandFailed({ message: wrong })
  },
  Effect.scoped,
  Logger.withMinimumLogLevel(LogLevel.Error)
)
