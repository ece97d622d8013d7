import { Config, Effect, Option } from "effect"
import { nearest } from "../Domain/nearest.js"
import { knownPlatforms, templateOf } from "./Defaults.js"

/** Every variable of ours begins so. */
const prefix = "DREAM_TEAM_"

/** The variable that names the settings file. */
export const configVariable = `${prefix}CONFIG`

/** How a variable's text becomes what the file would hold. What does not fit stays a text, for the schema to refuse. */
type Reading = (text: string) => unknown

const text: Reading = (written) => written

const number: Reading = (written) => (/^[+-]?\d+(\.\d+)?$/.test(written) ? Number(written) : written)

const truth: Reading = (written) => {
  const word = written.toLowerCase()
  return word === "true" ? true : word === "false" ? false : written
}

const orNone =
  (reading: Reading): Reading =>
  (written) =>
    written.toLowerCase() === "none" ? null : reading(written)

const lowerCase: Reading = (written) => written.toLowerCase()

// A list of nothing but commas is a slip: taken as empty, it would switch authentication off.
const listed: Reading = (written) => {
  const items = written
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "")
  return items.length === 0 ? written : items
}

interface Variable {
  readonly path: ReadonlyArray<string>
  readonly reading: Reading
}

const globals: Readonly<Record<string, Variable>> = {
  HOST: { path: ["host"], reading: text },
  PORT: { path: ["port"], reading: number },
  API_KEYS: { path: ["apiKeys"], reading: listed },
  API_KEY: { path: ["apiKey"], reading: text },
  DATABASE: { path: ["database"], reading: text },
  PLATFORMS: { path: ["use"], reading: listed },
  RETENTION_TASKS: { path: ["retention", "tasksMs"], reading: text },
  RETENTION_EVENTS: { path: ["retention", "eventsMs"], reading: text },
  RETENTION_KEYS: { path: ["retention", "keysMs"], reading: text },
  LOG_LEVEL: { path: ["logLevel"], reading: lowerCase },
  POLICY: { path: ["routing", "policy"], reading: lowerCase },
  HEDGING: { path: ["routing", "hedging"], reading: truth },
  VALIDATION: { path: ["validation", "enabled"], reading: truth },
  VALIDATION_PLATFORM: { path: ["validation", "platform"], reading: lowerCase },
  WEBHOOK_SECRETS: { path: ["webhooks", "secrets"], reading: listed },
  WEBHOOK_URL: { path: ["webhooks", "url"], reading: text },
  WEBHOOK_ALLOW_PRIVATE: { path: ["webhooks", "allowPrivate"], reading: truth },
  SESSIONS_DB: { path: ["sessions", "database"], reading: text },
  SESSIONS_TABLE: { path: ["sessions", "table"], reading: text },
  CCR_COMMAND: { path: ["ccr", "command"], reading: text },
  CCR_PORT: { path: ["ccr", "port"], reading: number },
  CCR_HOME: { path: ["ccr", "home"], reading: text },
  CLAUDE_CONFIG_DIR: { path: ["claude", "configDir"], reading: text },
  CLAUDE_COMMAND: { path: ["claude", "command"], reading: text },
  HANDOFF: { path: ["sessions", "handoff"], reading: lowerCase },
  HANDOFF_CHAIN: { path: ["sessions", "chain"], reading: listed },
  HANDOFF_TRIGGER: { path: ["sessions", "trigger"], reading: lowerCase },
  ALTERNATIVES: { path: ["alternatives", "enabled"], reading: truth },
  KEY_USD_PER_DAY: { path: ["budgets", "perKey", "usdPerDay"], reading: orNone(number) },
  KEY_TOKENS_PER_DAY: { path: ["budgets", "perKey", "tokensPerDay"], reading: orNone(number) },
  KEY_REQUESTS_PER_MINUTE: { path: ["budgets", "perKey", "requestsPerMinute"], reading: orNone(number) }
}

/** What of a platform is kept beside its own settings: its budgets stand among all budgets. */
const platformBudgets = {
  USD_PER_DAY: { path: ["usdPerDay"], reading: orNone(number) },
  TOKENS_PER_DAY: { path: ["tokensPerDay"], reading: orNone(number) }
} as const satisfies Readonly<Record<string, Variable>>

