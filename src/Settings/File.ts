import { Either, JSONSchema, ParseResult, Schema } from "effect"
import {
  Capability,
  type ModelClass,
  PlatformId,
  PlatformWire,
  RoutingPolicy,
  TokensCounted
} from "../Domain/Platform.js"
import { HandoffPolicy } from "../Domain/Session.js"
import { AlternativeKind, type TaskType, TenantId } from "../Domain/Task.js"
import { isPostgres, isPostgresUrl } from "./Database.js"
import { longestWindowMs, shortestWindowMs, windowText } from "./Limits.js"

/** A leaf that says in words what it takes, in place of the schema library's own message. */
const taking =
  (expected: string, description?: string) =>
  <S extends Schema.Annotable.All>(schema: S): Schema.Annotable.Self<S> =>
    Schema.annotations(schema, {
      message: () => ({ message: expected, override: true }),
      description: description ?? expected
    })

const object = "an object"
const list = "a list"

const group = <Fields extends Schema.Struct.Fields>(fields: Fields, description: string) =>
  Schema.Struct(fields).annotations({ message: () => object, description })

const many = <Item extends Schema.Schema.Any>(item: Item, description: string) =>
  Schema.Array(item).annotations({ message: () => list, description })

const may = <S extends Schema.Schema.All>(schema: S) => Schema.optionalWith(schema, { exact: true })

const Text = Schema.String.pipe(Schema.minLength(1))
const Whole = Schema.Int.pipe(Schema.positive())

const durationPattern = /^\d+(\.\d+)?\s*(ms|s|m|h|d)(\s*\d+(\.\d+)?\s*(ms|s|m|h|d))*$/
const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const longestMs = 365 * 86_400_000

const milliseconds = (text: string): number =>
  Math.round(
    Array.from(text.matchAll(/(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)/g)).reduce(
      (sum, [, amount, unit]) => sum + Number(amount) * (unitMs[unit ?? ""] ?? Number.NaN),
      0
    )
  )

const durationText = "a duration such as 500ms, 30s, 5m, 5h or 1h30m, more than 0 and at most 365d"

/** Milliseconds, or a text such as `30s`, `5m` or `1h30m`, from `leastMs` to `mostMs`. */
const durationWithin = (leastMs: number, mostMs: number) =>
  Schema.transform(
    Schema.Union(Schema.Number, Schema.String.pipe(Schema.pattern(durationPattern))),
    Schema.Int.pipe(Schema.between(leastMs, mostMs)),
    {
      strict: true,
      decode: (written) => (typeof written === "number" ? written : milliseconds(written)),
      encode: (ms) => ms
    }
  )

const duration = (description: string) =>
  durationWithin(1, longestMs).pipe(taking(durationText, `${description}: ms, or ${durationText}`))

const WindowLength = durationWithin(shortestWindowMs, longestWindowMs)

const count = (description: string) => Whole.pipe(taking("a whole number greater than 0", description))

const limit = (description: string) =>
  Schema.NullOr(Whole).pipe(
    taking("a whole number greater than 0, or none (in the file null) for no limit", `${description}; null = no limit`)
  )

const limited = <A, I>(schema: Schema.Schema<A, I>, expected: string, description: string) =>
  Schema.NullOr(schema).pipe(
    taking(`${expected}, or none (in the file null) for no limit`, `${description}; null = no limit`)
  )

const WindowFile = group(
  {
    windowMs: WindowLength.pipe(taking(windowText, `Length of the window: ms, or ${windowText}`)),
    requests: may(count("Requests in any such window")),
    tokens: may(count("Tokens in any such window, counted as the platform's tokensCounted says")),
    costUsd: may(
      Schema.Number.pipe(
        Schema.finite(),
        Schema.positive(),
        taking("a number greater than 0", "What calls may cost in any such window at the platform's prices, USD")
      )
    )
  },
  "A rolling window, and at least one of the amounts that fit into it"
)

