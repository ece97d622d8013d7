import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, TestClock } from "effect"
import type { Coordinator } from "../../src/Coordinator.js"
import { CallRefused } from "../../src/Domain/Failure.js"
import type { JobId, JobSubmission, JobTaskSubmission } from "../../src/Domain/Job.js"
import { TaskId } from "../../src/Domain/Task.js"
import {
  ask,
  codex,
  error,
  eventually,
  failureOf,
  firstEvents,
  fresh,
  other,
  reaches,
  type Script,
  settle,
  start,
  submitted,
  succeed,
  tenant
} from "./harness.js"

const refused = error(
  new CallRefused({
    message: "refused",
    platform: codex,
    failure: { scope: "request", message: "content policy" },
    trace: []
  })
)

const named = (name: string, rest: Partial<JobTaskSubmission> = {}): JobTaskSubmission => ({
  name,
  prompt: `do ${name}`,
  ...rest
})

const submitJob = (coordinator: Coordinator["Type"], submission: JobSubmission) =>
  Effect.map(coordinator.jobs.submit(tenant, submission, Option.none()), ({ job }) => job)

const shown = (coordinator: Coordinator["Type"], id: JobId) => coordinator.jobs.get(tenant, id, {})

const taskOf = (coordinator: Coordinator["Type"], id: JobId, name: string) =>
  Effect.map(shown(coordinator, id), ({ tasks }) => {
    const task = tasks.find((one) => one.name === name)
    assert(task !== undefined, `no task ${name}`)
    return task
  })

const stateOf = (coordinator: Coordinator["Type"], id: JobId) =>
  Effect.map(shown(coordinator, id), ({ state, tasks }) => ({
    job: state,
    ...Object.fromEntries(tasks.map((task) => [task.name ?? task.id, task.state]))
  }))

const comesTo = (coordinator: Coordinator["Type"], id: JobId, states: Readonly<Record<string, string>>) =>
  eventually(stateOf(coordinator, id), (seen) =>
    Object.entries(states).every(([name, state]) => seen[name as keyof typeof seen] === state)
  )

const called = (script: Script) => script.seen.filter(({ what }) => what === "called").map(({ prompt }) => prompt)

