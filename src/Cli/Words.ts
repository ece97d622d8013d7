import type { BudgetsView } from "../Domain/Budget.js"
import type { JobEvent, KeyEvent, PlatformEvent, ServiceEvent, TaskEvent, TaskEventBody } from "../Domain/Event.js"
import type { FailureView } from "../Domain/Failure.js"
import type {
  BreakerView,
  BucketView,
  LimitsPatch,
  Performance,
  PlatformResources,
  PlatformView,
  ResourcesView
} from "../Domain/Lease.js"
import type { Attempt, Task, TaskPreview, TaskSummary, Verdict } from "../Domain/Task.js"
import { byteSize, counted, duration, oneLine, printable, relative, table } from "./Output.js"
import { sessionEventLine } from "./SessionWords.js"

/** What each scope of failure means to the person who asks why. */
const scopes: Readonly<Record<FailureView["scope"], string>> = {
  request: "the request itself was refused",
  model: "the model is not to be had there",
  credential: "the API key was refused",
  quota: "a limit of the platform was reached",
  platform: "the platform failed",
  ignored: "cut short by us"
}

/** A message as part of a sentence of ours. */
const sentence = (message: string): string => oneLine(message, 300).replace(/\.$/, "")

/** Whose fault a failure was and what the platform said of it, without a full stop. */
export const failure = (view: FailureView): string => {
  const said = [view.status === undefined ? "" : `HTTP ${view.status}`, view.code ?? ""].filter((word) => word !== "")
  const wait =
    view.resetsAt !== undefined
      ? `; it resets at ${new Date(view.resetsAt).toISOString()}`
      : view.retryAfterMs !== undefined
        ? `; it asks to wait ${duration(view.retryAfterMs)}`
        : ""
  return `${scopes[view.scope]}${said.length === 0 ? "" : ` (${said.join(", ")})`}: ${sentence(view.message)}${wait}`
}

const attemptEnd = (attempt: Attempt, isBeaten: boolean): string => {
  const took = attempt.durationMs === undefined ? "" : ` after ${duration(attempt.durationMs)}`
  switch (attempt.outcome) {
    case "running":
      return "is running"
    case "succeeded":
      return `answered${took}`
    case "failed":
      return `failed${took}${attempt.failure === undefined ? "" : `: ${failure(attempt.failure)}`}`
    case "interrupted":
      return `was interrupted${took} by a stop of the service; it does not count`
    case "ignored":
      return isBeaten
        ? `was cut short${took}: the other attempt had answered`
        : `was cut short${took} by a cancel or the task's deadline`
  }
}

const score = (value: number | undefined): string => (value === undefined ? "-" : value.toFixed(2))

const usd = (amount: number | undefined): string => (amount === undefined ? "unknown" : `$${amount.toFixed(6)}`)

const affinity = "its weight is raised, for it served the last task with the same affinity key"

/** How a candidate stands beside the others. */
const standing = (
  { free, preferred }: { readonly free: boolean; readonly preferred?: boolean | undefined },
  turn: string,
  busy: string
): string =>
  [free ? "free" : busy, ...(turn === "" ? [] : [turn]), ...(preferred === true ? ["preferred for its key"] : [])].join(
    ", "
  )

/** Why this one of those free: it was, or is, its turn. */
const turn = (
  candidates: Attempt["decision"]["candidates"],
  chosen: string,
  policy: string | undefined,
  is: "was" | "is"
): string => {
  const free = candidates.filter(({ free }) => free === true)
  const own = candidates.find(({ platform }) => platform === chosen)
  const raised = own?.preferred === true ? `; ${affinity}` : ""
  if (candidates.length === 1) return `no other platform ${is === "was" ? "could" : "can"} serve it`
  if (free.length === 1) return `it ${is} the only one free${raised}`
  const weights = free.reduce((sum, { weight }) => sum + weight, 0)
  const share = own === undefined || weights === 0 ? "" : `, with ${percentOf(own.weight / weights)} of their weights`
  return `of the ${free.length} that ${is === "was" ? "were" : "are"} free it ${is} its turn${share}${policy === undefined ? "" : ` by the policy ${policy}`}${raised}`
}

