import { assert, describe, it } from "vitest"
import { eventLine, platformEventLine, serviceEventLine } from "../../src/Cli/EventWords.js"
import { byteSize, duration, oneLine, printable, relative, table } from "../../src/Cli/Output.js"
import { platformTable } from "../../src/Cli/PlatformWords.js"
import { resourcesText } from "../../src/Cli/ResourceWords.js"
import { failure, previewText, taskTable, taskText } from "../../src/Cli/TaskWords.js"
import type { ServiceEvent } from "../../src/Domain/Event.js"
import type { BucketView } from "../../src/Domain/Lease.js"
import { PlatformId } from "../../src/Domain/Platform.js"
import { type Attempt, JobId, type Task, TaskId, type TaskPreview, TenantId } from "../../src/Domain/Task.js"

const now = Date.UTC(2026, 0, 1, 12, 0, 0)
const id = TaskId.make("01a203e9-f9ca-7000-aa2c-096f46a1f373")
const codex = PlatformId.make("codex")
const gemini = PlatformId.make("gemini")

const task: Task = {
  id,
  tenant: TenantId.make("local"),
  type: "analysis",
  priority: "HIGH",
  state: "succeeded",
  attempts: 2,
  createdAt: now - 60_000,
  updatedAt: now - 30_000,
  deadline: now + 3_600_000,
  finishedAt: now - 30_000,
  prompt: "Why is\nthe sky blue?",
  result: {
    text: "Rayleigh.\u001b[31m",
    platform: gemini,
    model: "g",
    usage: { inputTokens: 7, cachedInputTokens: 0, outputTokens: 3, reasoningTokens: 0 }
  }
}

const decision = {
  candidates: [{ platform: codex, model: "c", weight: 0.9 }],
  excluded: [{ platform: gemini, reason: "it cannot see images" }],
  waitedMs: 1_500
}

const failed: Attempt = {
  number: 1,
  platform: codex,
  model: "c",
  outcome: "failed",
  startedAt: now - 59_000,
  durationMs: 250,
  failure: { scope: "quota", status: 429, code: "rate_limit_exceeded", message: "Slow down", retryAfterMs: 20_000 },
  decision
}

describe("output", () => {
  it("tells durations in the unit a person would use", () => {
    const said = [0, 340, 999.6, 1_500, 12_000, 200_000, 3_600_000, 7_500_000, 345_600_000].map(duration)
    assert.deepStrictEqual(said, ["0 ms", "340 ms", "1.0 s", "1.5 s", "12 s", "3 min 20 s", "1 h", "2 h 5 min", "4 d"])
    assert.strictEqual(relative(now + 5_000, now), "in 5.0 s")
    assert.strictEqual(relative(now - 90_000, now), "1 min 30 s ago")
  })

  it("tells sizes in the unit a person would use", () => {
    const said = [0, 1_023, 1_024, 1_536, 20_480, 4 * 1_024 ** 2, 3 * 1_024 ** 3, 5_000 * 1_024 ** 3].map(byteSize)
    assert.deepStrictEqual(said, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "20 KiB", "4 MiB", "3 GiB", "5,000 GiB"])
  })

  it("aligns columns and leaves no space at the end of a line", () => {
    assert.strictEqual(
      table(
        ["A", "LONG"],
        [
          ["wide", ""],
          ["x", "y"]
        ]
      ),
      "A     LONG\nwide\nx     y"
    )
  })

  it("lets no foreign text drive the terminal", () => {
    assert.strictEqual(printable("a\u001b[2J\u0007b\tc\nd"), "a[2Jb\tc\nd")
    assert.strictEqual(oneLine("a\n\u009b b   c", 5), "a b c")
    assert.strictEqual(oneLine("abcdef", 5), "abcd…")
  })
})

