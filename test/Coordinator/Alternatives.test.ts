import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Stream, TestClock } from "effect"
import { Coordinator } from "../../src/Coordinator.js"
import type { Call, Message } from "../../src/Domain/Call.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type Task, type TaskId, type TaskSubmission, TenantId } from "../../src/Domain/Task.js"
import type { SettingsOptions } from "../../src/Settings.js"
import * as Testing from "../../src/Testing.js"
import { eventually } from "./harness.js"

const { answer, fail, failures, hang } = Testing
const ann = TenantId.make("ann")

const lastText = (call: Call): string => {
  const content = call.messages.at(-1)?.content
  return typeof content === "string" ? content : ""
}

const usage = (inputTokens: number, outputTokens: number) => ({
  inputTokens,
  outputTokens,
  cachedInputTokens: 0,
  reasoningTokens: 0
})

const price = { input: 1_000_000, output: 0, asOf: "2026-11-01" }

/** One platform that does as said. */
const one = (
  attempts: Testing.Script["attempts"],
  settings: NonNullable<Testing.Script["settings"]> = {}
): Testing.Script => ({ id: "solo", attempts, settings })

const broken = fail(failures.platform())

const layer = (
  scripts: ReadonlyArray<Testing.Script>,
  alternatives: NonNullable<SettingsOptions["alternatives"]> = {},
  tasks: NonNullable<SettingsOptions["tasks"]> = {}
) => Testing.layer(scripts, { tasks: { maxAttempts: 1, ...tasks }, alternatives })

const submit = (submission: Partial<TaskSubmission> = {}) =>
  Effect.flatMap(Coordinator, (coordinator) =>
    Effect.map(
      coordinator.submit(ann, { prompt: "Write a book", priority: "HIGH", ...submission }, Option.none()),
      ({ task }) => task.id
    )
  )

const get = (id: TaskId) => Effect.flatMap(Coordinator, (coordinator) => coordinator.get(ann, id))

/** Submits a HIGH task and lets time pass until nothing is left to do. */
const run = (submission: Partial<TaskSubmission> = {}) =>
  Effect.gen(function* () {
    const id = yield* submit(submission)
    yield* Testing.advanceUntilIdle()
    return yield* get(id)
  })

const stepsOf = (task: Task) => task.alternatives?.map(({ state, step }) => `${step} ${state}`)

const eventsOf = (id: TaskId) =>
  Effect.flatMap(Coordinator, (coordinator) =>
    Effect.flatMap(coordinator.events(ann, id, Option.none()), (events) =>
      Effect.map(Stream.runCollect(events), (all) => [...all].map(({ type }) => type))
    )
  )

const received = Effect.flatMap(Testing.Received, ({ calls }) => calls)

const turns: ReadonlyArray<Message> = Array.from({ length: 10 }, (_, index) => ({
  role: index % 2 === 0 ? ("user" as const) : ("assistant" as const),
  content: `turn ${index}: ${"word ".repeat(200)}`
}))

const plan = (order: "parallel" | "sequence", parts: number) =>
  JSON.stringify({
    order,
    parts: Array.from({ length: parts }, (_, index) => ({
      title: `Part ${index + 1}`,
      instructions: `Do piece ${index + 1}`
    }))
  })