/** Who was asked, who could, who could not and why, and why this one. */
const decision = ({ decision, number, platform }: Attempt): ReadonlyArray<string> => {
  const { candidates, excluded, hedge, policy, waitedMs } = decision
  const moment = ({ busy, free, platform: id, preferred }: (typeof candidates)[number]): string => {
    const chosen = id === platform ? "chosen" : ""
    const isBusy = busy === undefined ? "busy" : `busy: ${oneLine(busy, 120)}`
    return free === undefined ? chosen : standing({ free, preferred }, chosen, isBusy)
  }
  const isTold = candidates.every(({ free }) => free !== undefined)
  const why = isTold ? `Why ${platform}: ${turn(candidates, platform, policy, "was")}. ` : ""
  const waited = waitedMs < 1 ? "It did not have to wait." : `It waited ${duration(waitedMs)} for its turn.`
  return [
    ...(hedge === true
      ? [`It was made beside attempt ${number - 1}, which took unusually long: the first good answer wins.`]
      : []),
    `${why}${waited}`,
    ...table(
      ["PLATFORM", "WEIGHT", "SUITS", "QUALITY", "AT THAT MOMENT"],
      [
        ...candidates.map((candidate) => [
          candidate.platform,
          score(candidate.weight),
          score(candidate.suitability),
          score(candidate.quality),
          moment(candidate)
        ]),
        ...excluded.map((reason) => [reason.platform, "-", "-", "-", `out: ${oneLine(reason.reason, 160)}`])
      ]
    ).split("\n")
  ]
}

/** What would become of a task, told to a person. `now` is epoch ms. */
export const previewText = (preview: TaskPreview, now: number): string => {
  const { candidates, choice, deadline, excluded, patientUntil, policy, priority, tokens, type } = preview
  const earliest = candidates
    .flatMap(({ busy, platform }) => (busy?.earliestAt === undefined ? [] : [{ platform, at: busy.earliestAt }]))
    .sort((left, right) => left.at - right.at)[0]
  const free = candidates.flatMap((candidate) => (candidate.free ? [candidate.platform] : []))
  const busyNow = (busy: (typeof candidates)[number]["busy"]): string => {
    if (busy === undefined) return "busy"
    const at = busy.earliestAt === undefined ? "" : `; ${relative(busy.earliestAt, now)} at the earliest`
    return `busy: ${oneLine(busy.reason, 160)}${at}`
  }
  const verdict =
    choice !== undefined
      ? `Now it would go to ${choice}: ${turn(
          candidates.map(({ busy: _, ...candidate }) => candidate),
          choice,
          policy,
          "is"
        )}.`
      : patientUntil !== undefined
        ? `Now it would leave ${free.join(", ")} unused and wait, ${duration(patientUntil - now)} at most, for one of more than twice the weight that is known to be free by then.`
        : `Now it would wait: nobody who can serve it is free${earliest === undefined ? "" : `, and ${earliest.platform} is ${relative(earliest.at, now)} at the earliest`}.`
  return [
    `A task of the type ${type}, priority ${priority}: about ${counted(Math.round(tokens.input), "token")} in, at most ${tokens.maxOutput.toLocaleString("en-US")} out,`,
    `to be done by ${new Date(deadline).toISOString()} (${relative(deadline, now)}). It would be accepted.`,
    ...(preview.validation === undefined ? [] : [`It was ${verdictText(preview.validation)}.`]),
    "",
    verdict,
    "",
    table(
      ["PLATFORM", "MODEL", "WEIGHT", "SUITS", "QUALITY", "SHARE", "COSTS AT MOST", "NOW"],
      [
        ...candidates.map((candidate) => [
          candidate.platform,
          candidate.model,
          score(candidate.weight),
          score(candidate.suitability),
          score(candidate.quality),
          percentOf(candidate.share),
          usd(candidate.maxCostUsd),
          standing(candidate, candidate.platform === choice ? "its turn" : "", busyNow(candidate.busy))
        ]),
        ...excluded.map(({ platform, reason }) => [
          platform,
          ...Array.from({ length: 6 }, () => "-"),
          `out: ${oneLine(reason, 160)}`
        ])
      ]
    ),
    "",
    `The weights go by the policy ${policy}. Nothing was submitted.`
  ].join("\n")
}

