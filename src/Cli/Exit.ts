import { Data } from "effect"

/** The command did not do what it was asked to: `message` goes to stderr and the exit code is 1. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{ readonly message: string }> {}

/** The command was asked wrongly (arguments, settings): `message` goes to stderr and the exit code is 2. */
export class Misuse extends Data.TaggedError("Misuse")<{ readonly message: string }> {}