describe("words", () => {
  it("tells a task's attempts and why", () => {
    const text = taskText(task, [failed, { ...failed, number: 2, outcome: "succeeded", failure: undefined }], now)
    assert.include(text, "Prompt    Why is the sky blue?")
    assert.include(
      text,
      "Attempt 1 on codex (c) failed after 250 ms: a limit of the platform was reached (HTTP 429, rate_limit_exceeded): Slow down; it asks to wait 20 s."
    )
    assert.include(text, "  It waited 1.5 s for its turn.")
    assert.match(text, /^ {2}codex +0\.90 +- +- +chosen$/m)
    assert.match(text, /^ {2}gemini +- +- +- +out: it cannot see images$/m)
    assert.include(text, "Attempt 2 on codex (c) answered after 250 ms.")
    assert.include(text, "7 tokens in, 3 out, cost unknown")
    assert.include(text, "Rayleigh.[31m")
    assert.notInclude(text, "\u001b")
  })

  it("tells who was asked, who could not and why, and why this one", () => {
    const qwen = PlatformId.make("qwen")
    const asked: Attempt["decision"] = {
      candidates: [
        { platform: codex, model: "c", weight: 0.9, suitability: 0.9, quality: 1, preferred: true, free: true },
        { platform: gemini, model: "g", weight: 0.3, suitability: 0.6, quality: 0.5, free: true },
        { platform: qwen, model: "q", weight: 0.2, suitability: 0.2, quality: 1, free: false, busy: "it is drained" }
      ],
      excluded: [{ platform: PlatformId.make("synthetic"), reason: "it lacks vision" }],
      chosen: codex,
      policy: "best",
      waitedMs: 0
    }
    const text = taskText(task, [{ ...failed, decision: asked }], now)
    assert.include(
      text,
      "Why codex: of the 2 that were free it was its turn, with 75 % of their weights by the policy best; its weight is " +
        "raised, for it served the last task with the same affinity key. It did not have to wait."
    )
    assert.match(text, /^ {2}codex +0\.90 +0\.90 +1\.00 +free, chosen, preferred for its key$/m)
    assert.match(text, /^ {2}gemini +0\.30 +0\.60 +0\.50 +free$/m)
    assert.match(text, /^ {2}qwen +0\.20 +0\.20 +1\.00 +busy: it is drained$/m)
    assert.match(text, /^ {2}synthetic +- +- +- +out: it lacks vision$/m)
    const [only] = asked.candidates
    if (only === undefined) return
    const alone = { ...failed, decision: { ...asked, candidates: [only] } }
    assert.include(taskText(task, [alone], now), "Why codex: no other platform could serve it.")
  })

  it("tells of a hedge which attempt was beaten", () => {
    const beaten: Attempt = { ...failed, outcome: "ignored", failure: undefined }
    const hedge: Attempt = {
      ...failed,
      number: 2,
      platform: gemini,
      model: "g",
      outcome: "succeeded",
      failure: undefined,
      decision: { ...decision, hedge: true }
    }
    const text = taskText(task, [beaten, hedge], now)
    assert.include(text, "Attempt 1 on codex (c) was cut short after 250 ms: the other attempt had answered.")
    assert.include(text, "It was made beside attempt 1, which took unusually long: the first good answer wins.")
    const cancelled = taskText(task, [beaten, { ...hedge, outcome: "ignored" }], now)
    assert.include(cancelled, "Attempt 2 on gemini (g) was cut short after 250 ms by a cancel or the task's deadline.")
  })

  it("tells where a task would go, why, and what would hold it up", () => {
    const preview: TaskPreview = {
      accepted: true,
      type: "analysis",
      priority: "HIGH",
      policy: "balanced",
      deadline: now + 60_000,
      tokens: { input: 12, maxOutput: 4_096 },
      candidates: [
        {
          platform: codex,
          model: "c",
          weight: 0.9,
          suitability: 0.9,
          quality: 1,
          share: 0.75,
          free: true,
          maxCostUsd: 0.0125
        },
        {
          platform: gemini,
          model: "g",
          weight: 0.3,
          suitability: 0.6,
          quality: 0.5,
          share: 0.25,
          free: false,
          busy: { platform: gemini, reason: "its requests/60s are used up", kind: "limit", earliestAt: now + 12_000 }
        }
      ],
      excluded: [{ platform: PlatformId.make("qwen"), reason: "it lacks vision" }],
      choice: codex
    }
    const text = previewText(preview, now)
    assert.include(text, "type analysis, priority HIGH: about 12 tokens in, at most 4,096 out,")
    assert.include(text, "(in 1 min). It would be accepted.")
    assert.include(text, "Now it would go to codex: it is the only one free.")
    assert.match(text, /^codex +c +0\.90 +0\.90 +1\.00 +75 % +\$0\.012500 +free, its turn$/m)
    assert.match(
      text,
      /^gemini +g +0\.30 +0\.60 +0\.50 +25 % +unknown +busy: its requests\/60s are used up; in 12 s at the earliest$/m
    )
    assert.match(text, /^qwen( +-){6} +out: it lacks vision$/m)
    assert.include(text, "Nothing was submitted.")

    const { choice: _, ...undecided } = preview
    assert.include(
      previewText({ ...undecided, patientUntil: now + 2_000 }, now),
      "it would leave codex unused and wait, 2.0 s at most"
    )
    const busy = preview.candidates.map((candidate) => ({ ...candidate, free: false }))
    assert.include(
      previewText({ ...undecided, candidates: busy }, now),
      "Now it would wait: nobody who can serve it is free, and gemini is in 12 s at the earliest."
    )
  })

  it("tells what was tried for a task whose attempts were used up, and what its answer is", () => {
    const alternative = { kind: "class", step: "class-1", note: "by a model of the class best" } as const
    const text = taskText(
      {
        ...task,
        partial: true,
        validation: { status: "unchecked", problems: [], why: "it did not answer in time", platform: codex },
        alternatives: [{ ...alternative, id, state: "failed" }],
        result:
          task.result === undefined ? undefined : { ...task.result, partial: true, note: "not whole: it broke off" }
      },
      [failed],
      now
    )
    assert.include(text, "State     succeeded (not whole)")
    assert.include(text, "Check     not checked by codex: it did not answer in time")
    assert.match(text, new RegExp(`${id} +class-1 +failed +by a model of the class best`))
    assert.include(text, "This answer is not whole: not whole: it broke off.")
    const child = taskText({ ...task, parentId: id, alternative }, [], now)
    assert.include(child, `Made for  ${id} (class-1: by a model of the class best)`)
    const { result: _, ...unfinished } = task
    const given = { type: "attempts-exhausted", message: "6 attempts failed" }
    const hopeless: Task = { ...unfinished, state: "failed", attention: true, error: given }
    assert.include(taskText(hopeless, [], now), "A person should look at it")
    const event = { id: 1, taskId: id, at: now, type: "task.alternative", child: id, ...alternative } as const
    assert.include(eventLine(event), `alternative class-1: task ${id} (by a model of the class best)`)
    const verdict = {
      status: "invalid",
      problems: ["It is empty."],
      suggestion: "Fill it.",
      platform: codex,
      model: "c"
    } as const
    assert.include(
      eventLine({ id: 2, taskId: id, at: now, type: "task.validated", verdict }),
      "found not valid by codex (c): It is empty; it suggests: Fill it"
    )
  })

  it("tells what became of a webhook, without what only its receiver should know", () => {
    const callbackUrl = "https://receiver.example/hooks/hidden"
    const line = (webhook: Task["webhook"]) =>
      taskText({ ...task, callbackUrl, webhook }, [], now)
        .split("\n")
        .find((text) => text.startsWith("Webhook"))
    assert.strictEqual(line(undefined), "Webhook   to https://receiver.example, when it has ended")
    assert.strictEqual(
      line({ state: "delivered", attempts: 1, lastStatus: 204 }),
      "Webhook   delivered to https://receiver.example (1 attempt)"
    )
    assert.strictEqual(
      line({ state: "pending", attempts: 2, lastError: "it answered 500", nextAt: now + 60_000 }),
      "Webhook   to https://receiver.example again in 1 min, after 2 attempts: it answered 500"
    )
    assert.strictEqual(
      line({ state: "failed", attempts: 9, lastError: "nothing listens there; its time is over" }),
      "Webhook   given up after 9 attempts to https://receiver.example: nothing listens there; its time is over"
    )
  })

  it("tells every event of the service with what it belongs to", () => {
    const common = { id: 7, at: now }
    const job = JobId.make(id)
    const ann = TenantId.make("ann")
    const counts = { total: 3, succeeded: 1, failed: 1, cancelled: 0 }
    const webhook = { webhookId: "msg_1", attempts: 2 }
    const lines: ReadonlyArray<readonly [ServiceEvent, string]> = [
      [{ ...common, taskId: id, type: "task.cancelled" }, `task ${id}  cancelled`],
      [
        { ...common, taskId: id, type: "webhook.delivered", ...webhook, status: 204 },
        `task ${id}  webhook delivered (attempt 2, status 204)`
      ],
      [
        { ...common, jobId: job, type: "job.progress", ...counts },
        `job ${id}  progress: 1 of 3 succeeded, 1 failed, 0 cancelled`
      ],
      [
        { ...common, jobId: job, type: "webhook.failed", ...webhook, why: "it is gone" },
        `job ${id}  webhook given up after 2 attempts: it is gone`
      ],
      [
        { ...common, jobId: job, type: "webhook.failed", ...webhook, attempts: 1, why: "it is gone" },
        `job ${id}  webhook given up after 1 attempt: it is gone`
      ],
      [{ ...common, platform: codex, type: "platform.back" }, "platform codex  back in service"],
      [{ ...common, tenant: ann, type: "budget.reset" }, "key ann  a new day's budget"]
    ]
    for (const [event, line] of lines) {
      assert.strictEqual(serviceEventLine(event), `2026-01-01T12:00:00.000Z  ${line}`)
    }
  })

  it("tells why a task waits or failed", () => {
    const { finishedAt: _, result: __, ...open } = task
    assert.include(
      taskText({ ...open, state: "waiting", waiting: { until: now + 60_000, why: "all are exhausted" } }, [], now),
      "waiting (all are exhausted; looked at again in 1 min)"
    )
    assert.include(
      taskText(
        {
          ...open,
          state: "waiting",
          deadline: now + 3_600_000,
          waiting: { until: now + 3_600_000, why: "waits for its alternative class-1" }
        },
        [],
        now
      ),
      "waiting (waits for its alternative class-1; its deadline is in 1 h)"
    )
    assert.include(
      taskText({ ...open, state: "failed", error: { type: "deadline", message: "It came too late." } }, [], now),
      "failed (deadline): It came too late"
    )
  })

  it("says whose fault a failure was", () => {
    assert.strictEqual(
      failure({ scope: "credential", status: 401, message: "Bad key" }),
      "the API key was refused (HTTP 401): Bad key"
    )
  })

  it("prints one event a line", () => {
    assert.strictEqual(
      eventLine({ id: 3, taskId: id, at: now, type: "task.succeeded", platform: gemini }),
      "2026-01-01T12:00:00.000Z  succeeded on gemini"
    )
  })

  it("lists tasks and platforms", () => {
    const { prompt: _, result: __, ...summary } = task
    assert.match(
      taskTable([{ ...summary, preview: "Why?", platform: gemini }], now),
      /succeeded {2}HIGH.*1 min ago {2}Why\?/
    )
    const platforms = platformTable(
      [
        {
          id: codex,
          wire: "openai-responses",
          baseUrl: "http://x",
          model: "c",
          capabilities: [],
          status: "unavailable",
          reasons: ["the key was refused"],
          breaker: "closed",
          inFlight: 0,
          performance: { attempts: 0, errorRate: 0, tokens: 0 },
          models: []
        }
      ],
      now
    )
    assert.include(platforms, "codex     unavailable")
    assert.include(platforms, "codex: the key was refused")
  })

  it("shows what was measured of platforms, and of their models where there are several", () => {
    const performance = {
      attempts: 40,
      errorRate: 0.05,
      tokens: 9_000,
      durationMsP50: 2_000,
      durationMsP95: 9_000,
      durationMsEwma: 3_100,
      timeToFirstTokenMsP50: 300,
      timeToFirstTokenMsP95: 900,
      timeToFirstTokenMsEwma: 410,
      msPerOutputTokenEwma: 12.5,
      outputTokensPerSecond: 80
    }
    const small = { model: "small", status: "degraded", reasons: ["it is slow"], performance } as const
    const view = {
      id: codex,
      wire: "openai-responses",
      baseUrl: "http://x",
      model: "large",
      capabilities: [],
      status: "available",
      reasons: [],
      breaker: "closed",
      inFlight: 0,
      performance,
      models: [small, { ...small, model: "large", status: "available", reasons: [] }]
    } as const
    const figures = /40 +5 % +300 ms \/ 900 ms \/ 410 ms +2\.0 s \/ 9\.0 s \/ 3\.1 s +80/
    const lines = platformTable([view], now).split("\n")
    assert.match(lines[1] ?? "", figures)
    assert.match(lines[4] ?? "", /^codex +small +degraded/)
    assert.match(lines[4] ?? "", figures)
    assert.notInclude(platformTable([{ ...view, models: view.models.slice(1) }], now), "small")
  })

  it("shows every limit, permit, breaker, quota and queue", () => {
    const bucket: BucketView = {
      name: "requests/60s",
      unit: "requests",
      windowMs: 60_000,
      capacity: 1_200,
      used: 1_196.4,
      level: 3.6,
      keptForHigh: 120,
      refillPerSecond: 20,
      nextRefillAt: now + 2_000,
      source: "configured",
      utilization: { oneMinute: 0.984, fiveMinutes: 0.5 }
    }
    const text = resourcesText(
      {
        platforms: [
          {
            platform: codex,
            buckets: [
              bucket,
              {
                ...bucket,
                name: "tokens/5h",
                model: "c-mini",
                unit: "tokens",
                tokensCounted: "actual",
                level: 12_345.9
              },
              {
                ...bucket,
                name: "usd/7d",
                unit: "usd",
                capacity: 24,
                level: 1.999,
                keptForHigh: 0,
                refillPerSecond: 24 / (7 * 86_400),
                nextRefillAt: undefined,
                source: "learned"
              },
              {
                ...bucket,
                name: "primary",
                unit: "percent",
                capacity: 100,
                level: 58,
                refillPerSecond: 0,
                source: "provider"
              }
            ],
            permits: {
              inUse: 1,
              max: 4,
              keptForHigh: 1,
              utilization: { oneMinute: 0.25, fiveMinutes: 0.1 },
              models: [{ model: "c", inUse: 1, max: 1 }]
            },
            breaker: { state: "open", consecutiveFailures: 5, probesAt: now + 30_000, capacityPercent: 0 },
            modelBreakers: [
              { model: "c", state: "closed", consecutiveFailures: 0, capacityPercent: 25 },
              { model: "d", state: "closed", consecutiveFailures: 1, capacityPercent: 100 }
            ],
            exhausted: [{ window: "weekly", model: "c", until: now + 3_600_000, why: "You have hit\nyour limit" }],
            exhaustedUntil: now + 3_600_000
          }
        ],
        queue: {
          HIGH: { depth: 1, oldestWaitMs: 900 },
          MEDIUM: { depth: 0, oldestWaitMs: 0 },
          LOW: { depth: 12_000, oldestWaitMs: 90_000 }
        },
        admission: { waiting: 1_201, maxWaiting: 10_000, bytes: 1_536, maxBytes: 256 * 1_024 ** 2 }
      },
      now
    )
    assert.deepStrictEqual(text.split("\n"), [
      "PLATFORM  LIMIT                       FREE             FOR HIGH  REFILL   NEXT      USED 1 MIN  5 MIN  SOURCE",
      "codex     attempts at once            3 of 4           1         -        -         25 %        10 %   configured",
      "codex     c: attempts at once         0 of 1           -         -        -         -           -      configured",
      "codex     requests/60s                3 of 1,200       120       20/s     in 2.0 s  98 %        50 %   configured",
      "codex     c-mini: tokens/5h (actual)  12,345 of 1,200  120       20/s     in 2.0 s  98 %        50 %   configured",
      "codex     usd/7d                      $1.99 of $24.00  -         $3.43/d  -         98 %        50 %   learned",
      "codex     primary                     58 % of 100 %    120 %     -        in 2.0 s  98 %        50 %   provider",
      "",
      "PLATFORM  MODEL  BREAKER     CAPACITY  FAILURES IN A ROW  NEXT PROBE",
      "codex     (all)  open        0 %       5                  in 30 s",
      "codex     c      recovering  25 %      0                  -",
      "codex     d      closed      100 %     1                  -",
      "",
      "PLATFORM  QUOTA USED UP  RESETS  WHY",
      "codex     c: weekly      in 1 h  You have hit your limit",
      "",
      "PRIORITY  WAITING       THE OLDEST FOR",
      "HIGH      1 call        900 ms",
      "MEDIUM    0 calls       -",
      "LOW       12,000 calls  1 min 30 s",
      "",
      "In memory: 1,201 of at most 10,000 waiting calls, 1.5 KiB of at most 256 MiB of requests"
    ])
  })

  it("prints one event of a platform a line", () => {
    const common = { id: 1, platform: codex, at: now }
    const attempt = { id, number: 2 }
    const tenant = TenantId.make("ann")
    const said = [
      { type: "breaker.changed", from: "closed", to: "open", capacityPercent: 0, why: "5 failures", attempt },
      { type: "breaker.changed", model: "c", from: "closed", to: "closed", capacityPercent: 25, why: "its time" },
      { type: "quota.exhausted", window: "primary", until: now + 1_000, why: "hit\u001b[31m the limit" },
      { type: "quota.reset", window: "primary", model: "c", why: "its time has come" },
      { type: "limit.learned", bucket: "requests/60s", from: 60, to: 42, why: "a 429" },
      { type: "limits.changed", tenant, limits: { requestsPerMinute: 5, burst: null } },
      { type: "limits.changed", tenant, limits: null },
      { type: "platform.out", why: "its key is refused" },
      { type: "platform.back", model: "c" },
      { type: "platform.status", from: "unknown", to: "available", reasons: [] },
      { type: "platform.status", from: "available", to: "degraded", reasons: ["its circuit breaker is open", "so"] },
      { type: "platform.drained", tenant, why: "its bill is due" },
      { type: "platform.resumed", tenant }
    ] as const
    assert.deepStrictEqual(
      said.map((body) => platformEventLine({ ...common, ...body }).replace("2026-01-01T12:00:00.000Z  ", "")),
      [
        `breaker from closed to open, 0 % of the capacity: 5 failures (attempt 2 of ${id})`,
        "breaker of c recovers, 25 % of the capacity: its time",
        "quota primary used up until 2026-01-01T12:00:01.000Z: hit[31m the limit",
        "quota primary of c is there again: its time has come",
        "limit requests/60s learned: 42, before 60: a 429",
        "limits changed by ann: requestsPerMinute 5, burst lifted",
        "limits set back to the settings by ann",
        "out of service: its key is refused",
        "its model c is back in service",
        "status from unknown to available",
        "status from available to degraded: its circuit breaker is open; so",
        "drained by ann: its bill is due",
        "resumed by ann"
      ]
    )
  })
})