/** What a model found of a task, without a full stop. */
const verdictText = ({ costUsd, model, platform, problems, status, suggestion, why }: Verdict): string => {
  const who = model === undefined ? platform : `${platform} (${model})`
  const cost = costUsd === undefined || costUsd === 0 ? "" : ` for ${usd(costUsd)}`
  switch (status) {
    case "valid":
      return `found valid by ${who}${cost}`
    case "unchecked":
      return `not checked by ${who}: ${sentence(why ?? "it gave no verdict")}`
    case "invalid": {
      const advice = suggestion === undefined ? "" : `; it suggests: ${sentence(suggestion)}`
      return `found not valid by ${who}${cost}: ${problems.map(sentence).join("; ")}${advice}`
    }
  }
}

/** How a task failed, as the end of a sentence that began with it. */
export const taskError = (error: { readonly type: string; readonly message: string }): string =>
  `failed (${error.type}): ${sentence(error.message)}`

const state = (task: Pick<Task, "attention" | "error" | "partial" | "state" | "waiting">, now: number): string =>
  task.state === "waiting" && task.waiting !== undefined
    ? `waiting (${oneLine(task.waiting.why, 200)}; looked at again ${relative(task.waiting.until, now)})`
    : task.state === "failed" && task.error !== undefined
      ? `${taskError(task.error)}${task.attention === true ? ". A person should look at it" : ""}`
      : stateName(task)

/** A state in a word or two. */
const stateName = ({ attention, partial, state }: Pick<Task, "attention" | "partial" | "state">): string =>
  partial === true ? `${state} (not whole)` : attention === true ? `${state} (look at it)` : state

/** What became of telling a task's end. */
/** What became of telling an end to its `callbackUrl`. */
export const webhookWords = ({ callbackUrl, webhook }: Pick<Task, "callbackUrl" | "webhook">, now: number): string => {
  // Its path may hold what only its receiver should know.
  const to = callbackUrl !== undefined && URL.canParse(callbackUrl) ? new URL(callbackUrl).origin : "-"
  if (webhook === undefined) return `to ${to}, when it has ended`
  const attempts = `${webhook.attempts} ${webhook.attempts === 1 ? "attempt" : "attempts"}`
  const why = webhook.lastError === undefined ? "" : `: ${oneLine(webhook.lastError, 200)}`
  switch (webhook.state) {
    case "delivered":
      return `delivered to ${to} (${attempts})`
    case "failed":
      return `given up after ${attempts} to ${to}${why}`
    case "pending":
      return webhook.nextAt === undefined || webhook.attempts === 0
        ? `on its way to ${to}`
        : `to ${to} again ${relative(webhook.nextAt, now)}, after ${attempts}${why}`
  }
}

const alternativeText = (alternative: Task["alternative"]): string =>
  alternative === undefined
    ? ""
    : ` (${alternative.step}${alternative.note === undefined ? "" : `: ${sentence(alternative.note)}`})`

