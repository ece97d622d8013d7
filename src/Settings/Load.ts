import { createHash } from "node:crypto"
import * as FileSystem from "@effect/platform/FileSystem"
import { Effect, Redacted } from "effect"
import { localTenant } from "../Domain/Access.js"
import { nearest } from "../Domain/nearest.js"
import { PlatformId } from "../Domain/Platform.js"
import { type TaskType, TenantId } from "../Domain/Task.js"
import { urlProblem } from "./CallbackUrl.js"
import { databaseName, databaseSetting, isPostgres } from "./Database.js"
import { defaults, knownPlatforms, quotasUrlOf, templateOf } from "./Defaults.js"
import {
  configVariable,
  type Environment,
  interpret,
  keyVariables,
  namedPlatforms,
  platformVariable,
  readVariables
} from "./Environment.js"
import {
  type DailyBudgetFile,
  type Decoded,
  decode,
  isObject,
  type KeyBudgetFile,
  keysAt,
  type PlatformFile,
  type SettingsFile,
  splitApiKey
} from "./File.js"
import { limitsProblems } from "./Limits.js"
import { SettingsInvalid, type SettingsProblem } from "./Problem.js"
import { sessionsDatabaseOf } from "./Sessions.js"
import type { ApiKey, PlatformLimits, PlatformSettings, SettingsShape, TriggerLevel } from "./Shape.js"

/** What the command line may override. */
export interface SettingsFlags {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly database?: string | undefined
  readonly logLevel?: string | undefined
  /** Ids of the platforms to use. */
  readonly platforms?: ReadonlyArray<string> | undefined
  /** Path of the settings file. */
  readonly config?: string | undefined
}

/** Where a value comes from: a flag, a variable, the file, or a default. */
export interface Source {
  readonly kind: "flag" | "environment" | "file" | "default"
  /** The flag's or variable's name, or the file's path. */
  readonly name?: string | undefined
}

/** One effective setting. Secrets are already replaced. */
export interface Entry {
  /** Such as `platforms.codex.model`. */
  readonly key: string
  /** `undefined` where there is none, such as a limit that is not set. */
  readonly value: unknown
  readonly source: Source
}

export interface Loaded {
  readonly settings: SettingsShape
  readonly entries: ReadonlyArray<Entry>
  /** The settings file that was read. */
  readonly file: string | undefined
}

const redacted = "<redacted>"

const flagNames: Readonly<Record<string, string>> = {
  host: "--host",
  port: "--port",
  database: "--database",
  logLevel: "--log-level",
  use: "--platforms"
}

interface Layered extends Decoded {
  readonly kind: "flag" | "environment" | "file"
  readonly raw: unknown
  /** The name under which the setting at this path was written. */
  readonly nameOf: (path: ReadonlyArray<string>) => string
  readonly source: (path: ReadonlyArray<string>) => Source
}

/** As a problem names it: the file by its path, the others by their kind. */
const sourceText = (source: Source): string => (source.kind === "file" ? (source.name ?? "file") : source.kind)

const isSecret = (path: ReadonlyArray<string>): boolean =>
  path.includes("apiKeys") || path.includes("secrets") || path.at(-1) === "apiKey"

const valueAt = (raw: unknown, path: ReadonlyArray<string>): unknown => {
  const [head, ...rest] = path
  if (head === undefined) return raw
  if (Array.isArray(raw)) return valueAt(raw[Number(head)], rest)
  return isObject(raw) ? valueAt(raw[head], rest) : undefined
}

/** A value as a message may show it: short, and nothing that could carry a password. */
const shown = (value: unknown): string | undefined => {
  switch (typeof value) {
    case "number":
    case "boolean":
      return String(value)
    case "string": {
      const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(value)
      // A URL may hold a password or a key before its host and behind its path; a wrong one anywhere.
      if (scheme !== null) {
        if (!URL.canParse(value) || isPostgres(value)) return `${scheme[0]}…`
        const url = new URL(value)
        return JSON.stringify(`${url.protocol}//${url.host}${url.pathname}`)
      }
      return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
    }
    default:
      return value === null ? "null" : undefined
  }
}