describe("a job", () => {
  it.scoped("runs its tasks in parallel, as many at a time as it may, and adds up their results", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const names = ["a", "b", "c", "d", "e"]
      const job = yield* submitJob(coordinator, {
        mode: "parallel",
        maxParallel: 2,
        metadata: { for: "docs" },
        tasks: names.map((name) => named(name))
      })
      assert.strictEqual(job.state, "running")
      assert.deepStrictEqual(job.counts, { total: 5, open: 5, succeeded: 0, failed: 0, cancelled: 0 })
      yield* settle
      assert.deepStrictEqual(called(script), ["do a", "do b"])
      const held = yield* taskOf(coordinator, job.id, "c")
      assert.strictEqual(held.state, "waiting")
      assert.strictEqual(held.waiting, "waits for its turn in its job")

      yield* script.say("do b", start, succeed("B"))
      yield* comesTo(coordinator, job.id, { b: "succeeded" })
      yield* settle
      assert.deepStrictEqual(called(script), ["do a", "do b", "do c"])
      for (const name of ["a", "c", "d", "e"]) yield* script.say(`do ${name}`, start, succeed(name.toUpperCase()))
      yield* comesTo(coordinator, job.id, { job: "succeeded" })

      const done = yield* shown(coordinator, job.id)
      assert.deepStrictEqual(
        done.tasks.map(({ name, result }) => `${name}: ${result?.text}`),
        ["a: A", "b: B", "c: C", "d: D", "e: E"]
      )
      assert.deepStrictEqual(done.counts, { total: 5, open: 0, succeeded: 5, failed: 0, cancelled: 0 })
      assert.strictEqual(done.usage.outputTokens, 25)
      assert.strictEqual(done.costUsd, 1.25)
      assert.deepStrictEqual(done.metadata, { for: "docs" })
      assert.isDefined(done.finishedAt)
    })
  )

  it.scoped("carries tasks out one after another, each with the results before it as context", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, {
        mode: "sequential",
        tasks: [named("plan"), named("write"), named("review")]
      })
      yield* settle
      assert.deepStrictEqual(called(script), ["do plan"])
      yield* script.say("do plan", start, succeed("The plan"))
      yield* eventually(
        Effect.sync(() => called(script)),
        (seen) => seen.length === 2
      )
      yield* script.say("do write", start, succeed("The text"))
      yield* eventually(
        Effect.sync(() => called(script)),
        (seen) => seen.length === 3
      )
      assert.deepStrictEqual(script.calls.at(-1)?.messages, [
        { role: "user", content: "Earlier task plan: do plan" },
        { role: "assistant", content: "The plan" },
        { role: "user", content: "Earlier task write: do write" },
        { role: "assistant", content: "The text" },
        { role: "user", content: "do review" }
      ])
      yield* script.say("do review", start, succeed("Fine"))
      yield* comesTo(coordinator, job.id, { job: "succeeded" })
    })
  )

  it.scoped("does what is independent at once and the rest in order, where it may choose", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, {
        tasks: [
          named("code", { type: "implementation" }),
          named("manual", { type: "documentation" }),
          named("tests", { type: "testing" }),
          named("question")
        ]
      })
      assert.strictEqual(job.mode, "auto")
      yield* settle
      assert.deepStrictEqual([...called(script)].sort(), ["do code", "do manual", "do question"])
      yield* script.say("do code", start, succeed("The code"))
      yield* eventually(
        Effect.sync(() => called(script)),
        (seen) => seen.includes("do tests")
      )
      assert.deepStrictEqual(
        script.calls.at(-1)?.messages.map(({ content }) => content),
        ["Earlier task code: do code", "The code", "do tests"]
      )
    })
  )

  it.scoped("follows what its tasks say they depend on, and gives them those results", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const before = yield* submitted(coordinator, ask("an earlier task"))
      const job = yield* submitJob(coordinator, {
        mode: "parallel",
        tasks: [named("end", { dependsOn: ["left", "right", before.id] }), named("left"), named("right")]
      })
      assert.strictEqual((yield* taskOf(coordinator, job.id, "end")).waiting, "waits for 3 tasks")
      yield* script.say("do left", start, succeed("L"))
      yield* script.say("do right", start, succeed("R"))
      yield* eventually(taskOf(coordinator, job.id, "end"), ({ waiting }) => waiting === "waits for 1 task")
      assert.notInclude(called(script), "do end")
      yield* script.say("an earlier task", start, succeed("E"))
      yield* eventually(
        Effect.sync(() => called(script)),
        (seen) => seen.includes("do end")
      )
      assert.deepStrictEqual(
        script.calls
          .at(-1)
          ?.messages.filter(({ role }) => role === "assistant")
          .map(({ content }) => content),
        ["E", "L", "R"]
      )
      const end = yield* taskOf(coordinator, job.id, "end")
      const { dependsOn = [], jobId, name } = yield* coordinator.get(tenant, end.id)
      assert.strictEqual(dependsOn.length, 3)
      assert.strictEqual(jobId, job.id)
      assert.strictEqual(name, "end")
    })
  )

  const chain = (onFailure: "skip" | "stop" | "continue" | undefined): JobSubmission => ({
    mode: "parallel",
    maxParallel: 2,
    onFailure,
    tasks: [
      named("first"),
      named("second", { dependsOn: ["first"] }),
      named("third", { dependsOn: ["second"] }),
      named("beside"),
      named("later")
    ]
  })

  it.scoped("cancels what depends on a failed task, and goes on with the others", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, chain(undefined))
      assert.strictEqual(job.onFailure, "skip")
      yield* script.say("do first", start, refused)
      yield* comesTo(coordinator, job.id, { first: "failed", second: "cancelled", third: "cancelled" })
      const third = yield* taskOf(coordinator, job.id, "third")
      assert.strictEqual(third.error?.type, "dependency")
      assert.strictEqual((yield* shown(coordinator, job.id)).state, "running")
      yield* script.say("do beside", start, succeed("B"))
      yield* script.say("do later", start, succeed("L"))
      yield* comesTo(coordinator, job.id, { job: "failed", beside: "succeeded", later: "succeeded" })
      assert.deepStrictEqual((yield* shown(coordinator, job.id)).counts, {
        total: 5,
        open: 0,
        succeeded: 2,
        failed: 1,
        cancelled: 2
      })
    })
  )

  it.scoped("starts nothing more where it is to stop, and lets what runs come to its end", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, chain("stop"))
      yield* script.say("do beside", start)
      yield* eventually(
        Effect.sync(() => script.count("do beside", "sent")),
        (count) => count === 1
      )
      yield* script.say("do first", start, refused)
      yield* comesTo(coordinator, job.id, {
        job: "running",
        first: "failed",
        second: "cancelled",
        third: "cancelled",
        later: "cancelled",
        beside: "running"
      })
      assert.deepStrictEqual((yield* taskOf(coordinator, job.id, "later")).error, {
        type: "stopped",
        message: "The task first of the same job did not succeed"
      })
      yield* script.say("do beside", succeed("B"))
      yield* comesTo(coordinator, job.id, { job: "failed", beside: "succeeded" })
      assert.notInclude(called(script), "do later")
    })
  )

  it.scoped("goes on with all of them where it is to continue, and says what is missing", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, chain("continue"))
      yield* script.say("do first", start, refused)
      yield* eventually(
        Effect.sync(() => called(script)),
        (seen) => seen.includes("do second")
      )
      const call = script.calls.find(({ messages }) => messages.at(-1)?.content === "do second")
      assert.match(String(call?.messages[1]?.content), /There is no result: the task failed: refused/)
      for (const name of ["second", "third", "beside", "later"]) {
        yield* script.say(`do ${name}`, start, succeed(name))
      }
      yield* comesTo(coordinator, job.id, { job: "failed", third: "succeeded", later: "succeeded" })
    })
  )

  it.scoped("is cancelled whole: what runs is interrupted, what waits never starts", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, chain(undefined))
      yield* script.say("do first", start)
      yield* eventually(
        Effect.sync(() => script.count("do first", "sent")),
        (count) => count === 1
      )
      const cancelled = yield* coordinator.jobs.cancel(tenant, job.id)
      assert.strictEqual(cancelled.state, "cancelled")
      assert.deepStrictEqual(cancelled.counts, { total: 5, open: 0, succeeded: 0, failed: 0, cancelled: 5 })
      yield* eventually(
        Effect.sync(() => script.count("do first", "interrupted")),
        (count) => count === 1
      )
      yield* settle
      assert.deepStrictEqual([...called(script)].sort(), ["do beside", "do first"])
      assert.strictEqual((yield* coordinator.jobs.cancel(tenant, job.id)).state, "cancelled")
      assert.strictEqual(failureOf(yield* Effect.exit(coordinator.jobs.cancel(other, job.id)))?._tag, "NotFound")
    })
  )

  it.scoped("is not cancelled once it has ended", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, { tasks: [named("only")] })
      yield* script.say("do only", start, succeed("done"))
      yield* comesTo(coordinator, job.id, { job: "succeeded" })
      assert.strictEqual(failureOf(yield* Effect.exit(coordinator.jobs.cancel(tenant, job.id)))?._tag, "Conflict")
    })
  )

  it.scoped("is open again when a failed task of it is retried, with all that was cancelled on its account", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, chain("stop"))
      yield* script.say("do beside", start)
      yield* eventually(
        Effect.sync(() => script.count("do beside", "sent")),
        (count) => count === 1
      )
      yield* script.say("do first", start, refused)
      yield* script.say("do beside", succeed("B"))
      yield* comesTo(coordinator, job.id, { job: "failed" })

      const second = yield* taskOf(coordinator, job.id, "second")
      const conflict = failureOf(yield* Effect.exit(coordinator.retry(tenant, second.id)))
      assert.strictEqual(conflict?._tag, "Conflict")
      assert.match(String(conflict?.message), /retry that one/)

      yield* coordinator.retry(tenant, (yield* taskOf(coordinator, job.id, "first")).id)
      const reopened = yield* shown(coordinator, job.id)
      assert.strictEqual(reopened.state, "running")
      assert.deepStrictEqual(reopened.counts, { total: 5, open: 4, succeeded: 1, failed: 0, cancelled: 0 })
      for (const name of ["first", "second", "third", "later"]) yield* script.say(`do ${name}`, start, succeed(name))
      yield* comesTo(coordinator, job.id, { job: "succeeded", third: "succeeded", later: "succeeded" })
    })
  )

  it.scoped("counts a task that was cancelled by itself as one that did not succeed", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, {
        mode: "sequential",
        tasks: [named("one"), named("two"), named("three")]
      })
      yield* script.say("do one", start, succeed("1"))
      yield* comesTo(coordinator, job.id, { one: "succeeded" })
      yield* coordinator.cancel(tenant, (yield* taskOf(coordinator, job.id, "two")).id)
      yield* comesTo(coordinator, job.id, { job: "cancelled", two: "cancelled", three: "cancelled" })
    })
  )

  it.scoped("fails what still waits at its deadline", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, {
        mode: "sequential",
        onFailure: "continue",
        deadline: 60,
        tasks: [named("slow", { deadline: 600 }), named("blocked")]
      })
      yield* script.say("do slow", start)
      yield* settle
      yield* TestClock.adjust("61 seconds")
      yield* comesTo(coordinator, job.id, { slow: "running", blocked: "failed", job: "running" })
      const blocked = yield* taskOf(coordinator, job.id, "blocked")
      assert.strictEqual(blocked.error?.type, "deadline")
      assert.match(String(blocked.error?.message), /waits for 1 task/)
      yield* script.say("do slow", succeed("at last"))
      yield* comesTo(coordinator, job.id, { job: "failed", slow: "succeeded" })
    })
  )

  it.scoped("is refused whole, with what is wrong with each task", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const refusalOf = (submission: JobSubmission) =>
        Effect.map(Effect.exit(submitJob(coordinator, submission)), (exit) => {
          const failure = failureOf(exit)
          assert(Exit.isFailure(exit) && failure?._tag === "TaskRefused")
          return failure.problems.map(({ field, problem }) => `${field}: ${problem}`)
        })

      assert.deepStrictEqual(
        yield* refusalOf({ tasks: [named("fine"), { prompt: "" }, named("good"), { prompt: "" }] }),
        ["tasks.1.prompt: it is empty", "tasks.3.prompt: it is empty"]
      )
      assert.deepStrictEqual(
        yield* refusalOf({
          mode: "parallel",
          tasks: [
            named("a", { dependsOn: ["c"] }),
            named("b", { dependsOn: ["a"] }),
            named("c", { dependsOn: ["b"] }),
            named("a"),
            named("d", { dependsOn: ["nobody"] })
          ]
        }),
        [
          "tasks.3.name: tasks.0 is called a too",
          "tasks.4.dependsOn.0: there is no task called nobody in this job",
          "tasks.0.dependsOn: these tasks would wait for each other: a -> c -> b -> a"
        ]
      )
      const [circle] = yield* refusalOf({ mode: "sequential", tasks: [named("a", { dependsOn: ["b"] }), named("b")] })
      assert.match(String(circle), /a -> b -> a \(in the mode sequential tasks wait for those before them, too\)/)
      assert.deepStrictEqual(yield* refusalOf({ tasks: [named("a", { type: "testing", dependsOn: ["a"] })] }), [
        "tasks.0.dependsOn: these tasks would wait for each other: a -> a"
      ])
      const stranger = TaskId.make("01900000-0000-7000-8000-000000000000")
      assert.deepStrictEqual(yield* refusalOf({ tasks: [named("a", { dependsOn: [stranger] })] }), [
        `tasks.0.dependsOn.0: there is no task ${stranger}`
      ])
      assert.deepStrictEqual((yield* coordinator.list(tenant, {})).tasks, [])
      assert.deepStrictEqual((yield* coordinator.jobs.list(tenant, {})).jobs, [])
    })
  )

  it.scoped("is the same job for the same key and body, and a conflict for another body", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const submission: JobSubmission = { tasks: [named("a"), named("b")] }
      const key = Option.some("nightly")
      const all = yield* Effect.all(
        Array.from({ length: 20 }, () => coordinator.jobs.submit(tenant, submission, key)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(all.map(({ job }) => job.id)).size, 1)
      assert.strictEqual(all.filter(({ replayed }) => !replayed).length, 1)
      assert.strictEqual((yield* coordinator.list(tenant, {})).tasks.length, 2)
      const clash = coordinator.jobs.submit(tenant, { tasks: [named("c")] }, key)
      assert.strictEqual(failureOf(yield* Effect.exit(clash))?._tag, "Conflict")
      const { job, replayed } = yield* coordinator.jobs.submit(other, submission, key)
      assert.isFalse(replayed)
      assert.strictEqual(job.tenant, other)
    })
  )

  it.scoped("is listed newest first, and shown a page of tasks at a time", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const first = yield* submitJob(coordinator, { mode: "parallel", tasks: [named("a")] })
      const second = yield* submitJob(coordinator, {
        mode: "sequential",
        tasks: ["x", "y", "z"].map((name) => named(name))
      })
      yield* script.say("do a", start, succeed("A"))
      yield* comesTo(coordinator, first.id, { job: "succeeded" })

      const page = yield* coordinator.jobs.list(tenant, { limit: 1 })
      assert.deepStrictEqual(
        page.jobs.map(({ id }) => id),
        [second.id]
      )
      const rest = yield* coordinator.jobs.list(tenant, { limit: 1, cursor: page.next })
      assert.deepStrictEqual(
        rest.jobs.map(({ id }) => id),
        [first.id]
      )
      assert.isUndefined(rest.next)
      const running = yield* coordinator.jobs.list(tenant, { state: "running", mode: "sequential" })
      assert.strictEqual(running.jobs.length, 1)
      assert.deepStrictEqual((yield* coordinator.jobs.list(other, {})).jobs, [])

      const start1 = yield* coordinator.jobs.get(tenant, second.id, { limit: 2 })
      assert.deepStrictEqual(
        start1.tasks.map(({ name }) => name),
        ["x", "y"]
      )
      const rest1 = yield* coordinator.jobs.get(tenant, second.id, { limit: 2, cursor: start1.next })
      assert.deepStrictEqual(
        rest1.tasks.map(({ name }) => name),
        ["z"]
      )
      assert.isUndefined(rest1.next)
    })
  )

  it.scoped("says in each task's events when it was queued, and nothing before", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, { mode: "sequential", tasks: [named("a"), named("b")] })
      yield* script.say("do a", start, succeed("A"))
      yield* script.say("do b", start, succeed("B"))
      yield* comesTo(coordinator, job.id, { job: "succeeded" })
      const { id } = yield* taskOf(coordinator, job.id, "b")
      assert.deepStrictEqual(
        (yield* firstEvents(coordinator, id, 4)).map(({ type }) => type),
        ["task.queued", "attempt.started", "attempt.succeeded", "task.succeeded"]
      )
    })
  )

  it.scoped("cuts results that would not fit, the longest first, and says so", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const job = yield* submitJob(coordinator, {
        mode: "parallel",
        tasks: [named("long"), named("short"), named("end", { dependsOn: ["long", "short"] })]
      })
      yield* script.say("do long", start, succeed("x".repeat(400_000)))
      yield* script.say("do short", start, succeed("a short answer"))
      yield* eventually(
        Effect.sync(() => called(script)),
        (seen) => seen.includes("do end")
      )
      const [, long, , short] = script.calls.at(-1)?.messages ?? []
      assert.strictEqual(short?.content, "a short answer")
      assert.match(String(long?.content), /\[cut here: these are the first \d+ of 400000 characters\]$/)
      assert.isAtMost(String(long?.content).length, 32_000 * 4)
      assert.isAbove(String(long?.content).length, 30_000 * 4)
      yield* coordinator.jobs.cancel(tenant, job.id)
    })
  )
})

