import { Either } from "effect"
import { type JsonPath, withItem, without, withValue } from "./JsonText.js"

/** The commands that Claude Code is to run. */
export interface FeedCommands {
  /** Shown as the status line after what `chained` shows. */
  readonly statusline: (chained: string | undefined) => string
  readonly hook: string
}

/** Settings that cannot be worked with, said so that their owner can mend them. */
type Problem = string

/** When Claude Code tells its hooks what the sessions database is to know. */
const hookEvents = ["SessionStart", "Stop", "StopFailure", "SessionEnd"] as const

/** Seconds after which Claude Code gives up on the hook. */
const hookTimeout = 10

const statusLineKey = "statusLine"
const continueKey = "autoContinueAtUsageLimit"

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

/** A word as the shell takes it. */
export const quoted = (word: string): string =>
  /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`

const unquoted = (word: string): string => (/^'.*'$/s.test(word) ? word.slice(1, -1).replaceAll("'\\''", "'") : word)

const isOwn = (command: unknown, mode: "statusline" | "hook"): command is string =>
  typeof command === "string" && new RegExp(`dream-team-feed(\\.js)?'? ${mode}( |$)`).test(command)

/** The user's own status line that ours shows as well. */
const chainedIn = (command: string): string | undefined => {
  const word = / --then (.*)$/s.exec(command)?.[1]
  return word === undefined ? undefined : unquoted(word)
}

const parse = (text: string): Either.Either<Json, Problem> => {
  if (text.trim() === "") return Either.right({})
  return Either.try({
    try: (): unknown => JSON.parse(text.replace(/^\ufeff/, "")),
    catch: (): Problem => "it is not valid JSON"
  }).pipe(Either.flatMap((value) => (isObject(value) ? Either.right(value) : Either.left("it is no JSON object"))))
}

const readable = (text: string): Json => Either.getOrElse(parse(text), (): Json => ({}))

/** The commands of ours that are in the settings. */
const ownCommands = (settings: Json): ReadonlyArray<string> => {
  const line = settings[statusLineKey]
  const hooks = isObject(settings.hooks) ? settings.hooks : {}
  const ofHooks = hookEvents.flatMap((event) =>
    (groupsOf(hooks, event) ?? []).flatMap((group) =>
      isObject(group) && Array.isArray(group.hooks)
        ? group.hooks.flatMap((hook: unknown) => (isObject(hook) && isOwn(hook.command, "hook") ? [hook.command] : []))
        : []
    )
  )
  return [...(isObject(line) && isOwn(line.command, "statusline") ? [line.command] : []), ...ofHooks]
}

/** Whether the feeds are in the settings, and to which file they report. */
export const feedsIn = (text: string): { readonly isInstalled: boolean; readonly database: string | undefined } => {
  const [command] = ownCommands(readable(text))
  const word = / --database ('(?:[^']|'\\'')*'|\S+)/.exec(command ?? "")?.[1]
  return { isInstalled: command !== undefined, database: word === undefined ? undefined : unquoted(word) }
}

/** What settings say that is in the way of the feeds, or of a hand-off. */
export const saysOfFeeds = (text: string) => {
  const settings = readable(text)
  const line = settings[statusLineKey]
  return {
    goesOnByItself: settings[continueKey] === true,
    hidesStatusLine: isObject(line) && !isOwn(line.command, "statusline"),
    hidesHooks: settings.disableAllHooks === true
  }
}

/** The hooks of one event in groups, as Claude Code has them; undefined where there is something else. */
const groupsOf = (hooks: Json, event: string): ReadonlyArray<unknown> | undefined => {
  const groups = hooks[event]
  return groups === undefined ? [] : Array.isArray(groups) ? groups : undefined
}

/** Where our commands are among the groups of an event, the last first. */
const ownPlaces = (groups: ReadonlyArray<unknown>): ReadonlyArray<{ readonly group: number; readonly item: number }> =>
  groups
    .flatMap((group, at) =>
      isObject(group) && Array.isArray(group.hooks)
        ? group.hooks.flatMap((hook: unknown, item) =>
            isObject(hook) && isOwn(hook.command, "hook") ? [{ group: at, item }] : []
          )
        : []
    )
    .reverse()

/**
 * The settings with the feeds in them, beside everything that is there: a status line that exists is shown by ours, and
 * Claude Code is told not to go on by itself when a limit resets, unless the user decided about that. Installed twice,
 * nothing changes the second time.
 */