/** A task and its attempts, told to a person. `now` is epoch ms. */
export const taskText = (task: Task, attempts: ReadonlyArray<Attempt>, now: number): string => {
  const lines = [
    `Task      ${task.id}`,
    `State     ${state(task, now)}`,
    `Type      ${task.type}, priority ${task.priority}`,
    `Submitted ${new Date(task.createdAt).toISOString()} (${relative(task.createdAt, now)})`,
    task.finishedAt === undefined
      ? `Deadline  ${new Date(task.deadline).toISOString()} (${relative(task.deadline, now)})`
      : `Finished  ${new Date(task.finishedAt).toISOString()} (${duration(task.finishedAt - task.createdAt)} after it was submitted)`,
    `Prompt    ${oneLine(task.prompt, 200)}`,
    ...(task.callbackUrl === undefined ? [] : [`Webhook   ${webhookWords(task, now)}`]),
    ...(task.validation === undefined ? [] : [`Check     ${verdictText(task.validation)}`]),
    ...(task.parentId === undefined ? [] : [`Made for  ${task.parentId}${alternativeText(task.alternative)}`])
  ]
  for (const attempt of attempts) {
    // a hedge and the attempt before it were out at once: where one was ignored and the other answered, it was beaten
    const beside = attempts.find(
      ({ decision, number }) =>
        (attempt.decision.hedge === true && number === attempt.number - 1) ||
        (decision.hedge === true && number === attempt.number + 1)
    )
    const end = attemptEnd(attempt, beside?.outcome === "succeeded")
    lines.push("", `Attempt ${attempt.number} on ${attempt.platform} (${attempt.model}) ${end}.`)
    lines.push(...decision(attempt).map((line) => `  ${line}`))
  }
  if (attempts.length === 0) lines.push("", "No attempt yet.")
  if (task.alternatives !== undefined) {
    lines.push(
      "",
      "Its attempts were used up, so these tasks were made for it:",
      ...table(
        ["TASK", "STEP", "STATE", "WHAT"],
        task.alternatives.map(({ id, note, state, step }) => [id, step, state, oneLine(note ?? "-", 120)])
      ).split("\n")
    )
  }
  for (const reason of task.error?.details?.reasons ?? []) {
    lines.push(`  ${reason.platform}: ${oneLine(reason.reason, 200)}`)
  }
  if (task.result !== undefined) {
    const { costUsd, model, note, partial, platform, text, usage } = task.result
    const cost = costUsd === undefined ? "cost unknown" : usd(costUsd)
    lines.push(
      "",
      ...(note === undefined
        ? []
        : [`${partial === true ? "This answer is not whole" : "How it was made"}: ${sentence(note)}.`]),
      `Answer of ${platform} (${model}): ${usage.inputTokens} tokens in, ${usage.outputTokens} out, ${cost}`,
      "",
      printable(text)
    )
  }
  return lines.join("\n")
}

/** Tasks as a table, in the order given. */
export const taskTable = (tasks: ReadonlyArray<TaskSummary>, now: number): string =>
  table(
    ["ID", "STATE", "PRIORITY", "TYPE", "PLATFORM", "ATTEMPTS", "SUBMITTED", "PROMPT"],
    tasks.map((task) => [
      task.id,
      stateName(task),
      task.priority,
      task.type,
      task.platform ?? "-",
      String(task.attempts),
      relative(task.createdAt, now),
      oneLine(task.preview, 48)
    ])
  )

const webhookEventWords = (event: Extract<TaskEventBody, { type: "webhook.delivered" | "webhook.failed" }>): string =>
  event.type === "webhook.delivered"
    ? `webhook delivered (attempt ${event.attempts}, status ${event.status})`
    : `webhook given up after ${event.attempts} attempts: ${oneLine(event.why, 200)}`

/** One event of a task as a line. */
export const eventLine = (event: TaskEvent): string => {
  const at = new Date(event.at).toISOString()
  const words = (): string => {
    switch (event.type) {
      case "task.queued":
        return "queued"
      case "task.validated":
        return verdictText(event.verdict)
      case "task.alternative":
        return `alternative ${event.step}: task ${event.child}${event.note === undefined ? "" : ` (${sentence(event.note)})`}`
      case "task.waiting":
        return `waits until ${new Date(event.until).toISOString()}: ${oneLine(event.why, 200)}`
      case "attempt.started":
        return `attempt ${event.number} on ${event.platform} (${event.model}) started after ${duration(event.waitedMs)} of waiting`
      case "attempt.succeeded":
        return `attempt ${event.number} on ${event.platform} answered`
      case "attempt.failed":
        return `attempt ${event.number} on ${event.platform} failed: ${failure(event.failure)}`
      case "attempt.interrupted":
        return `attempt ${event.number} on ${event.platform} was interrupted by a stop of the service`
      case "attempt.ignored":
        return `attempt ${event.number} on ${event.platform} was cut short`
      case "task.succeeded":
        return `succeeded on ${event.platform}`
      case "task.failed":
        return taskError(event.error)
      case "task.cancelled":
        return "cancelled"
      case "task.retried":
        return "queued again"
      case "webhook.delivered":
      case "webhook.failed":
        return webhookEventWords(event)
    }
  }
  return `${at}  ${words()}`
}