const perPlatform = {
  ...platformBudgets,
  BASE_URL: { path: ["baseUrl"], reading: text },
  API_KEY: { path: ["apiKey"], reading: text },
  MODEL: { path: ["model"], reading: text },
  WEIGHT: { path: ["weight"], reading: number },
  CAPABILITIES: { path: ["capabilities"], reading: listed },
  REQUESTS_PER_MINUTE: { path: ["limits", "requestsPerMinute"], reading: orNone(number) },
  TOKENS_PER_MINUTE: { path: ["limits", "tokensPerMinute"], reading: orNone(number) },
  TOKENS_COUNTED: { path: ["limits", "tokensCounted"], reading: text },
  BURST: { path: ["limits", "burst"], reading: orNone(number) },
  WINDOW_REQUESTS: { path: ["limits", "windowRequests"], reading: orNone(number) },
  WINDOW_TOKENS: { path: ["limits", "windowTokens"], reading: orNone(number) },
  WINDOW: { path: ["limits", "windowMs"], reading: orNone(text) },
  MAX_CONCURRENT: { path: ["limits", "maxConcurrent"], reading: number },
  MAX_CONCURRENT_PER_MODEL: { path: ["limits", "maxConcurrentPerModel"], reading: orNone(number) },
  ADAPT: { path: ["limits", "adapt"], reading: truth },
  BREAKER_FAILURES: { path: ["breaker", "failures"], reading: number },
  BREAKER_OPEN: { path: ["breaker", "openMs"], reading: text },
  TIMEOUT: { path: ["timeouts", "attemptMs"], reading: text }
} as const satisfies Readonly<Record<string, Variable>>

const isPlatformSetting = (suffix: string): suffix is keyof typeof perPlatform => Object.hasOwn(perPlatform, suffix)

const inVariable = (id: string): string => id.toUpperCase().replaceAll("-", "_")

/** The variable of one of a platform's settings, such as `DREAM_TEAM_MY_LLM_BASE_URL`. */
export const platformVariable = (id: string, setting: keyof typeof perPlatform): string =>
  `${prefix}${inVariable(id)}_${setting}`

/** The variables that may hold a platform's key, the first that is set wins. */
export const keyVariables = (id: string): ReadonlyArray<string> => {
  const own = platformVariable(id, "API_KEY")
  const provider = templateOf(id).keyVariable
  return provider === undefined ? [own] : [own, provider]
}

const providerKeys = new Set(knownPlatforms.flatMap((id) => keyVariables(id)))

/**
 * Our variables and the providers' keys as they are set, read from the current `ConfigProvider`. An empty one is not
 * set, as OpenTelemetry and most shells' users have it.
 */