/** A webhook's URL may hold what only its receiver should know behind its path. */
const shownUrl = (url: string | undefined): string | undefined => {
  if (url === undefined) return undefined
  const { origin, pathname, search } = new URL(url)
  return `${origin}${pathname}${search === "" ? "" : "?…"}`
}

const problemsOf = (layer: Layered): ReadonlyArray<SettingsProblem> =>
  layer.mistakes.map(({ expected, leaf, missing, path }): SettingsProblem => {
    const common = { key: layer.nameOf(path), source: sourceText(layer.source(path)) }
    if (missing) return { ...common, problem: "missing", expected: expected ?? "a value" }
    if (expected === undefined) {
      const parent = path.slice(0, -1)
      if (parent.length === 1 && parent[0] === "platforms") {
        return {
          ...common,
          problem: "not a platform id",
          expected: "1 to 40 lower-case letters, digits or hyphens, beginning with a letter"
        }
      }
      const keys = keysAt(parent)
      const suggestion = nearest(path.at(-1) ?? "", keys)
      return {
        ...common,
        problem: suggestion === undefined ? "unknown key" : `unknown key, did you mean ${suggestion}?`,
        expected: `one of ${keys.join(", ")}`
      }
    }
    const value = leaf && !isSecret(path) ? shown(valueAt(layer.raw, path)) : undefined
    const written = valueAt(layer.raw, path)
    const options = expected.startsWith("one of ") ? expected.slice("one of ".length).split(", ") : []
    const suggestion = typeof written === "string" && !isSecret(path) ? nearest(written, options) : undefined
    return {
      ...common,
      ...(value === undefined ? {} : { value }),
      // A secret is not shown, so its place in the list tells which one is meant.
      problem: `wrong value${path[0] === "apiKeys" && path[1] !== undefined ? ` of key ${Number(path[1]) + 1}` : ""}${
        suggestion === undefined ? "" : `, did you mean ${suggestion}?`
      }`,
      expected
    }
  })

const invalid = (problem: SettingsProblem): SettingsInvalid => SettingsInvalid.of([problem])

const readFile = Effect.fn("Settings.readFile")(function* (path: string, key: string, source: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const text = yield* fileSystem.readFileString(path).pipe(
    Effect.mapError((error) =>
      invalid({
        key,
        source,
        value: path,
        problem:
          error._tag === "SystemError" && error.reason === "NotFound"
            ? "there is no such file"
            : "the file cannot be read",
        expected: "the path of a readable JSON file (`dream-team config init` writes one)"
      })
    )
  )
  return yield* Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (error) => {
      // The engine's message quotes the text around the mistake, which may be a key: only the position is kept.
      const position = /position (\d+)/.exec(String(error))?.[1]
      const before = position === undefined ? undefined : text.slice(0, Number(position)).split("\n")
      return invalid({
        key,
        source,
        value: path,
        problem:
          before === undefined
            ? "the file is not valid JSON"
            : `the file is not valid JSON at line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}`,
        expected: "JSON, as `dream-team config schema` describes it"
      })
    }
  })
})

const fromFlags = (flags: SettingsFlags): Layered => {
  const raw = Object.fromEntries(
    Object.entries({
      host: flags.host,
      port: flags.port,
      database: flags.database,
      logLevel: flags.logLevel?.toLowerCase(),
      use: flags.platforms
    }).filter(([, value]) => value !== undefined)
  )
  const nameOf = (path: ReadonlyArray<string>): string => flagNames[path[0] ?? ""] ?? path.join(".")
  return { kind: "flag", raw, ...decode(raw), nameOf, source: (path) => ({ kind: "flag", name: nameOf(path) }) }
}

const fromEnvironment = ({ names, raw }: Environment): Layered => {
  const nameOf = (path: ReadonlyArray<string>): string => {
    for (let length = path.length; length > 0; length--) {
      const name = names.get(path.slice(0, length).join("/"))
      if (name !== undefined) return name
    }
    return path.join(".")
  }
  return {
    kind: "environment",
    raw,
    ...decode(raw),
    nameOf,
    source: (path) => ({ kind: "environment", name: nameOf(path) })
  }
}

const fromFile = (raw: unknown, file: string): Layered => ({
  kind: "file",
  raw,
  ...decode(raw),
  nameOf: (path) => (path.length === 0 ? "(the whole file)" : path.join(".")),
  source: () => ({ kind: "file", name: file })
})