describe("alternatives: another class", () => {
  it.effect("has a model of another class do it, as a task of its own", () =>
    Effect.gen(function* () {
      const task = yield* run({ metadata: { is: "mine" } })
      assert.strictEqual(task.state, "succeeded")
      assert.deepInclude(task.result, {
        text: "done",
        model: "large",
        usage: usage(7, 9),
        note: "answered by a model of the class best"
      })
      assert.isUndefined(task.partial)
      assert.deepStrictEqual(stepsOf(task), ["class-1 succeeded"])
      const child = yield* get(task.alternatives?.[0]?.id ?? assert.fail("no child"))
      assert.deepInclude(child, { parentId: task.id, state: "succeeded", priority: "HIGH", model: "best" })
      assert.deepInclude(child.alternative, { kind: "class", step: "class-1" })
      assert.deepStrictEqual(yield* eventsOf(task.id), [
        "task.queued",
        "attempt.started",
        "attempt.failed",
        "task.alternative",
        "task.waiting",
        "task.queued",
        "task.succeeded"
      ])
    }).pipe(
      Effect.provide(
        layer([
          one(({ model }) => (model === "large" ? answer("done", { usage: usage(7, 9) }) : broken), {
            classes: { best: "large" }
          })
        ])
      )
    )
  )

  it.effect("goes to a platform that lacks what only the submission asks for, but not where it is denied", () =>
    Effect.gen(function* () {
      const task = yield* run({ requires: ["reasoning"], deny: [PlatformId.make("third")] })
      assert.strictEqual(task.result?.platform, "second")
      assert.lengthOf(
        (yield* received).filter(({ platform }) => platform === "third"),
        0
      )
    }).pipe(
      Effect.provide(
        layer([
          one([broken]),
          { id: "second", settings: { capabilities: ["text"] } },
          { id: "third", settings: { capabilities: ["text"] } }
        ])
      )
    )
  )

  it.effect("leaves a model that is named, and nobody new, alone", () =>
    Effect.gen(function* () {
      const task = yield* run({ model: "solo-model" })
      assert.deepInclude(task, { state: "failed", attention: true })
      assert.isUndefined(task.alternatives)
      assert.include(task.error?.message ?? "", "Nothing else helped: class: ")
    }).pipe(Effect.provide(layer([one([broken], { classes: { best: "large" } })], { order: ["class"] })))
  )
})

describe("alternatives: a shorter conversation", () => {
  it.effect("summarises the oldest turns with a fast model, keeps the last whole, and says so", () =>
    Effect.gen(function* () {
      const task = yield* run({ context: turns, model: "solo-model" })
      assert.deepStrictEqual(stepsOf(task), ["summary succeeded", "shrunk succeeded"])
      assert.match(
        task.result?.note ?? "",
        /^the oldest [0-9]+ turns of its conversation were summarised by solo \(small\)/
      )
      assert.strictEqual(task.result?.text, "short enough")
      const calls = yield* received
      const shrunk = calls.at(-1)?.call ?? assert.fail("no call")
      assert.include(JSON.stringify(shrunk.messages[0]), "what was said")
      assert.deepStrictEqual(shrunk.messages.at(-2), turns.at(-1))
      assert.strictEqual(lastText(shrunk), "Write a book")
      // both were paid for
      assert.strictEqual(task.result?.usage.outputTokens, 3 + 4)
      const child = yield* get(task.alternatives?.[1]?.id ?? assert.fail("no child"))
      assert.include(child.alternative?.note ?? "", "summarised")
    }).pipe(
      Effect.provide(
        layer(
          [
            one(
              ({ call, model }) =>
                model === "small"
                  ? answer("what was said", { usage: usage(5, 3) })
                  : call.messages.length > 8
                    ? fail(failures.context())
                    : answer("short enough", { usage: usage(6, 4) }),
              { classes: { fast: "small" } }
            )
          ],
          { order: ["shrink"] }
        )
      )
    )
  )

  it.effect("leaves the oldest turns out where nobody can summarise them", () =>
    Effect.gen(function* () {
      const task = yield* run({ context: turns })
      assert.deepStrictEqual(stepsOf(task), ["summary failed", "shrunk succeeded"])
      assert.match(task.result?.note ?? "", /were left out to make it shorter/)
    }).pipe(
      Effect.provide(
        layer(
          [
            one(({ call }) =>
              lastText(call).startsWith("Below, as JSON")
                ? broken
                : call.messages.length > 8
                  ? fail(failures.context())
                  : answer("short enough")
            )
          ],
          { order: ["shrink"] }
        )
      )
    )
  )
})

const splitting = (order: "parallel" | "sequence", parts: number) =>
  one(({ call }) => {
    const prompt = lastText(call)
    if (prompt.startsWith("A task of the type")) return answer(plan(order, parts), { usage: usage(1, 1) })
    if (prompt.startsWith("This is part")) {
      const number = /part (\d)/.exec(prompt)?.[1]
      const earlier = prompt.includes("# Answers of the parts before it") ? " after the others" : ""
      return answer(`piece ${number}${earlier}`, { usage: usage(1, 1), afterMs: 1_000 })
    }
    if (prompt.startsWith("A task was done in parts")) return answer("the whole book", { usage: usage(1, 1) })
    return broken
  })