export const readVariables: Effect.Effect<ReadonlyMap<string, string>> = Effect.configProviderWith((provider) => {
  const flat = provider.flattened
  const walk = (path: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>> =>
    flat.enumerateChildren(path).pipe(
      Effect.orElseSucceed((): Iterable<string> => []),
      Effect.flatMap((children) =>
        Effect.forEach(children, (child) => {
          const inner = [...path, child]
          const name = inner.join("_")
          const ours = name.startsWith(prefix) || prefix.startsWith(`${name}_`)
          return ours ? Effect.map(walk(inner), (deeper) => [name, ...deeper]) : Effect.succeed([])
        })
      ),
      Effect.map((names) => names.flat())
    )
  return walk([]).pipe(
    Effect.map((names) => new Set([...names.filter((name) => name.startsWith(prefix)), ...providerKeys])),
    Effect.flatMap((names) =>
      Effect.forEach(names, (name) =>
        provider.load(Config.option(Config.string(name))).pipe(
          Effect.orElseSucceed(() => Option.none<string>()),
          Effect.map((value) => [name, Option.getOrElse(value, () => "").trim()] as const)
        )
      )
    ),
    Effect.map((pairs) => new Map(pairs.filter(([, value]) => value !== "").sort(([a], [b]) => (a < b ? -1 : 1))))
  )
})

export interface UnknownVariable {
  readonly name: string
  readonly suggestion: string | undefined
  /** The platform it seems to be meant for, if that is not in use. */
  readonly platform: string | undefined
}

export interface Environment {
  /** What the variables say, shaped as the file would be. */
  readonly raw: Readonly<Record<string, unknown>>
  /** By path (joined with `/`), the variable that says it. */
  readonly names: ReadonlyMap<string, string>
  readonly unknown: ReadonlyArray<UnknownVariable>
}

const assign = (
  target: Readonly<Record<string, unknown>>,
  [head = "", ...rest]: ReadonlyArray<string>,
  value: unknown
): Readonly<Record<string, unknown>> => {
  const inner = target[head]
  return {
    ...target,
    [head]:
      rest.length === 0 ? value : assign(typeof inner === "object" && inner !== null ? { ...inner } : {}, rest, value)
  }
}

/** What `DREAM_TEAM_PLATFORMS` names, before anything is checked. */
export const namedPlatforms = (variables: ReadonlyMap<string, string>): ReadonlyArray<string> => {
  const written = variables.get(`${prefix}PLATFORMS`)
  const ids = written === undefined ? [] : listed(written)
  return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : []
}

/** Reads the variables as settings of the platforms `ids`. */
export const interpret = (variables: ReadonlyMap<string, string>, ids: Iterable<string>): Environment => {
  // The longest id first: of `my` and `my-llm`, DREAM_TEAM_MY_LLM_MODEL is the latter's.
  const platforms = Array.from(new Set(ids)).sort((a, b) => b.length - a.length)
  const valid = [
    configVariable,
    ...Object.keys(globals).map((suffix) => `${prefix}${suffix}`),
    ...platforms.flatMap((id) => Object.keys(perPlatform).map((suffix) => `${prefix}${inVariable(id)}_${suffix}`))
  ]
  const find = (suffix: string): Variable | undefined => {
    if (Object.hasOwn(globals, suffix)) return globals[suffix]
    for (const id of platforms) {
      const own = `${inVariable(id)}_`
      const rest = suffix.slice(own.length)
      if (suffix.startsWith(own) && isPlatformSetting(rest)) {
        const { path, reading } = perPlatform[rest]
        const section = Object.hasOwn(platformBudgets, rest) ? ["budgets", "platforms"] : ["platforms"]
        return { path: [...section, id, ...path], reading }
      }
    }
    return undefined
  }
  let raw: Readonly<Record<string, unknown>> = {}
  const names = new Map<string, string>()
  const unknown: Array<UnknownVariable> = []
  const take = (name: string, value: string, variable: Variable): void => {
    raw = assign(raw, variable.path, variable.reading(value))
    names.set(variable.path.join("/"), name)
  }
  for (const id of knownPlatforms) {
    const [, provider] = keyVariables(id)
    const value = provider === undefined ? undefined : variables.get(provider)
    if (provider !== undefined && value !== undefined) {
      take(provider, value, { path: ["platforms", id, "apiKey"], reading: text })
    }
  }
  for (const [name, value] of variables) {
    if (!name.startsWith(prefix) || name === configVariable) continue
    const variable = find(name.slice(prefix.length))
    if (variable !== undefined) {
      take(name, value, variable)
      continue
    }
    const setting = Object.keys(perPlatform)
      .sort((a, b) => b.length - a.length)
      .find((candidate) => name.endsWith(`_${candidate}`) && name.length > prefix.length + candidate.length + 1)
    if (setting === undefined) {
      unknown.push({ name, suggestion: nearest(name, valid), platform: undefined })
      continue
    }
    const platform = name
      .slice(prefix.length, -setting.length - 1)
      .toLowerCase()
      .replaceAll("_", "-")
    const meant = nearest(platform, platforms)
    unknown.push({
      name,
      suggestion: meant === undefined ? undefined : `${prefix}${inVariable(meant)}_${setting}`,
      platform: meant === undefined ? platform : undefined
    })
  }
  return { raw, names, unknown }
}