const unknownVariables = (environment: Environment): ReadonlyArray<SettingsProblem> =>
  environment.unknown.map(({ name, platform, suggestion }) => ({
    key: name,
    source: "environment",
    problem: suggestion === undefined ? "unknown variable" : `unknown variable, did you mean ${suggestion}?`,
    expected:
      platform === undefined
        ? "one of the variables that the README lists"
        : `\`${platform}\` to be named in DREAM_TEAM_PLATFORMS, if it is a platform to use`
  }))

/** The name of a key that came without one: made from the key, so that it stays when the list of keys changes. */
const tenantOf = (key: string): string => `key-${createHash("sha256").update(key).digest("hex").slice(0, 8)}`

const isLoopback = (host: string): boolean => host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host)

const suitabilityOf = (score: (type: TaskType) => number): Readonly<Record<TaskType, number>> => ({
  implementation: score("implementation"),
  documentation: score("documentation"),
  testing: score("testing"),
  architecture: score("architecture"),
  analysis: score("analysis"),
  "question-answering": score("question-answering")
})

type Timeouts = PlatformSettings["timeouts"]

const timeoutsOf = (ms: (timeout: keyof Timeouts) => number): Timeouts => ({
  connectMs: ms("connectMs"),
  firstTokenMs: ms("firstTokenMs"),
  betweenTokensMs: ms("betweenTokensMs"),
  attemptMs: ms("attemptMs")
})

/** The limits that are one number, or lifted. */
type Amount = "requestsPerMinute" | "tokensPerMinute" | "burst" | "windowRequests" | "windowTokens"