export const installed = (text: string, commands: FeedCommands): Either.Either<string, Problem> =>
  Either.gen(function* () {
    const settings = yield* parse(text)
    let next = text.trim() === "" ? "{}\n" : text

    const line = settings[statusLineKey]
    if (line === undefined) {
      next = withValue(next, [statusLineKey], { type: "command", command: commands.statusline(undefined) })
    } else {
      if (!isObject(line) || line.type !== "command" || typeof line.command !== "string") {
        return yield* Either.left(`its ${statusLineKey} is not one that Claude Code documents`)
      }
      const chained = isOwn(line.command, "statusline") ? chainedIn(line.command) : line.command
      const command = commands.statusline(chained)
      if (command !== line.command) next = withValue(next, [statusLineKey, "command"], command)
    }

    const hooks = settings.hooks ?? {}
    if (!isObject(hooks)) return yield* Either.left("its hooks are no JSON object")
    if (!isObject(settings.hooks)) next = withValue(next, ["hooks"], {})
    for (const event of hookEvents) {
      const groups = groupsOf(hooks, event)
      if (groups === undefined) return yield* Either.left(`its hooks of ${event} are no list`)
      const places = ownPlaces(groups)
      for (const { group, item } of places) {
        next = withValue(next, ["hooks", event, group, "hooks", item, "command"], commands.hook)
      }
      if (places.length > 0) continue
      if (hooks[event] === undefined) next = withValue(next, ["hooks", event], [])
      next = withItem(next, ["hooks", event], {
        hooks: [{ type: "command", command: commands.hook, timeout: hookTimeout }]
      })
    }

    return settings[continueKey] === undefined ? withValue(next, [continueKey], false) : next
  })

/** Whether any of our commands is in the settings. */
export const isInstalled = (text: string): boolean =>
  Either.match(uninstalled(text, undefined), {
    onLeft: () => false,
    onRight: (rest) => rest !== text
  })

/**
 * The settings without the feeds, and everything else as it is now. `before` are the settings before the feeds came, where
 * those are known: if that is all that changed, they come back to the letter.
 */
export const uninstalled = (text: string, before: string | undefined): Either.Either<string, Problem> =>
  Either.gen(function* () {
    const settings = yield* parse(text)
    const past = before === undefined ? {} : Either.getOrElse(parse(before), (): Json => ({}))
    let next = text
    let isFound = false
    const remove = (path: JsonPath): void => {
      next = without(next, path)
      isFound = true
    }

    const line = settings[statusLineKey]
    if (isObject(line) && isOwn(line.command, "statusline")) {
      const chained = chainedIn(line.command)
      if (chained === undefined) remove([statusLineKey])
      else next = withValue(next, [statusLineKey, "command"], chained)
      isFound = true
    }

    const hooks = isObject(settings.hooks) ? settings.hooks : {}
    const pastHooks = isObject(past.hooks) ? past.hooks : {}
    let left = Object.keys(hooks).length
    for (const event of hookEvents) {
      const groups = groupsOf(hooks, event) ?? []
      const places = ownPlaces(groups)
      let rest = groups.length
      for (const { group, item } of places) {
        const found = groups[group]
        const count = isObject(found) && Array.isArray(found.hooks) ? found.hooks.length : 0
        if (count > 1) remove(["hooks", event, group, "hooks", item])
        else {
          remove(["hooks", event, group])
          rest -= 1
        }
      }
      if (places.length > 0 && rest === 0 && pastHooks[event] === undefined) {
        remove(["hooks", event])
        left -= 1
      }
    }
    if (isFound && isObject(settings.hooks) && left === 0 && past.hooks === undefined) remove(["hooks"])
    if (isFound && settings[continueKey] === false && past[continueKey] === undefined) remove([continueKey])

    if (!isFound) return text
    return before !== undefined && isSame(yield* parse(next), past) ? before : next
  })

const isSame = (one: unknown, other: unknown): boolean => {
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((item, index) => isSame(item, other[index]))
  }
  if (isObject(one) && isObject(other)) {
    const keys = Object.keys(one)
    return (
      keys.length === Object.keys(other).length &&
      keys.every((key) => Object.hasOwn(other, key) && isSame(one[key], other[key]))
    )
  }
  return one === other
}
