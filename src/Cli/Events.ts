import { Console, Effect, Either, Option, Schema, Stream } from "effect"
import { parseEventTypes, ServiceEvent } from "../Domain/Event.js"
import { type ServiceOptions, withService } from "./Connection.js"
import { serviceEventLine } from "./EventWords.js"
import { Misuse } from "./Exit.js"

export interface EventsOptions extends ServiceOptions {
  readonly type: Option.Option<string>
  readonly after: Option.Option<number>
}

const encode = Schema.encode(Schema.parseJson(ServiceEvent))

/** Prints all events as they happen, until stopped; with `json`, one object a line. */
export const run = ({ after, json, type, url }: EventsOptions) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const types = Option.isNone(type)
        ? undefined
        : yield* Either.mapLeft(
            parseEventTypes(type.value),
            (problem) => new Misuse({ message: `--type: ${problem}${/[.?]$/.test(problem) ? "" : "."}` })
          )
      yield* Stream.runForEach(client.events({ types }, Option.getOrUndefined(after)), (event) =>
        json
          ? Effect.flatMap(Effect.orDie(encode(event)), (line) => Console.log(line))
          : Console.log(serviceEventLine(event))
      )
    })
  )