/** Lays the sources over each other and over the defaults; finds what is wrong only in the sum. */
const assemble = (layers: ReadonlyArray<Layered>) => {
  const entries: Array<Entry> = []
  const problems: Array<SettingsProblem> = []

  const find = <A>(path: ReadonlyArray<string>, read: (values: SettingsFile) => A | undefined) => {
    for (const layer of layers) {
      const value = read(layer.values)
      if (value !== undefined) return { value, layer, source: layer.source(path) }
    }
    return undefined
  }

  const note = (path: ReadonlyArray<string>, value: unknown, source: Source): void => {
    entries.push({ key: path.join("."), value, source })
  }

  const choose = <A, B>(
    path: ReadonlyArray<string>,
    read: (values: SettingsFile) => A | undefined,
    fallback: B,
    show: (value: A | B) => unknown = (value) => value
  ): A | B => {
    const found = find(path, read)
    const value = found === undefined ? fallback : found.value
    note(path, show(value), found?.source ?? { kind: "default" })
    return value
  }

  const complain = (
    path: ReadonlyArray<string>,
    read: (values: SettingsFile) => unknown,
    text: { readonly value?: string; readonly problem: string; readonly expected: string }
  ): void => {
    const found = find(path, read)
    const key = found === undefined ? path.join(".") : found.layer.nameOf(path)
    problems.push({ key, source: found === undefined ? "default" : sourceText(found.source), ...text })
  }

  const host = choose(["host"], (values) => values.host?.replace(/^\[(.*)\]$/, "$1"), defaults.host)
  const port = choose(["port"], (values) => values.port, defaults.port)

  const foundKeys = find(["apiKeys"], (values) => values.apiKeys)
  const apiKeys = (foundKeys?.value ?? []).map((text): ApiKey => {
    const { key, tenant } = splitApiKey(text)
    return { tenant: TenantId.make(tenant ?? tenantOf(key)), key: Redacted.make(key) }
  })
  note(
    ["apiKeys"],
    apiKeys.map(({ tenant }) => `${tenant}:${redacted}`),
    foundKeys?.source ?? { kind: "default" }
  )
  if (new Set(apiKeys.map(({ key }) => Redacted.value(key))).size < apiKeys.length) {
    complain(["apiKeys"], (values) => values.apiKeys, {
      problem: "the same key stands there twice",
      expected: "each key once (a tenant may have several)"
    })
  }
  const apiKey = choose(
    ["apiKey"],
    (values) => (values.apiKey === undefined ? undefined : Redacted.make(values.apiKey)),
    defaults.apiKey,
    (key) => (key === undefined ? undefined : redacted)
  )
  // Keys that are only mistyped are already named; without them the host would be blamed as well.
  const keysIntended =
    apiKeys.length > 0 || layers.some(({ mistakes }) => mistakes.some(({ path }) => path[0] === "apiKeys"))
  if (!isLoopback(host) && !keysIntended) {
    complain(["host"], (values) => values.host, {
      value: host,
      problem: "without API keys the service listens on loopback only",
      expected: "127.0.0.1, ::1 or localhost, or keys in DREAM_TEAM_API_KEYS"
    })
  }

  const database = databaseSetting(
    choose(
      ["database"],
      (values) => values.database,
      defaults.database,
      (text) => databaseName(text)
    )
  )
  const logLevel = choose(
    ["logLevel"],
    (values) => values.logLevel,
    defaults.logLevel,
    (level) => level.toLowerCase()
  )
  const maxBodyBytes = choose(["maxBodyBytes"], (values) => values.maxBodyBytes, defaults.maxBodyBytes)
  const maxHeldBytes = choose(["maxHeldBytes"], (values) => values.maxHeldBytes, defaults.maxHeldBytes)
  if (maxHeldBytes < maxBodyBytes) {
    const key = find(["maxHeldBytes"], (values) => values.maxHeldBytes) === undefined ? "maxBodyBytes" : "maxHeldBytes"
    complain([key], (values) => values[key], {
      value: String(key === "maxHeldBytes" ? maxHeldBytes : maxBodyBytes),
      problem: "the largest request body would never find room",
      expected: "maxHeldBytes of at least maxBodyBytes, and better many times that"
    })
  }
  const shutdownGraceMs = choose(["shutdownGraceMs"], (values) => values.shutdownGraceMs, defaults.shutdownGraceMs)

  const task = (key: keyof SettingsShape["tasks"]): number =>
    choose(["tasks", key], (values) => values.tasks?.[key], defaults.tasks[key])
  const tasks = {
    deadlineMs: task("deadlineMs"),
    maxAttempts: task("maxAttempts"),
    maxOutputTokens: task("maxOutputTokens"),
    parkAfterMs: task("parkAfterMs"),
    livePerClass: task("livePerClass")
  }
  const kept = (key: keyof SettingsShape["retention"]): number =>
    choose(["retention", key], (values) => values.retention?.[key], defaults.retention[key])
  const retention = { tasksMs: kept("tasksMs"), eventsMs: kept("eventsMs"), keysMs: kept("keysMs") }
  const health = {
    intervalMs: choose(["health", "intervalMs"], (values) => values.health?.intervalMs, defaults.health.intervalMs),
    timeoutMs: choose(["health", "timeoutMs"], (values) => values.health?.timeoutMs, defaults.health.timeoutMs)
  }
  const routing = {
    policy: choose(["routing", "policy"], (values) => values.routing?.policy, defaults.routing.policy),
    hedging: choose(["routing", "hedging"], (values) => values.routing?.hedging, defaults.routing.hedging),
    adaptMs: choose(["routing", "adaptMs"], (values) => values.routing?.adaptMs, defaults.routing.adaptMs)
  }
  const validation: SettingsShape["validation"] = {
    enabled: choose(["validation", "enabled"], ({ validation }) => validation?.enabled, defaults.validation.enabled),
    platform: choose(
      ["validation", "platform"],
      ({ validation }) => validation?.platform,
      defaults.validation.platform
    ),
    model: choose(["validation", "model"], ({ validation }) => validation?.model, undefined),
    timeoutMs: choose(
      ["validation", "timeoutMs"],
      ({ validation }) => validation?.timeoutMs,
      defaults.validation.timeoutMs
    ),
    onInvalid: choose(
      ["validation", "onInvalid"],
      ({ validation }) => validation?.onInvalid,
      defaults.validation.onInvalid
    )
  }
  const alternatives: SettingsShape["alternatives"] = {
    enabled: choose(
      ["alternatives", "enabled"],
      (values) => values.alternatives?.enabled,
      defaults.alternatives.enabled
    ),
    order: choose(["alternatives", "order"], (values) => values.alternatives?.order, defaults.alternatives.order),
    maxChildren: choose(
      ["alternatives", "maxChildren"],
      (values) => values.alternatives?.maxChildren,
      defaults.alternatives.maxChildren
    ),
    maxMs: choose(["alternatives", "maxMs"], (values) => values.alternatives?.maxMs, defaults.alternatives.maxMs),
    maxCostUsd:
      choose(
        ["alternatives", "maxCostUsd"],
        (values) => values.alternatives?.maxCostUsd,
        defaults.alternatives.maxCostUsd
      ) ?? undefined
  }
  if (new Set(alternatives.order).size < alternatives.order.length) {
    complain(["alternatives", "order"], (values) => values.alternatives?.order, {
      problem: "an alternative stands there twice",
      expected: "each alternative once"
    })
  }

  const sessionLevel = (level: TriggerLevel): number =>
    choose(["sessions", "levels", level], ({ sessions }) => sessions?.levels?.[level], defaults.sessions.levels[level])
  const besideTasks = sessionsDatabaseOf({ database, sessions: {} })
  const sessions: SettingsShape["sessions"] = {
    database: choose(
      ["sessions", "database"],
      (values) => values.sessions?.database,
      undefined,
      (path) => path ?? besideTasks
    ),
    pollMs: choose(["sessions", "pollMs"], (values) => values.sessions?.pollMs, defaults.sessions.pollMs),
    trigger: choose(["sessions", "trigger"], (values) => values.sessions?.trigger, defaults.sessions.trigger),
    levels: {
      warning: sessionLevel("warning"),
      critical: sessionLevel("critical"),
      emergency: sessionLevel("emergency")
    },
    handoff: choose(["sessions", "handoff"], (values) => values.sessions?.handoff, defaults.sessions.handoff),
    chain: choose(
      ["sessions", "chain"],
      (values) => values.sessions?.chain?.map((id) => PlatformId.make(id)),
      defaults.sessions.chain
    ),
    quietMs: choose(["sessions", "quietMs"], (values) => values.sessions?.quietMs, defaults.sessions.quietMs),
    table: choose(["sessions", "table"], (values) => values.sessions?.table, undefined)
  }
  const { critical, emergency, warning } = sessions.levels
  if (!(warning < critical && critical < emergency)) {
    complain(["sessions", "levels"], (values) => values.sessions?.levels, {
      value: [warning, critical, emergency].join(", "),
      problem: "the levels do not rise",
      expected: "warning below critical below emergency"
    })
  }
  if (sessions.chain.length === 0 || new Set(sessions.chain).size < sessions.chain.length) {
    complain(["sessions", "chain"], (values) => values.sessions?.chain, {
      problem: sessions.chain.length === 0 ? "nobody could continue a session" : "a platform stands there twice",
      expected: "at least one platform id, each once"
    })
  }

  const ccr: SettingsShape["ccr"] = {
    command: choose(["ccr", "command"], (values) => values.ccr?.command, defaults.ccr.command),
    port: choose(["ccr", "port"], (values) => values.ccr?.port, defaults.ccr.port),
    home: choose(["ccr", "home"], (values) => values.ccr?.home, defaults.ccr.home)
  }
  const claude: SettingsShape["claude"] = {
    command: choose(["claude", "command"], (values) => values.claude?.command, defaults.claude.command),
    configDir: choose(["claude", "configDir"], (values) => values.claude?.configDir, defaults.claude.configDir)
  }

  const described = layers.flatMap(({ values }) => Object.keys(values.platforms ?? {}))
  const everyId = Array.from(new Set<string>([...knownPlatforms, ...described]))
  const use = choose(["use"], (values) => values.use, everyId)
  if (new Set(use).size < use.length) {
    complain(["use"], (values) => values.use, {
      problem: "a platform stands there twice",
      expected: "each platform id once"
    })
  }

  const platformOf = (id: string): PlatformSettings | { readonly absent: string } => {
    const template = templateOf(id)
    const platformId = PlatformId.make(id)
    const at = (...path: ReadonlyArray<string>): ReadonlyArray<string> => ["platforms", id, ...path]
    const reading =
      <A>(read: (file: PlatformFile) => A | undefined) =>
      (values: SettingsFile): A | undefined => {
        const file = values.platforms?.[platformId]
        return file === undefined ? undefined : read(file)
      }
    const pick = <A, B>(path: ReadonlyArray<string>, read: (file: PlatformFile) => A | undefined, fallback: B): A | B =>
      choose(at(...path), reading(read), fallback)
    const has = (read: (file: PlatformFile) => unknown): boolean => find([], reading(read)) !== undefined
    const lacks = (key: "baseUrl" | "model", variable: "BASE_URL" | "MODEL", expected: string): boolean => {
      const mistaken = layers.some(({ mistakes }) =>
        mistakes.some(({ path }) => path.join("/") === at(key).join("/") || path.join("/") === at().join("/"))
      )
      if (template[key] !== undefined || has((file) => file[key]) || mistaken) return false
      const suggestion = described.includes(id) ? undefined : nearest(id, knownPlatforms)
      problems.push({
        key: platformVariable(id, variable),
        source: "environment",
        problem: `missing for the platform \`${id}\`${suggestion === undefined ? "" : `, did you mean ${suggestion}?`}`,
        expected: `${expected} (in the file: platforms.${id}.${key})`
      })
      return true
    }
    const incomplete = [
      lacks("baseUrl", "BASE_URL", "the URL of an OpenAI-compatible API, such as http://127.0.0.1:11434/v1"),
      lacks("model", "MODEL", "the name of the model to use")
    ].includes(true)
    if (incomplete) return { absent: "its settings are incomplete" }
    const key = find(
      at("apiKey"),
      reading((file) => file.apiKey)
    )
    const wire = pick(["wire"], (file) => file.wire, template.wire)
    if (key === undefined && wire !== "claude-code")
      return { absent: `no API key: set ${keyVariables(id).join(" or ")}` }

    const limits: PlatformLimits = template.limits
    const limit = <Key extends Amount>(key: Key): number | undefined =>
      pick(["limits", key], (file) => file.limits?.[key], limits[key]) ?? undefined
    const windowRequests = limit("windowRequests")
    const windowTokens = limit("windowTokens")
    // A built-in window's length goes with its amounts, a built-in bound per model with the bound of them all.
    const windowMs = windowRequests === undefined && windowTokens === undefined ? undefined : limits.windowMs
    const perModel = has((file) => file.limits?.maxConcurrent) ? undefined : limits.maxConcurrentPerModel
    const baseUrl = pick(["baseUrl"], (file) => file.baseUrl, template.baseUrl ?? "").replace(/\/+$/, "")
    if (key !== undefined) note(at("apiKey"), redacted, key.source)
    const settings: PlatformSettings = {
      id: platformId,
      wire,
      baseUrl,
      apiKey: Redacted.make(key?.value ?? ""),
      model: pick(["model"], (file) => file.model, template.model ?? ""),
      classes: pick(
        ["classes"],
        (file) => (file.classes === undefined ? undefined : { ...template.classes, ...file.classes }),
        template.classes
      ),
      capabilities: pick(["capabilities"], (file) => file.capabilities, template.capabilities),
      contextWindow: pick(["contextWindow"], (file) => file.contextWindow, template.contextWindow),
      weight: pick(["weight"], (file) => file.weight, template.weight),
      suitability: suitabilityOf((type) =>
        pick(["suitability", type], (file) => file.suitability?.[type], template.suitability[type])
      ),
      limits: {
        requestsPerMinute: limit("requestsPerMinute"),
        tokensPerMinute: limit("tokensPerMinute"),
        tokensCounted: pick(["limits", "tokensCounted"], (file) => file.limits?.tokensCounted, limits.tokensCounted),
        burst: limit("burst"),
        windowRequests,
        windowTokens,
        windowMs: pick(["limits", "windowMs"], (file) => file.limits?.windowMs, windowMs) ?? undefined,
        windows: pick(["limits", "windows"], (file) => file.limits?.windows, limits.windows),
        maxConcurrent: pick(["limits", "maxConcurrent"], (file) => file.limits?.maxConcurrent, limits.maxConcurrent),
        maxConcurrentPerModel:
          pick(["limits", "maxConcurrentPerModel"], (file) => file.limits?.maxConcurrentPerModel, perModel) ??
          undefined,
        models: pick(
          ["limits", "models"],
          (file) => (file.limits?.models === undefined ? undefined : { ...limits.models, ...file.limits.models }),
          limits.models
        ),
        adapt: pick(["limits", "adapt"], (file) => file.limits?.adapt, limits.adapt ?? false)
      },
      breaker: {
        failures: pick(["breaker", "failures"], (file) => file.breaker?.failures, template.breaker.failures),
        openMs: pick(["breaker", "openMs"], (file) => file.breaker?.openMs, template.breaker.openMs)
      },
      timeouts: timeoutsOf((timeout) =>
        pick(["timeouts", timeout], (file) => file.timeouts?.[timeout], template.timeouts[timeout])
      ),
      quotasUrl: pick(["quotasUrl"], (file) => file.quotasUrl, quotasUrlOf(id, baseUrl)) ?? undefined,
      prices: pick(
        ["prices"],
        (file) => (file.prices === undefined ? undefined : { ...template.prices, ...file.prices }),
        template.prices
      )
    }

    for (const { expected, path, problem } of limitsProblems(settings.limits)) {
      const value = valueAt({ ...settings.limits }, path)
      complain(at("limits", ...path), (values) => valueAt(values.platforms?.[platformId]?.limits, path.slice(0, 1)), {
        ...(typeof value === "number" ? { value: String(value) } : {}),
        problem,
        expected
      })
    }
    return settings
  }

  const amount = (path: ReadonlyArray<string>, read: (values: SettingsFile) => number | null | undefined) =>
    choose(["budgets", ...path], read, undefined) ?? undefined
  const named = (key: "keys" | "platforms"): ReadonlyArray<string> =>
    Array.from(new Set(layers.flatMap(({ values }) => Object.keys(values.budgets?.[key] ?? {}))))
  const budgetOf = (path: ReadonlyArray<string>, read: (values: SettingsFile) => DailyBudgetFile | undefined) => ({
    usdPerDay: amount([...path, "usdPerDay"], (values) => read(values)?.usdPerDay),
    tokensPerDay: amount([...path, "tokensPerDay"], (values) => read(values)?.tokensPerDay)
  })
  const keyBudgetOf = (path: ReadonlyArray<string>, read: (values: SettingsFile) => KeyBudgetFile | undefined) => ({
    ...budgetOf(path, read),
    requestsPerMinute: amount([...path, "requestsPerMinute"], (values) => read(values)?.requestsPerMinute)
  })
  const secretTexts = find(["webhooks", "secrets"], (values) => values.webhooks?.secrets)
  const secrets = (secretTexts?.value ?? []).map((text) => Redacted.make(text))
  note(
    ["webhooks", "secrets"],
    secrets.map(() => redacted),
    secretTexts?.source ?? { kind: "default" }
  )
  const webhooks: SettingsShape["webhooks"] = {
    secrets,
    allowPrivate: choose(
      ["webhooks", "allowPrivate"],
      (values) => values.webhooks?.allowPrivate,
      defaults.webhooks.allowPrivate
    ),
    url: choose(["webhooks", "url"], (values) => values.webhooks?.url, undefined, shownUrl),
    urlFor: choose(["webhooks", "urlFor"], (values) => values.webhooks?.urlFor, defaults.webhooks.urlFor),
    expireMs: choose(["webhooks", "expireMs"], (values) => values.webhooks?.expireMs, defaults.webhooks.expireMs)
  }
  const webhookProblem = webhooks.url === undefined ? undefined : urlProblem(webhooks.url, webhooks.allowPrivate)
  if (webhookProblem !== undefined) {
    complain(["webhooks", "url"], (values) => values.webhooks?.url, {
      problem: `webhooks cannot go there: ${webhookProblem}`,
      expected: "an https URL of a public address"
    })
  }
  if (webhooks.url !== undefined && secrets.length === 0) {
    complain(["webhooks", "url"], (values) => values.webhooks?.url, {
      problem: "webhooks are signed, and there is no secret",
      expected: "a secret in DREAM_TEAM_WEBHOOK_SECRETS (webhooks.secrets) beside it"
    })
  }

  const perKey = keyBudgetOf(["perKey"], (values) => values.budgets?.perKey)
  const tenants = apiKeys.length === 0 ? [localTenant] : apiKeys.map(({ tenant }) => tenant)
  /** A budget of a name that nobody has would hold for nobody. */
  const knownOwners = (key: "keys" | "platforms", known: ReadonlyArray<string>): ReadonlyArray<string> =>
    named(key).filter((name) => {
      if (known.includes(name)) return true
      const suggestion = nearest(name, known)
      complain(["budgets", key, name], (values) => valueAt(values.budgets?.[key], [name]), {
        problem: `there is no ${key === "keys" ? "API key" : "platform"} of that name${suggestion === undefined ? "" : `, did you mean ${suggestion}?`}`,
        expected: `one of ${known.join(", ")}`
      })
      return false
    })
  const budgets: SettingsShape["budgets"] = {
    perKey,
    keys: Object.fromEntries(
      knownOwners("keys", tenants).map((name) => {
        const read = (values: SettingsFile) => values.budgets?.keys?.[TenantId.make(name)]
        const own = (key: "usdPerDay" | "tokensPerDay" | "requestsPerMinute") => {
          const found = find(["budgets", "keys", name, key], (values) => read(values)?.[key])
          if (found !== undefined) note(["budgets", "keys", name, key], found.value, found.source)
          // null lifts what holds for every key
          return found === undefined ? {} : { [key]: found.value ?? undefined }
        }
        return [name, { ...own("usdPerDay"), ...own("tokensPerDay"), ...own("requestsPerMinute") }]
      })
    ),
    platforms: Object.fromEntries(
      knownOwners("platforms", everyId).map((name) => [
        name,
        budgetOf(["platforms", name], (values) => values.budgets?.platforms?.[PlatformId.make(name)])
      ])
    )
  }

  const platforms: Array<PlatformSettings> = []
  const absent: Array<{ readonly id: PlatformId; readonly reason: string }> = []
  for (const id of new Set<string>(use)) {
    const platform = platformOf(id)
    if ("absent" in platform) absent.push({ id: PlatformId.make(id), reason: platform.absent })
    else platforms.push(platform)
  }
  const chosenBy = find(["use"], (values) => values.use)?.source.name
  for (const id of everyId.filter((id) => !use.includes(id))) {
    absent.push({ id: PlatformId.make(id), reason: `not among the platforms to use (${chosenBy})` })
  }

  const settings: SettingsShape = {
    host,
    port,
    apiKeys,
    apiKey,
    maxBodyBytes,
    maxHeldBytes,
    database,
    platforms,
    absent,
    tasks,
    retention,
    health,
    routing,
    webhooks,
    sessions,
    ccr,
    claude,
    budgets,
    validation,
    alternatives,
    shutdownGraceMs,
    logLevel
  }
  return { settings, entries, problems }
}

