import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Console, Effect, Layer } from "effect"
import { sortArguments } from "../src/Cli/Help.js"
import { answers, commands, rootHelp, run } from "../src/Cli.js"

/** No variables but those of a test. */
const environment = Layer.merge(NodeContext.layer, Layer.setConfigProvider(ConfigProvider.fromMap(new Map())))

/** What a command line prints to stdout, and whether it ends well. */
const say = (...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const printed: Array<string> = []
    const outcome = yield* Console.consoleWith((console) =>
      Effect.either(
        Effect.withConsole(run(args), {
          ...console,
          log: (text) =>
            Effect.sync(() => {
              printed.push(String(text))
            })
        })
      )
    )
    return { printed: printed.join("\n"), outcome }
  }).pipe(Effect.provide(environment))

const refused = (...args: ReadonlyArray<string>) => Effect.flip(run(args)).pipe(Effect.provide(environment))

describe("the command line", () => {
  it.effect("prints help for the program, each group and each command", () =>
    Effect.gen(function* () {
      for (const args of [[], ["--help"], ["-h"]]) assert.strictEqual((yield* say(...args)).printed, rootHelp)
      for (const { path, summary } of commands) {
        assert.include(rootHelp, path.join(" "))
        const { outcome, printed } = yield* say(...path, "--help")
        assert.strictEqual(outcome._tag, "Right")
        assert.include(printed, `Usage: dream-team ${path.join(" ")} [options]`)
        assert.include(printed, summary)
        assert.include(printed, "--json", `${path.join(" ")} has --json`)
      }
      assert.include((yield* say("tasks")).printed, "Usage: dream-team tasks <command> [options]")
      assert.include((yield* say("platforms", "--help")).printed, "Usage: dream-team platforms <command> [options]")
    })
  )

  it.effect("answers from rendered texts what it would answer itself", () =>
    Effect.gen(function* () {
      assert.isAbove(Object.keys(answers).length, commands.length)
      for (const [args, text] of Object.entries(answers)) {
        assert.strictEqual((yield* say(...args.split(" ").filter((arg) => arg !== ""))).printed, text, args)
      }
    })
  )

  it("stays within 100 columns", () => {
    for (const text of Object.values(answers)) {
      for (const line of text.split("\n").slice(1)) assert.isAtMost(line.length, 100, line)
    }
  })

  it.effect("tells of unknown commands, options and arguments, and what was meant", () =>
    Effect.gen(function* () {
      const expected: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
        [["dmeo"], "unknown command 'dmeo'. Did you mean 'demo'?"],
        [["tasks", "lst"], "dream-team tasks: unknown command 'lst'. Did you mean 'list'?"],
        [["--vresion"], "unknown option '--vresion'. Did you mean '--version'?"],
        [["submit", "why", "--wiat"], "dream-team submit: unknown option '--wiat'. Did you mean '--wait'?"],
        [["submit", "--wiat", "why"], "unknown option '--wiat'. Did you mean '--wait'?"],
        [["submit", "two", "words"], "unexpected argument 'words'; text of more than one word needs quotes."],
        [["tasks", "show"], "Missing argument <ID>"],
        [["demo", "extra"], "dream-team demo: unexpected argument 'extra'.\n"],
        [["demo", "--tasks"], "dream-team demo: --tasks needs a value."],
        [["demo", "--tasks=", "--json"], "dream-team demo: --tasks needs a value."],
        [["submit", "why", "--wait", "--type"], "dream-team submit: --type needs a value."],
        [["help"], "unknown command 'help'. Did you mean '--help'?"],
        [["route", "why"], "'dream-team route' only explains a choice, it makes none: say --dry-run."],
        [["submit", "why", "--dry-run", "--wait"], "--dry-run submits nothing, so there is nothing to --wait for"],
        [["submit", "why", "--max-cost-usd", "0"], "--max-cost-usd must be a number greater than 0, not '0'."],
        [["submit", "why", "--policy", "chepest"], "not 'chepest'. Did you mean 'cheapest'?"]
      ]
      for (const [args, message] of expected) {
        const error = yield* refused(...args)
        assert.strictEqual(error._tag, "Misuse")
        assert.include(error.message, message)
        assert.include(error.message, "--help")
      }
    })
  )

  it.effect("tells of wrong values with the option's name and what would be right", () =>
    Effect.gen(function* () {
      const expected: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
        [
          ["submit", "why", "--priority", "hihg"],
          "--priority must be one of HIGH, MEDIUM, LOW, not 'hihg'. Did you mean 'HIGH'?"
        ],
        [["tasks", "list", "--limit", "500"], "--limit must be a whole number from 1 to 200, not '500'."],
        [["demo", "--tasks", "-3"], "--tasks must be a whole number from 1 to 100000, not '-3'."],
        [["serve", "--port", "99999"], "--port must be a whole number from 0 to 65535, not '99999'."],
        [["simulate", "--latency-scale", "fast"], "--latency-scale must be a number from 0 to 1000, not 'fast'."],
        [["submit", "why", "--deadline", "tomorrow"], "--deadline must be seconds from now, or an instant such as"],
        [["submit", "why", "--deadline", "0"], "--deadline must be seconds from now"],
        [["submit", "why", "--idempotency-key", "two words"], "--idempotency-key must be 1 to 255 visible ASCII"],
        [
          ["events", "--type", "job.*,task.fail"],
          "--type: 'task.fail' is not a known type of event, did you mean task.failed?"
        ],
        [["tasks", "show", "123"], "'123' is not a task's id"],
        [["resources", "--url", "ftp://there"], "--url must be an http or https URL"]
      ]
      for (const [args, message] of expected) {
        const error = yield* refused(...args)
        assert.strictEqual(error._tag, "Misuse")
        assert.include(error.message, message)
      }
    })
  )

  it("takes text that begins with a dash for text, but not where it is an option's value", () => {
    const submit = commands.find(({ path }) => path.join(" ") === "submit")
    assert.isDefined(submit)
    if (submit === undefined) return
    const sorted = (...args: ReadonlyArray<string>) => sortArguments(submit, args).args
    assert.deepStrictEqual(sorted("-", "--wait"), ["--wait", "--", "-"])
    assert.deepStrictEqual(sorted("-5 degrees?", "--json"), ["--json", "--", "-5 degrees?"])
    assert.deepStrictEqual(sorted("--system", "- short", "why"), ["--system", "- short", "--", "why"])
    assert.deepStrictEqual(sorted("--wait", "--", "--help"), ["--wait", "--", "--help"])
    assert.deepStrictEqual(sorted("why", "--type=testing", "--wait"), ["--type=testing", "--wait", "--", "why"])
    assert.strictEqual(sortArguments(submit, ["--nonsense=1", "why"]).unknown, "--nonsense")
  })
})