describe("alternatives: parts", () => {
  it.effect("divides the task, does the parts at once and puts them together", () =>
    Effect.gen(function* () {
      const began = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
      const task = yield* run()
      assert.deepStrictEqual(stepsOf(task), [
        "plan succeeded",
        "part-1 succeeded",
        "part-2 succeeded",
        "part-3 succeeded",
        "combine succeeded"
      ])
      assert.deepInclude(task.result, {
        text: "the whole book",
        usage: usage(5, 5),
        note: "done in 3 parts and put together"
      })
      // three parts of a second each, at once
      assert.isBelow((task.finishedAt ?? 0) - began, 2_000)
      const combined = lastText((yield* received).at(-1)?.call ?? assert.fail("no call"))
      for (const number of [1, 2, 3]) assert.include(combined, `piece ${number}`)
    }).pipe(Effect.provide(layer([splitting("parallel", 3)], { order: ["split"] })))
  )

  it.effect("does parts that need each other one after the other", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.strictEqual(task.result?.text, "the whole book")
      const combined = lastText((yield* received).at(-1)?.call ?? assert.fail("no call"))
      assert.include(combined, "piece 2 after the others")
      assert.notInclude(combined, "piece 1 after the others")
    }).pipe(Effect.provide(layer([splitting("sequence", 2)], { order: ["split"] })))
  )

  it.effect("makes no parts of a plan that is too large or no plan", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.deepStrictEqual(stepsOf(task), ["plan succeeded"])
      assert.deepInclude(task, { state: "failed", attention: true })
    }).pipe(Effect.provide(layer([splitting("parallel", 7)], { order: ["split"], maxChildren: 20 })))
  )
})

describe("alternatives: the best incomplete answer", () => {
  it.effect("gives the longest text that had come before an attempt broke off, and says that it is not whole", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.deepInclude(task, { state: "succeeded", partial: true })
      assert.deepInclude(task.result, {
        text: "Once upon a time",
        partial: true,
        note: "not whole: what attempt 2 on solo had answered when it broke off"
      })
      assert.isUndefined(task.result?.costUsd)
    }).pipe(
      Effect.provide(
        layer(
          [
            one([
              fail(failures.platform(), { text: "Once" }),
              fail(failures.platform(), { text: "Once upon a time" }),
              fail(failures.platform(), { text: "Once upon" })
            ])
          ],
          { order: ["partial"] },
          { maxAttempts: 3 }
        )
      )
    )
  )

  it.effect("gives the parts that were done, where they are more", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.deepInclude(task, { state: "succeeded", partial: true })
      assert.include(task.result?.text ?? "", "piece 1")
      assert.strictEqual(task.result?.note, "the answers of 1 of its 2 parts")
    }).pipe(
      Effect.provide(
        layer(
          [
            one(({ call }) => {
              const prompt = lastText(call)
              if (prompt.startsWith("A task of the type")) return answer(plan("parallel", 2))
              return prompt.startsWith("This is part 1") ? answer("piece 1") : broken
            })
          ],
          { order: ["split", "partial"] }
        )
      )
    )
  )

  it.effect("marks an answer that was cut by its length, of any priority", () =>
    Effect.gen(function* () {
      const task = yield* run({ priority: "LOW" })
      assert.deepInclude(task, { state: "succeeded", partial: true })
      assert.match(task.result?.note ?? "", /cut by the bound of its length/)
    }).pipe(Effect.provide(layer([one([answer("Once upon", { isCut: true })])])))
  )
})