/**
 * The effective settings: flags, then the environment (through the current `ConfigProvider`), then the JSON file, then
 * the defaults; with the source of each. Fails with every mistake at once.
 */
export const load = Effect.fn("Settings.load")(function* (flags: SettingsFlags = {}) {
  const variables = yield* readVariables
  const variable = variables.get(configVariable)
  const path = flags.config ?? variable
  const read =
    path === undefined
      ? undefined
      : yield* Effect.either(
          flags.config === undefined
            ? readFile(path, configVariable, "environment")
            : readFile(path, "--config", "flag")
        )
  const file = path !== undefined && read?._tag === "Right" ? fromFile(read.right, path) : undefined
  const environment = interpret(variables, [
    ...knownPlatforms,
    ...Object.keys(file?.values.platforms ?? {}),
    ...(file?.values.use ?? []),
    ...(flags.platforms ?? []),
    ...namedPlatforms(variables)
  ])
  const layers = [fromFlags(flags), fromEnvironment(environment), ...(file === undefined ? [] : [file])]
  const assembled = assemble(layers)
  const problems = [
    ...(read?._tag === "Left" ? read.left.problems : []),
    ...layers.flatMap(problemsOf),
    ...unknownVariables(environment),
    ...assembled.problems
  ]
  if (problems.length > 0) return yield* SettingsInvalid.of(problems)
  const loaded: Loaded = { settings: assembled.settings, entries: assembled.entries, file: path }
  return loaded
})