const ModelLimitsFile = group(
  {
    requestsPerMinute: may(count("Requests of this model in any 60 s")),
    tokensPerMinute: may(count("Tokens of this model in any 60 s, counted as the platform's tokensCounted says")),
    windows: may(many(WindowFile, "Rolling windows of this model")),
    maxConcurrent: may(count("Attempts in flight at once on this model")),
    requestCost: may(
      Schema.Number.pipe(
        Schema.finite(),
        Schema.positive(),
        taking(
          "a number greater than 0",
          "What one request of it counts in request limits of windows longer than a minute; default 1"
        )
      )
    )
  },
  "Limits of one model alone, beside those of its platform"
)

const logLevels = {
  all: "All",
  trace: "Trace",
  debug: "Debug",
  info: "Info",
  warning: "Warning",
  error: "Error",
  fatal: "Fatal",
  none: "None"
} as const

const LogLevel = Schema.transformLiterals(
  ["all", logLevels.all],
  ["trace", logLevels.trace],
  ["debug", logLevels.debug],
  ["info", logLevels.info],
  ["warning", logLevels.warning],
  ["error", logLevels.error],
  ["fatal", logLevels.fatal],
  ["none", logLevels.none]
).pipe(taking(`one of ${Object.keys(logLevels).join(", ")}`, "The least severe log entries written"))

const isBaseUrl = (text: string): boolean => {
  if (!URL.canParse(text)) return false
  const url = new URL(text)
  return (
    (url.protocol === "http:" || url.protocol === "https:") &&
    url.username === "" &&
    url.password === "" &&
    url.search === "" &&
    url.hash === ""
  )
}

const url = (description: string) =>
  Schema.String.pipe(
    Schema.filter(isBaseUrl, { jsonSchema: { format: "uri" } }),
    taking("an http or https URL without user, password, query or fragment", description)
  )

const Id = Schema.String.pipe(
  Schema.pattern(/^[a-z][a-z0-9-]{0,39}$/),
  taking("a platform id: 1 to 40 lower-case letters, digits or hyphens, beginning with a letter")
)

const shortestApiKey = 16

/** `tenant:key`, or a key alone, whose tenant's name is then made from the key. */
export const splitApiKey = (text: string): { readonly tenant: string | undefined; readonly key: string } => {
  const colon = text.indexOf(":")
  return colon === -1 ? { tenant: undefined, key: text } : { tenant: text.slice(0, colon), key: text.slice(colon + 1) }
}

const isApiKey = (text: string): boolean => {
  const { key, tenant } = splitApiKey(text)
  return (
    key.length >= shortestApiKey && /^[\x21-\x7e]+$/.test(key) && (tenant === undefined || Schema.is(TenantId)(tenant))
  )
}

const ApiKeyText = Schema.String.pipe(
  Schema.filter(isApiKey, { jsonSchema: { minLength: shortestApiKey } }),
  taking(
    `a key of at least ${shortestApiKey} printable characters without blanks, alone or after its tenant's name as tenant:key (the name: 1 to 64 letters, digits, dots, hyphens or underscores)`
  )
)

/** A key as it is sent: whoever checks it may have any rules of its own. */
const sentApiKey = (description: string) =>
  Schema.String.pipe(
    Schema.pattern(/^[\x21-\x7e]+$/),
    taking("a key of printable characters without blanks", description)
  )

const WebhookSecret = Schema.String.pipe(
  Schema.filter((text) => {
    const base64 = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text)?.[1]
    const { length } = Buffer.from(base64 ?? "", "base64")
    return length >= 24 && length <= 64
  }),
  taking("whsec_ and the base64 of 24 to 64 random bytes")
)