/** What was measured, a cell for each of `measuredHeading`. */
const measured = (performance: Performance): ReadonlyArray<string> => {
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`
  const times = (...values: ReadonlyArray<number | undefined>): string =>
    values.every((value) => value === undefined)
      ? "-"
      : values.map((value) => (value === undefined ? "-" : duration(value))).join(" / ")
  const { durationMsEwma, durationMsP50, durationMsP95, outputTokensPerSecond } = performance
  return [
    String(performance.attempts),
    performance.attempts === 0 ? "-" : percent(performance.errorRate),
    times(performance.timeToFirstTokenMsP50, performance.timeToFirstTokenMsP95, performance.timeToFirstTokenMsEwma),
    times(durationMsP50, durationMsP95, durationMsEwma),
    outputTokensPerSecond === undefined ? "-" : outputTokensPerSecond.toFixed(outputTokensPerSecond < 10 ? 1 : 0)
  ]
}
const measuredHeading = ["ATTEMPTS", "ERRORS", "FIRST TOKEN", "WHOLE CALL", "TOKENS/S"]

/** Platforms as a table, their models where one has several, and below it why any of them is not available. */
export const platformTable = (platforms: ReadonlyArray<PlatformView>, now: number): string => {
  const reasons = platforms.flatMap(({ id, reasons }) => reasons.map((reason) => `${id}: ${oneLine(reason, 300)}`))
  const ofModels = platforms.flatMap(({ id, model: configured, models }) =>
    models.every(({ model }) => model === configured)
      ? []
      : models.map(({ model, performance, status }) => [id, oneLine(model, 60), status, ...measured(performance)])
  )
  return [
    table(
      ["PLATFORM", "STATUS", "BREAKER", "MODEL", "IN FLIGHT", ...measuredHeading, "CHECKED"],
      platforms.map((platform) => [
        platform.id,
        platform.status,
        platform.breaker,
        platform.model,
        String(platform.inFlight),
        ...measured(platform.performance),
        platform.checkedAt === undefined ? "never" : relative(platform.checkedAt, now)
      ])
    ),
    ...(ofModels.length === 0 ? [] : ["", table(["PLATFORM", "MODEL", "STATUS", ...measuredHeading], ofModels)]),
    ...(platforms.some(({ performance }) => performance.durationMsP50 !== undefined)
      ? [
          "",
          "Times are p50 / p95 / average, of the answers of the last 10 minutes; an answer counts half after a minute in the average."
        ]
      : []),
    ...(reasons.length === 0 ? [] : ["", ...reasons])
  ].join("\n")
}

const priorities = ["HIGH", "MEDIUM", "LOW"] as const

const percentOf = (share: number): string => `${Math.round(share * 100)} %`

/** How much of a limit there is, in its own unit; never more than there is. */
const amount = (value: number, unit: BucketView["unit"]): string => {
  if (unit === "usd") return `$${(Math.floor(value * 100) / 100).toFixed(2)}`
  return unit === "percent" ? `${Math.floor(value)} %` : Math.floor(value).toLocaleString("en-US")
}

const rateUnits = [
  [1, "s"],
  [60, "min"],
  [3_600, "h"],
  [86_400, "d"]
] as const

/** What comes free, per the shortest unit of time in which it is something: `60/min`, `$1.50/h`. */
const rate = (perSecond: number, unit: BucketView["unit"]): string => {
  if (perSecond <= 0) return "-"
  const [seconds, name] = rateUnits.find(([seconds]) => perSecond * seconds >= 1) ?? [86_400, "d"]
  const value = perSecond * seconds
  const text =
    unit === "usd"
      ? `$${value.toFixed(2)}`
      : value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 1 : 0 })
  return `${text}${unit === "percent" ? " %" : ""}/${name}`
}

const soon = (at: number | undefined, now: number): string =>
  at === undefined ? "-" : at <= now ? "now" : relative(at, now)

const bucketRow = (platform: string, bucket: BucketView, now: number): ReadonlyArray<string> => [
  platform,
  `${bucket.model === undefined ? "" : `${bucket.model}: `}${bucket.name}${bucket.tokensCounted === undefined ? "" : ` (${bucket.tokensCounted})`}`,
  `${amount(bucket.level, bucket.unit)} of ${amount(bucket.capacity, bucket.unit)}`,
  bucket.keptForHigh === 0 ? "-" : amount(bucket.keptForHigh, bucket.unit),
  rate(bucket.refillPerSecond, bucket.unit),
  soon(bucket.nextRefillAt, now),
  percentOf(bucket.utilization.oneMinute),
  percentOf(bucket.utilization.fiveMinutes),
  bucket.source
]

const permitRows = ({ permits, platform }: PlatformResources): ReadonlyArray<ReadonlyArray<string>> => [
  [
    platform,
    "attempts at once",
    `${Math.max(0, permits.max - permits.inUse)} of ${permits.max}`,
    permits.keptForHigh === 0 ? "-" : String(permits.keptForHigh),
    "-",
    "-",
    percentOf(permits.utilization.oneMinute),
    percentOf(permits.utilization.fiveMinutes),
    "configured"
  ],
  ...permits.models.map(({ inUse, max, model }) => [
    platform,
    `${model}: attempts at once`,
    `${Math.max(0, max - inUse)} of ${max}`,
    ...["-", "-", "-", "-", "-"],
    "configured"
  ])
]

const breakerRow = (platform: string, model: string, breaker: BreakerView, now: number): ReadonlyArray<string> => [
  platform,
  model,
  breaker.state === "closed" && breaker.capacityPercent < 100 ? "recovering" : breaker.state,
  `${breaker.capacityPercent} %`,
  String(breaker.consecutiveFailures),
  soon(breaker.probesAt, now)
]

/** Every limit, permit, breaker and queue, told to a person. */
export const resourcesText = ({ admission, platforms, queue }: ResourcesView, now: number): string => {
  const exhausted = platforms.flatMap(({ exhausted, platform }) =>
    exhausted.map(({ model, until, why, window }) => [
      platform,
      `${model === undefined ? "" : `${model}: `}${window}`,
      soon(until, now),
      oneLine(why, 120)
    ])
  )
  return [
    table(
      ["PLATFORM", "LIMIT", "FREE", "FOR HIGH", "REFILL", "NEXT", "USED 1 MIN", "5 MIN", "SOURCE"],
      platforms.flatMap((resources) => [
        ...permitRows(resources),
        ...resources.buckets.map((bucket) => bucketRow(resources.platform, bucket, now))
      ])
    ),
    "",
    table(
      ["PLATFORM", "MODEL", "BREAKER", "CAPACITY", "FAILURES IN A ROW", "NEXT PROBE"],
      platforms.flatMap(({ breaker, modelBreakers, platform }) => [
        breakerRow(platform, "(all)", breaker, now),
        ...modelBreakers.map(({ model, ...own }) => breakerRow(platform, model, own, now))
      ])
    ),
    "",
    ...(exhausted.length === 0 ? [] : [table(["PLATFORM", "QUOTA USED UP", "RESETS", "WHY"], exhausted), ""]),
    table(
      ["PRIORITY", "WAITING", "THE OLDEST FOR"],
      priorities.map((priority) => {
        const { depth, oldestWaitMs } = queue[priority]
        return [priority, counted(depth, "call"), depth === 0 ? "-" : duration(oldestWaitMs)]
      })
    ),
    "",
    `In memory: ${admission.waiting.toLocaleString("en-US")} of at most ${counted(admission.maxWaiting, "waiting call")}, ` +
      `${byteSize(admission.bytes)} of at most ${byteSize(admission.maxBytes)} of requests`
  ].join("\n")
}

/** The budgets of the day, told to a person. */
export const budgetsText = ({ day, key, platforms, resetsAt }: BudgetsView, now: number): string => {
  const row = (name: string, { tokens, usd }: Pick<BudgetsView["key"], "tokens" | "usd">): ReadonlyArray<string> => {
    const dollars = (amount: number): string => `$${amount.toFixed(4)}`
    const count = (amount: number): string => amount.toLocaleString("en-US")
    return [
      name,
      `${dollars(usd.spent)}${usd.limit === undefined ? "" : ` of ${dollars(usd.limit)}`}`,
      usd.reserved === 0 ? "-" : dollars(usd.reserved),
      `${count(tokens.spent)}${tokens.limit === undefined ? "" : ` of ${count(tokens.limit)}`}`,
      tokens.reserved === 0 ? "-" : count(tokens.reserved)
    ]
  }
  return [
    `${day} (UTC); a new day begins ${soon(resetsAt, now)}`,
    "",
    table(
      ["BUDGET OF", "SPENT", "RESERVED", "TOKENS", "RESERVED"],
      [row(`${key.tenant} (API key)`, key), ...platforms.map((platform) => row(platform.platform, platform))]
    )
  ].join("\n")
}

const limitsInWords = (limits: LimitsPatch): string =>
  Object.entries(limits)
    .flatMap(([name, value]) => (value === undefined ? [] : [value === null ? `${name} lifted` : `${name} ${value}`]))
    .join(", ")

/** One event of a platform as a line. */
export const platformEventLine = (event: PlatformEvent): string => {
  const ofModel = "model" in event && event.model !== undefined ? ` of ${event.model}` : ""
  const why = "why" in event && event.why !== undefined ? `: ${oneLine(event.why, 200)}` : ""
  const by =
    "attempt" in event && event.attempt !== undefined
      ? ` (attempt ${event.attempt.number} of ${oneLine(event.attempt.id, 80)})`
      : ""
  const words = (): string => {
    switch (event.type) {
      case "breaker.changed":
        return event.from === "closed" && event.to === "closed"
          ? `breaker${ofModel} recovers, ${event.capacityPercent} % of the capacity`
          : `breaker${ofModel} from ${event.from} to ${event.to}, ${event.capacityPercent} % of the capacity`
      case "quota.exhausted":
        return `quota ${event.window}${ofModel} used up until ${new Date(event.until).toISOString()}`
      case "quota.reset":
        return `quota ${event.window}${ofModel} is there again`
      case "limit.learned":
        return `limit ${event.bucket}${ofModel} learned: ${event.to}${event.from === undefined ? "" : `, before ${event.from}`}`
      case "limits.changed":
        return event.limits === null
          ? `limits set back to the settings by ${event.tenant}`
          : `limits changed by ${event.tenant}: ${limitsInWords(event.limits) || "nothing"}`
      case "platform.out":
        return `${event.model === undefined ? "" : `its model ${event.model} is `}out of service${event.until === undefined ? "" : ` until ${new Date(event.until).toISOString()}`}`
      case "platform.back":
        return event.model === undefined ? "back in service" : `its model ${event.model} is back in service`
      case "platform.status":
        return `status from ${event.from} to ${event.to}${event.reasons.length === 0 ? "" : `: ${oneLine(event.reasons.join("; "), 300)}`}`
      case "platform.drained":
        return `drained by ${event.tenant}`
      case "platform.resumed":
        return `resumed by ${event.tenant}`
      case "budget.exhausted":
        return `budget of the day used up until ${new Date(event.until).toISOString()}`
      case "budget.reset":
        return "a new day's budget"
    }
  }
  return `${new Date(event.at).toISOString()}  ${words()}${why}${by}`
}

const jobEventLine = (event: JobEvent): string => {
  const at = new Date(event.at).toISOString()
  switch (event.type) {
    case "webhook.delivered":
    case "webhook.failed":
      return `${at}  ${webhookEventWords(event)}`
    default: {
      const { cancelled, failed, succeeded, total } = event
      const counts = `${succeeded} of ${total} succeeded, ${failed} failed, ${cancelled} cancelled`
      return `${at}  ${event.type.slice("job.".length)}: ${counts}`
    }
  }
}

const keyEventLine = (event: KeyEvent): string => {
  const words =
    event.type === "budget.exhausted"
      ? `budget of the day used up until ${new Date(event.until).toISOString()}: ${oneLine(event.why, 200)}`
      : "a new day's budget"
  return `${new Date(event.at).toISOString()}  ${words}`
}

/** Any event of the service as a line, with what it belongs to. */
export const serviceEventLine = (event: ServiceEvent): string => {
  const naming = (line: string, whose: string): string => line.replace("  ", `  ${whose}  `)
  if ("taskId" in event) return naming(eventLine(event), `task ${event.taskId}`)
  if ("sessionId" in event) return naming(sessionEventLine(event), `session ${event.sessionId}`)
  if ("jobId" in event) return naming(jobEventLine(event), `job ${event.jobId}`)
  return "platform" in event
    ? naming(platformEventLine(event), `platform ${event.platform}`)
    : naming(keyEventLine(event), `key ${event.tenant}`)
}