describe("alternatives", () => {
  it.effect("goes down the whole ladder in order, then fails and asks for attention", () =>
    Effect.gen(function* () {
      const task = yield* run({ context: turns })
      assert.deepInclude(task, { state: "failed", attention: true })
      assert.deepStrictEqual(stepsOf(task), [
        "class-1 failed",
        "class-2 failed",
        "summary failed",
        "shrunk failed",
        "plan failed"
      ])
      assert.strictEqual(task.error?.type, "attempts-exhausted")
      assert.match(
        task.error?.message ?? "",
        /class: class-2 failed.*shrink: shrunk failed.*split: plan failed.*partial: no attempt/
      )
      assert.lengthOf(yield* received, 6)
    }).pipe(Effect.provide(layer([one([broken], { classes: { fast: "small", best: "large" } })])))
  )

  it.effect("leaves alone what is not HIGH, what a policy refused, and everything where it is off", () =>
    Effect.gen(function* () {
      const task = yield* run({ priority: "MEDIUM" })
      assert.deepInclude(task, { state: "failed", attention: undefined })
      const refused = yield* run({ prompt: "forbidden" })
      assert.deepInclude(refused, { state: "failed", attention: undefined })
      assert.strictEqual(refused.error?.type, "refused")
      assert.lengthOf(yield* received, 2)
    }).pipe(
      Effect.provide(
        layer([
          one(({ call }) => (lastText(call) === "forbidden" ? fail(failures.policy()) : broken), {
            classes: { best: "large" }
          })
        ])
      )
    )
  )

  it.effect("does nothing where it is off", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.deepInclude(task, { state: "failed", attention: undefined })
      assert.lengthOf(yield* received, 1)
    }).pipe(Effect.provide(layer([one([broken], { classes: { best: "large" } })], { enabled: false })))
  )

  it.effect("keeps to its number of tasks", () =>
    Effect.gen(function* () {
      const task = yield* run({ context: turns })
      assert.deepStrictEqual(stepsOf(task), ["class-1 failed", "class-2 failed", "summary failed"])
      assert.include(task.error?.message ?? "", "no more than 3 tasks may be made for it")
    }).pipe(Effect.provide(layer([one([broken], { classes: { fast: "small", best: "large" } })], { maxChildren: 3 })))
  )

  it.effect("keeps to its time, and to what the task's own deadline leaves", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.deepStrictEqual(stepsOf(task), ["class-1 failed"])
      assert.include(task.error?.message ?? "", "its time is used up")
      assert.strictEqual((task.finishedAt ?? 0) - task.createdAt, 60_000)
      const short = yield* run({ prompt: "Hurry", deadline: 20 })
      assert.strictEqual((short.finishedAt ?? 0) - short.createdAt, 18_000)
      assert.strictEqual(short.error?.type, "attempts-exhausted")
    }).pipe(
      Effect.provide(
        layer([one(({ model }) => (model === "large" ? hang : broken), { classes: { best: "large" } })], {
          maxMs: 60_000
        })
      )
    )
  )

  it.effect("keeps to what it may cost", () =>
    Effect.gen(function* () {
      const task = yield* run()
      assert.deepStrictEqual(stepsOf(task), ["plan succeeded"])
      assert.include(task.error?.message ?? "", "USD for alternatives are used up")
    }).pipe(
      Effect.provide(
        layer(
          [
            one(
              ({ call }) =>
                lastText(call).startsWith("A task of the type")
                  ? answer(plan("parallel", 2), { usage: usage(1_000, 10) })
                  : broken,
              { prices: { "solo-model": price } }
            )
          ],
          { order: ["split"], maxCostUsd: 1_000 }
        )
      )
    )
  )

  it.effect("spends no more than the task itself may cost", () =>
    Effect.gen(function* () {
      const task = yield* run({ maxCostUsd: 1_000 })
      assert.strictEqual(task.state, "failed")
      assert.deepStrictEqual(stepsOf(task), ["plan succeeded", "part-1 succeeded", "part-2 failed"])
      const part = yield* get(task.alternatives?.[2]?.id ?? assert.fail("no part"))
      assert.strictEqual(part.error?.type, "budget")
      assert.isAtMost(task.spent?.costUsd ?? Number.NaN, 1_000)
    }).pipe(
      Effect.provide(
        layer(
          [
            one(
              ({ call }) =>
                lastText(call).startsWith("A task of the type")
                  ? answer(plan("parallel", 2), { usage: usage(900, 10) })
                  : lastText(call) === "Write a book"
                    ? broken
                    : answer("piece"),
              { prices: { "solo-model": price } }
            )
          ],
          { order: ["split"] }
        )
      )
    )
  )

  it.effect("cancels what it has made with the task", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const id = yield* submit()
      yield* eventually(received, (calls) => calls.some(({ model, state }) => model === "large" && state === "open"))
      const waiting = yield* get(id)
      assert.strictEqual(waiting.state, "waiting")
      assert.strictEqual(waiting.waiting?.why, "waits for its alternative class-1")
      yield* coordinator.cancel(ann, id)
      yield* eventually(received, (calls) => calls.at(-1)?.state === "interrupted")
      const task = yield* get(id)
      assert.strictEqual(task.state, "cancelled")
      assert.deepStrictEqual(stepsOf(task), ["class-1 cancelled"])
      const child = yield* get(task.alternatives?.[0]?.id ?? assert.fail("no child"))
      assert.strictEqual(child.error?.type, "parent-ended")
    }).pipe(
      Effect.provide(layer([one(({ model }) => (model === "large" ? hang : broken), { classes: { best: "large" } })]))
    )
  )

  it.effect("goes on with the next where one of its tasks is cancelled", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const id = yield* submit()
      yield* eventually(received, (calls) => calls.some(({ model, state }) => model === "large" && state === "open"))
      const child = (yield* get(id)).alternatives?.[0]?.id ?? assert.fail("no child")
      yield* coordinator.cancel(ann, child)
      const task = yield* eventually(get(id), ({ state }) => state === "failed")
      assert.include(task.error?.message ?? "", "class-1 was cancelled")
    }).pipe(
      Effect.provide(
        layer([one(({ model }) => (model === "large" ? hang : broken), { classes: { best: "large" } })], {
          order: ["class"]
        })
      )
    )
  )

  it.effect("begins again with a retry, beside what was made before", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const first = yield* run()
      assert.deepInclude(first, { state: "failed", attention: true })
      yield* coordinator.retry(ann, first.id)
      assert.isUndefined((yield* get(first.id)).attention)
      yield* Testing.advanceUntilIdle()
      const task = yield* get(first.id)
      assert.deepStrictEqual(stepsOf(task), ["class-1 failed", "class-1 succeeded"])
      assert.strictEqual(task.result?.text, "at last")
    }).pipe(
      Effect.provide(
        layer(
          [
            one(({ model, number }) => (model === "large" && number > 2 ? answer("at last") : broken), {
              classes: { best: "large" }
            })
          ],
          { order: ["class"] }
        )
      )
    )
  )

  it.effect("gives the task the results it waited for, in its alternatives too", () =>
    Effect.gen(function* () {
      const before = yield* submit({ prompt: "Find the name" })
      const id = yield* submit({ dependsOn: [before] })
      yield* Testing.advanceUntilIdle()
      const task = yield* get(id)
      assert.strictEqual(task.result?.model, "large")
      const call = (yield* received).at(-1)?.call ?? assert.fail("no call")
      assert.include(JSON.stringify(call.messages), "the name is Rose")
    }).pipe(
      Effect.provide(
        layer(
          [
            one(
              ({ call, model }) =>
                lastText(call) === "Find the name"
                  ? answer("the name is Rose")
                  : model === "large"
                    ? answer("done")
                    : broken,
              { classes: { best: "large" } }
            )
          ],
          { order: ["class"] }
        )
      )
    )
  )

  it.effect("counts as its job's task, whose alternatives are none of the job's", () =>
    Effect.gen(function* () {
      const coordinator = yield* Coordinator
      const { job } = yield* coordinator.jobs.submit(
        ann,
        { tasks: [{ prompt: "Write a book", priority: "HIGH" }] },
        Option.none()
      )
      const waiter = yield* Effect.fork(Testing.advanceUntilIdle())
      yield* TestClock.adjust(0)
      yield* Fiber.join(waiter)
      const done = yield* coordinator.jobs.get(ann, job.id, {})
      assert.strictEqual(done.state, "succeeded")
      assert.strictEqual(done.counts.total, 1)
      assert.strictEqual(done.tasks[0]?.result?.text, "done")
    }).pipe(
      Effect.provide(
        layer([one(({ model }) => (model === "large" ? answer("done") : broken), { classes: { best: "large" } })], {
          order: ["class"]
        })
      )
    )
  )
})