const Database = Schema.String.pipe(
  Schema.filter(
    (text) => (isPostgres(text) ? isPostgresUrl(text) : text !== "" && !/^[a-z][a-z0-9+.-]+:\/\//i.test(text)),
    { jsonSchema: { minLength: 1 } }
  ),
  taking(
    "the path of an SQLite file, :memory:, or postgres://user:password@host:5432/database (with what is special in the password percent-encoded)",
    "The SQLite file that keeps the tasks (relative to the working folder), :memory:, or the postgres:// URL of a PostgreSQL database; default dream-team.db"
  )
)

const score = Schema.Number.pipe(Schema.between(0, 1), taking("a number from 0 to 1"))

const level = (description: string) =>
  Schema.Number.pipe(
    Schema.greaterThan(0),
    Schema.lessThanOrEqualTo(1),
    taking("a number greater than 0, at most 1", description)
  )

const Price = group(
  {
    input: Schema.NonNegative.pipe(taking("a number, 0 or more", "USD per million input tokens")),
    cachedInput: may(Schema.NonNegative.pipe(taking("a number, 0 or more", "USD per million cached input tokens"))),
    output: Schema.NonNegative.pipe(taking("a number, 0 or more", "USD per million output tokens")),
    asOf: Schema.String.pipe(
      Schema.pattern(/^\d{4}-\d{2}-\d{2}$/),
      taking("a day as YYYY-MM-DD", "The day the price was read, YYYY-MM-DD")
    )
  },
  "List price of one model"
)

const PlatformFile = group(
  {
    wire: may(
      PlatformWire.pipe(
        taking(`one of ${PlatformWire.literals.join(", ")}`, "How it is spoken to; a further platform's is openai-chat")
      )
    ),
    baseUrl: may(url("Where its API is")),
    apiKey: may(sentApiKey("Its API key; better kept in the environment")),
    model: may(Text.pipe(taking("a model's name", "The model used where a task names none"))),
    classes: may(
      group(
        {
          fast: may(Text.pipe(taking("a model's name", "The model for tasks that ask for `fast`"))),
          balanced: may(
            Text.pipe(taking("a model's name", "The model for tasks that ask for `balanced`; default model"))
          ),
          best: may(Text.pipe(taking("a model's name", "The model for tasks that ask for `best`")))
        } satisfies Record<ModelClass, unknown>,
        "Its model of each class, laid over the built-in ones; it serves no class that is not here"
      )
    ),
    capabilities: may(
      many(
        Capability.pipe(taking(`one of ${Capability.literals.join(", ")}`)),
        "What its models can do; a task goes only where all it needs is named"
      )
    ),
    contextWindow: may(count("Tokens, input and output together")),
    weight: may(
      Schema.Number.pipe(
        Schema.finite(),
        Schema.positive(),
        taking("a number greater than 0", "Multiplies its suitability; default 1")
      )
    ),
    suitability: may(
      group(
        {
          implementation: may(score),
          documentation: may(score),
          testing: may(score),
          architecture: may(score),
          analysis: may(score),
          "question-answering": may(score)
        } satisfies Record<TaskType, unknown>,
        "Score per type of task, 0 to 1"
      )
    ),
    limits: may(
      group(
        {
          requestsPerMinute: may(limit("Requests in any 60 s")),
          tokensPerMinute: may(limit("Tokens in any 60 s, counted as tokensCounted says")),
          tokensCounted: may(
            TokensCounted.pipe(
              taking(
                `one of ${TokensCounted.literals.join(", ")}`,
                "How the provider counts tokens: reserved = input and maximum output on arrival, input = input only, actual = what was really used"
              )
            )
          ),
          burst: may(limit("Requests that may start at once; default the whole minute's limit")),
          windowRequests: may(limit("Requests in any windowMs")),
          windowTokens: may(limit("Tokens in any windowMs, counted as tokensCounted says")),
          windowMs: may(
            Schema.NullOr(WindowLength).pipe(
              taking(
                `${windowText}, or none (in the file null)`,
                "Length of the window of windowRequests and windowTokens"
              )
            )
          ),
          windows: may(many(WindowFile, "Further rolling windows, in place of the built-in ones; [] = none")),
          maxConcurrent: may(
            count("Attempts in flight at once; set without maxConcurrentPerModel, no built-in bound per model holds")
          ),
          maxConcurrentPerModel: may(limit("Attempts in flight at once on any one model")),
          models: may(
            Schema.Record({ key: Schema.String, value: ModelLimitsFile }).annotations({
              message: () => object,
              description: "Limits of single models, laid over the built-in ones; {} = none for that model"
            })
          ),
          adapt: may(
            Schema.Boolean.pipe(
              taking(
                "true or false",
                "Whether the provider's own word may raise a limit above the one set here; default false"
              )
            )
          )
        },
        "What may be asked of it"
      )
    ),
    breaker: may(
      group(
        {
          failures: may(count("Consecutive platform failures that open its circuit breaker")),
          openMs: may(duration("How long the breaker stays open before a probe"))
        },
        "Its circuit breaker"
      )
    ),
    timeouts: may(
      group(
        {
          connectMs: may(duration("Until the connection stands")),
          firstTokenMs: may(duration("Until the first piece of the answer")),
          betweenTokensMs: may(duration("Between two pieces of the answer")),
          attemptMs: may(duration("The whole attempt"))
        },
        "How long an attempt may take"
      )
    ),
    quotasUrl: may(
      Schema.NullOr(url("Where its health check asks for quotas")).pipe(
        taking(
          "an http or https URL without user, password, query or fragment, or null",
          "Where its health check asks for quotas, as Synthetic's /v2/quotas; null = it lists the models"
        )
      )
    ),
    prices: may(
      Schema.Record({ key: Schema.String, value: Price }).annotations({
        message: () => object,
        description: "List prices by model, laid over the built-in ones"
      })
    )
  },
  "One platform. What is left out takes its default"
)
export type PlatformFile = typeof PlatformFile.Type

const usdPerDay = limited(
  Schema.Number.pipe(Schema.finite(), Schema.positive()),
  "a number greater than 0",
  "What may be spent in one UTC day at list prices, USD"
)
const tokensPerDay = limited(Whole, "a whole number greater than 0", "Tokens, input and output, in one UTC day")

const DailyBudgetFile = group(
  { usdPerDay: may(usdPerDay), tokensPerDay: may(tokensPerDay) },
  "What may be spent on a platform"
)
export type DailyBudgetFile = typeof DailyBudgetFile.Type

const KeyBudgetFile = group(
  {
    usdPerDay: may(usdPerDay),
    tokensPerDay: may(tokensPerDay),
    requestsPerMinute: may(limit("Submissions over HTTP in any 60 s"))
  },
  "What an API key may spend"
)
export type KeyBudgetFile = typeof KeyBudgetFile.Type

/** What one source (the file, the environment, the flags) sets: any part of the settings. */
export const SettingsFile = group(
  {
    $schema: may(Schema.String.pipe(taking("a text", "Where this file's JSON Schema is; for editors"))),
    host: may(Text.pipe(taking("a host name or an IP address", "Where the service listens; default 127.0.0.1"))),
    port: may(
      Schema.Int.pipe(
        Schema.between(0, 65_535),
        taking("a whole number from 0 to 65535", "The port it listens on, 0 = any free one; default 7337")
      )
    ),
    apiKeys: may(
      many(ApiKeyText, "The keys that clients may use, as tenant:key or key; none = no authentication, loopback only")
    ),
    apiKey: may(
      sentApiKey(
        "The key that the command line sends to the service, without its tenant's name; default: the first of apiKeys"
      )
    ),
    database: may(Database),
    logLevel: may(LogLevel),
    maxBodyBytes: may(count("Largest request body accepted, bytes; default 4194304")),
    maxHeldBytes: may(
      count("Request bodies being read and calls that wait, bytes at most; beyond it a 503; default 268435456")
    ),
    shutdownGraceMs: may(duration("Running attempts get this long at shutdown; default 10s")),
    use: may(
      many(
        Id,
        "Ids of the platforms to use, in order of preference; default: all that are known and all under platforms"
      )
    ),
    tasks: may(
      group(
        {
          deadlineMs: may(duration("Until a task without a deadline fails; default 24h")),
          maxAttempts: may(count("Attempts a task may make; default 6")),
          maxOutputTokens: may(count("Bound of an answer where a task names none, tokens; default 8192")),
          parkAfterMs: may(duration("A task that cannot start for this long is parked; default 30s")),
          livePerClass: may(count("Tasks kept live at once, per class; default 64"))
        },
        "Defaults of tasks"
      )
    ),
    retention: may(
      group(
        {
          tasksMs: may(duration("How long a task is kept after its end; default 30 days")),
          eventsMs: may(duration("How long an event is kept; default 7 days")),
          keysMs: may(duration("How long an idempotency key stands for its task; default 24h"))
        },
        "What is deleted, and when"
      )
    ),
    health: may(
      group(
        {
          intervalMs: may(duration("Between two health checks of a platform; default 60s")),
          timeoutMs: may(duration("How long a health check may take; default 10s"))
        },
        "Health checks"
      )
    ),
    routing: may(
      group(
        {
          policy: may(
            RoutingPolicy.pipe(
              taking(
                `one of ${RoutingPolicy.literals.join(", ")}`,
                "What the choice among platforms goes by where a task does not say; default balanced"
              )
            )
          ),
          hedging: may(
            Schema.Boolean.pipe(
              taking(
                "true or false",
                "Whether a HIGH call that takes unusually long is made a second time, elsewhere; default false"
              )
            )
          ),
          adaptMs: may(duration("How often the weights follow what is measured; default 5s"))
        },
        "The choice among platforms"
      )
    ),
    validation: may(
      group(
        {
          enabled: may(
            Schema.Boolean.pipe(
              taking("true or false", "Whether a model checks each task before it is accepted; default false")
            )
          ),
          platform: may(
            PlatformId.pipe(
              taking(
                "a platform id: 1 to 40 lower-case letters, digits or hyphens, beginning with a letter",
                "Who checks; default qwen"
              )
            )
          ),
          model: may(
            Text.pipe(
              taking(
                "a model's name, or fast, balanced or best",
                "Its model for the check; default its fast one, or its own where it has none"
              )
            )
          ),
          timeoutMs: may(duration("How long a check may take, its wait included; default 5s")),
          onInvalid: may(
            Schema.Literal("refuse", "note").pipe(
              taking(
                "one of refuse, note",
                "What becomes of a task found invalid: refused, or accepted with the verdict noted; default refuse"
              )
            )
          )
        },
        "The check of tasks by a model before they are accepted"
      )
    ),
    alternatives: may(
      group(
        {
          enabled: may(
            Schema.Boolean.pipe(
              taking("true or false", "Whether alternatives are tried for HIGH tasks that failed; default true")
            )
          ),
          order: may(
            many(
              AlternativeKind.pipe(taking(`one of ${AlternativeKind.literals.join(", ")}`)),
              "What is tried, in this order; default class, shrink, split, partial"
            )
          ),
          maxChildren: may(
            Schema.Int.pipe(
              Schema.between(1, 50),
              taking("a whole number from 1 to 50", "Tasks made for one task; default 8")
            )
          ),
          maxMs: may(duration("For all alternatives of one task; default 30m")),
          maxCostUsd: may(
            Schema.NullOr(Schema.Number.pipe(Schema.finite(), Schema.positive())).pipe(
              taking(
                "a number greater than 0, or none (in the file null)",
                "What the alternatives of one task may cost together, USD; default none"
              )
            )
          )
        },
        "What is tried for a HIGH task whose attempts are used up"
      )
    ),
    ccr: may(
      group(
        {
          command: may(Text.annotations({ description: "What starts Claude Code Router 2.0.0; default ccr" })),
          port: may(
            Schema.Int.pipe(
              Schema.between(1, 65_535),
              taking("a port from 1 to 65535", "Its port on 127.0.0.1; default any free one, and the same again")
            )
          ),
          home: may(Text.annotations({ description: "Its home folder; default ccr beside the sessions' database" }))
        },
        "Claude Code Router, through which sessions are continued"
      )
    ),
    claude: may(
      group(
        {
          command: may(Text.annotations({ description: "What starts Claude Code; default claude" })),
          configDir: may(
            Text.annotations({
              description: "The account that does tasks: the folder of its configuration; default ~/.claude"
            })
          )
        },
        "Claude Code, as it continues sessions and does tasks"
      )
    ),
    sessions: may(
      group(
        {
          database: may(
            Text.pipe(
              Schema.filter((text) => text !== ":memory:" && !/^[a-z][a-z0-9+.-]+:\/\//i.test(text)),
              taking(
                "the path of an SQLite file",
                "The SQLite file into which Claude Code's feeds report; default sessions.db beside the tasks' file, or in ~/.dream-team where they are in none"
              )
            )
          ),
          pollMs: may(
            durationWithin(100, 3_600_000).pipe(
              taking("a duration from 100ms to 1h", "How often the limits are looked at; default 5s")
            )
          ),
          trigger: may(
            Schema.Literal("warning", "critical", "emergency").pipe(
              taking("one of warning, critical, emergency", "The level at which a hand-off begins; default critical")
            )
          ),
          levels: may(
            group(
              {
                warning: may(level("default 0.7")),
                critical: may(level("default 0.85")),
                emergency: may(level("default 0.95"))
              },
              "From which part of a window's limit on each level holds"
            )
          ),
          handoff: may(
            HandoffPolicy.pipe(
              taking(
                `one of ${HandoffPolicy.literals.join(", ")}`,
                "Whether a session is handed off by itself, or prepared for you to continue; default ask"
              )
            )
          ),
          chain: may(many(Id, "Ids of the platforms that continue, in this order; default codex, synthetic, gemini")),
          quietMs: may(duration("A session is left alone until this long after it last did something; default 30s")),
          table: may(
            Text.pipe(
              taking(
                "the path of an SQLite file, or the name of a table",
                "An SQLite file with a table coordination_sessions, or the name of such a table in the sessions database; only read"
              )
            )
          )
        },
        "Claude Code sessions that near a limit of their account"
      )
    ),
    webhooks: may(
      group(
        {
          secrets: may(many(WebhookSecret, "What webhooks are signed with, each of them; none = no webhooks")),
          allowPrivate: may(
            Schema.Boolean.pipe(
              taking(
                "true or false",
                "Whether webhooks may go to addresses that are not public, and by plain http; default false"
              )
            )
          ),
          url: may(
            Text.pipe(
              Schema.filter((text) => URL.canParse(text) && /^https?:/i.test(text)),
              taking(
                "an http or https URL",
                "Told of tasks that failed and need a person, beside their own callbackUrl"
              )
            )
          ),
          urlFor: may(
            Schema.Literal("attention", "all").pipe(
              taking("one of attention, all", "Which ends of tasks and jobs webhooks.url is told of; default attention")
            )
          ),
          expireMs: may(duration("How long one is tried to be delivered; default 3 days"))
        },
        "Webhooks: how the ends of tasks and jobs are told"
      )
    ),
    budgets: may(
      group(
        {
          perKey: may(
            KeyBudgetFile.annotations({ description: "What each API key may spend; without keys, everybody together" })
          ),
          keys: may(
            Schema.Record({ key: TenantId, value: KeyBudgetFile }).annotations({
              message: () => object,
              description: "What single API keys may spend, by their tenant's name; laid over perKey"
            })
          ),
          platforms: may(
            Schema.Record({ key: PlatformId, value: DailyBudgetFile }).annotations({
              message: () => object,
              description: "What may be spent on each platform, by its id"
            })
          )
        },
        "What may be spent in one UTC day"
      )
    ),
    platforms: may(
      Schema.Record({ key: PlatformId, value: PlatformFile }).annotations({
        message: () => object,
        description:
          "Settings by platform id: codex, gemini, qwen, synthetic, or any further one with an OpenAI-compatible endpoint"
      })
    )
  },
  "Settings of dream-team. The environment and flags win over this file"
)
export type SettingsFile = typeof SettingsFile.Type

/** The file's JSON Schema (draft 7). */
export const jsonSchema = (): JSONSchema.JsonSchema7Root => JSONSchema.make(SettingsFile)

/** What is wrong at one place of what a source holds. `expected` is absent where the key itself is unknown. */
export interface Mistake {
  readonly path: ReadonlyArray<string>
  readonly expected: string | undefined
  readonly missing: boolean
  /** Whether the value may be shown: it is a leaf's, not a whole group's. */
  readonly leaf: boolean
}

export interface Decoded {
  /** Everything that is right, even beside mistakes. */
  readonly values: SettingsFile
  readonly mistakes: ReadonlyArray<Mistake>
}

const decodeEither = Schema.decodeUnknownEither(SettingsFile, { errors: "all", onExcessProperty: "error" })

export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** `value` without what lies at `path`. */
const without = (value: unknown, path: ReadonlyArray<string>): unknown => {
  const [head, ...rest] = path
  if (head === undefined) return undefined
  if (Array.isArray(value)) return value.filter((_, index) => String(index) !== head)
  if (!isObject(value)) return undefined
  const { [head]: inner, ...others } = value
  const kept = rest.length === 0 ? undefined : without(inner, rest)
  return kept === undefined ? others : { ...others, [head]: kept }
}

/** Where to cut a mistake out: at its own place, or with the whole item of the list it lies in. */
const place = (value: unknown, path: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [head, ...rest] = path
  if (head === undefined) return []
  if (Array.isArray(value)) return [head]
  return [head, ...place(isObject(value) ? value[head] : undefined, rest)]
}

/** Decodes what a source holds, strictly, and goes on past mistakes to find them all. */
export const decode = (raw: unknown): Decoded => {
  const attempt = (value: unknown, earlier: ReadonlyArray<Mistake>): Decoded =>
    Either.match(decodeEither(value), {
      onRight: (values) => ({ values, mistakes: earlier }),
      onLeft: (error) => {
        const mistakes = ParseResult.ArrayFormatter.formatErrorSync(error).map((issue): Mistake => {
          const path = issue.path.map(String)
          return {
            path,
            expected: issue._tag === "Unexpected" ? undefined : issue._tag === "Missing" ? "a value" : issue.message,
            missing: issue._tag === "Missing",
            leaf: issue._tag !== "Missing" && issue.message !== object && issue.message !== list
          }
        })
        // Each round takes at least one key away, so this ends; an empty source has no mistakes.
        // From the last one back, so that the places of a list's earlier items stay what they are.
        const places = mistakes.map(({ missing, path }) => place(value, missing ? path.slice(0, -1) : path))
        const distinct = new Map(places.map((path) => [path.join("/"), path]))
        const rest = [...distinct.values()].reduceRight<unknown>(without, value)
        return attempt(rest ?? {}, [...earlier, ...mistakes])
      }
    })
  return attempt(raw, [])
}

/** The keys that may stand at `path`, where the schema names them. */
export const keysAt = (path: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [first, second, third, fourth, fifth, sixth] = path
  if (first === undefined) return Object.keys(SettingsFile.fields)
  if (first === "tasks") return Object.keys(SettingsFile.fields.tasks.from.fields)
  if (first === "retention") return Object.keys(SettingsFile.fields.retention.from.fields)
  if (first === "health") return Object.keys(SettingsFile.fields.health.from.fields)
  if (first === "routing") return Object.keys(SettingsFile.fields.routing.from.fields)
  if (first === "validation") return Object.keys(SettingsFile.fields.validation.from.fields)
  if (first === "alternatives") return Object.keys(SettingsFile.fields.alternatives.from.fields)
  if (first === "webhooks") return Object.keys(SettingsFile.fields.webhooks.from.fields)
  if (first === "budgets") {
    if (second === undefined) return Object.keys(SettingsFile.fields.budgets.from.fields)
    if (second === "perKey") return Object.keys(KeyBudgetFile.fields)
    if (third === undefined) return []
    return Object.keys(second === "keys" ? KeyBudgetFile.fields : DailyBudgetFile.fields)
  }
  if (first !== "platforms" || second === undefined) return []
  switch (third) {
    case undefined:
      return Object.keys(PlatformFile.fields)
    case "classes":
      return Object.keys(PlatformFile.fields.classes.from.fields)
    case "suitability":
      return Object.keys(PlatformFile.fields.suitability.from.fields)
    case "limits":
      if (fourth === undefined) return Object.keys(PlatformFile.fields.limits.from.fields)
      if (fourth === "windows" || sixth === "windows") return Object.keys(WindowFile.fields)
      return fifth === undefined ? [] : Object.keys(ModelLimitsFile.fields)
    case "breaker":
      return Object.keys(PlatformFile.fields.breaker.from.fields)
    case "timeouts":
      return Object.keys(PlatformFile.fields.timeouts.from.fields)
    case "prices":
      return Object.keys(Price.fields)
    default:
      return []
  }
}
