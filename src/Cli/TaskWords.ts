import type { FailureView } from "../Domain/Failure.js"
import type { Attempt, Task, TaskPreview, TaskSummary, Verdict } from "../Domain/Task.js"
import { counted, duration, oneLine, percent, printable, relative, table } from "./Output.js"

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
export const sentence = (message: string): string => oneLine(message, 300).replace(/\.$/, "")

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
  const share = own === undefined || weights === 0 ? "" : `, with ${percent(own.weight / weights)} of their weights`
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
          percent(candidate.share),
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
export const verdictText = ({ costUsd, model, platform, problems, status, suggestion, why }: Verdict): string => {
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

/** How long a task waits at most: what it waits for may come at any moment before. */
const waitingUntil = (until: number, { deadline }: Pick<Task, "deadline">, now: number): string =>
  until < deadline ? `looked at again ${relative(until, now)}` : `its deadline is ${relative(deadline, now)}`

const state = (
  task: Pick<Task, "attention" | "deadline" | "error" | "partial" | "state" | "waiting">,
  now: number
): string =>
  task.state === "waiting" && task.waiting !== undefined
    ? `waiting (${oneLine(task.waiting.why, 200)}; ${waitingUntil(task.waiting.until, task, now)})`
    : task.state === "failed" && task.error !== undefined
      ? `${taskError(task.error)}${task.attention === true ? ". A person should look at it" : ""}`
      : stateName(task)

/** A state in a word or two. */
const stateName = ({ attention, partial, state }: Pick<Task, "attention" | "partial" | "state">): string =>
  partial === true ? `${state} (not whole)` : attention === true ? `${state} (look at it)` : state

/** What became of telling an end to its `callbackUrl`. */
export const webhookWords = ({ callbackUrl, webhook }: Pick<Task, "callbackUrl" | "webhook">, now: number): string => {
  // Its path may hold what only its receiver should know.
  const to = callbackUrl !== undefined && URL.canParse(callbackUrl) ? new URL(callbackUrl).origin : "-"
  if (webhook === undefined) return `to ${to}, when it has ended`
  const attempts = counted(webhook.attempts, "attempt")
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
