import type { BudgetsView } from "../Domain/Budget.js"
import type { BreakerView, BucketView, PlatformResources, ResourcesView } from "../Domain/Lease.js"
import { Priority } from "../Domain/Task.js"
import { byteSize, counted, duration, oneLine, percent, relative, table } from "./Output.js"

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
  percent(bucket.utilization.oneMinute),
  percent(bucket.utilization.fiveMinutes),
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
    percent(permits.utilization.oneMinute),
    percent(permits.utilization.fiveMinutes),
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
      Priority.literals.map((priority) => {
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