describe("a task that depends on others", () => {
  it.scoped("waits for them, and sees their results", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const first = yield* submitted(coordinator, ask("first"))
      const second = yield* submitted(coordinator, ask("second", { dependsOn: [first.id] }))
      assert.strictEqual(second.state, "waiting")
      assert.strictEqual(second.waiting?.why, "waits for 1 task")
      yield* script.say("first", start, succeed("one"))
      yield* script.say("second", start, succeed("two"))
      yield* reaches(coordinator, second.id, "succeeded")
      assert.deepStrictEqual(
        script.calls.at(-1)?.messages.map(({ content }) => content),
        [`Earlier task ${first.id}: first`, "one", "second"]
      )
      assert.deepStrictEqual(
        (yield* firstEvents(coordinator, second.id, 3)).map(({ type }) => type),
        ["task.waiting", "task.queued", "attempt.started"]
      )
      const third = yield* submitted(coordinator, ask("third", { dependsOn: [first.id, second.id] }))
      assert.strictEqual(third.state, "queued")
    })
  )

  it.scoped("is cancelled when one of them fails, and waits again when that one is retried", () =>
    Effect.gen(function* () {
      const { coordinator, script } = yield* fresh()
      const first = yield* submitted(coordinator, ask("first"))
      const second = yield* submitted(coordinator, ask("second", { dependsOn: [first.id] }))
      const third = yield* submitted(coordinator, ask("third", { dependsOn: [second.id] }))
      yield* script.say("first", start, refused)
      assert.strictEqual((yield* reaches(coordinator, third.id, "cancelled")).error?.type, "dependency")
      const late = failureOf(yield* Effect.exit(submitted(coordinator, ask("late", { dependsOn: [first.id] }))))
      assert(late?._tag === "TaskRefused")
      assert.deepStrictEqual(late.problems, [{ field: "dependsOn.0", problem: `the task ${first.id} failed already` }])

      yield* coordinator.retry(tenant, first.id)
      assert.strictEqual((yield* coordinator.get(tenant, third.id)).state, "waiting")
      for (const prompt of ["first", "second", "third"]) yield* script.say(prompt, start, succeed(prompt))
      yield* reaches(coordinator, third.id, "succeeded")
    })
  )

  it.scoped("does not learn of other tenants' tasks", () =>
    Effect.gen(function* () {
      const { coordinator } = yield* fresh()
      const { task } = yield* coordinator.submit(other, ask("theirs"), Option.none())
      const failure = failureOf(yield* Effect.exit(submitted(coordinator, ask("mine", { dependsOn: [task.id] }))))
      assert(failure?._tag === "TaskRefused")
      assert.deepStrictEqual(failure.problems, [{ field: "dependsOn.0", problem: `there is no task ${task.id}` }])
    })
  )
})
