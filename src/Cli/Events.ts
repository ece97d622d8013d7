import { Console, Effect, Option, Schema, Stream } from "effect"
import { ServiceEvent } from "../Domain/Event.js"
import { EventTypes } from "../Events/Api.js"
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
      if (Option.exists(type, (types) => !Schema.is(EventTypes)(types))) {
        return yield* new Misuse({
          message: "--type must be types such as task.failed or families such as 'task.*', with commas between."
        })
      }
      const types = Option.getOrUndefined(Option.map(type, (list) => list.split(",")))
      yield* Stream.runForEach(client.events({ types }, Option.getOrUndefined(after)), (event) =>
        json
          ? Effect.flatMap(Effect.orDie(encode(event)), (line) => Console.log(line))
          : Console.log(serviceEventLine(event))
      )
    })
  )
