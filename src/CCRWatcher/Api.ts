import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Schema } from "effect"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { PlatformId } from "../Domain/Platform.js"
import { AccountView, HandoffState, HandoffView, SessionId, SessionStatus, SessionView } from "../Domain/Session.js"
import { PageSize, strict } from "../Http/Parameters.js"

const SessionPath = Schema.Struct({
  id: Schema.propertySignature(SessionId).annotations({ description: "The session's id, as Claude Code gives it." })
})

const limit = Schema.optional(PageSize).annotations({ description: "Entries at most. Default 50." })

const SessionsParams = Schema.Struct({
  status: Schema.optional(SessionStatus).annotations({ description: "Only sessions of this status." }),
  limit
}).annotations(strict)

const HandoffsParams = Schema.Struct({
  session: Schema.optional(SessionId).annotations({ description: "Only this session's." }),
  state: Schema.optional(HandoffState).annotations({ description: "Only those in this state." }),
  limit
}).annotations(strict)

export const SessionList = Schema.Struct({
  accounts: Schema.Array(AccountView),
  sessions: Schema.Array(SessionView).annotations({ description: "The last heard of first." })
}).annotations({ identifier: "SessionList" })
export type SessionList = typeof SessionList.Type

export const HandoffList = Schema.Struct({
  handoffs: Schema.Array(HandoffView).annotations({ description: "The newest first." })
}).annotations({ identifier: "HandoffList" })
export type HandoffList = typeof HandoffList.Type

/** How a session is to go on; a field that is not known is a mistake. */
export const HandoffWish = Schema.Struct({
  to: Schema.optional(PlatformId).annotations({
    description: "This platform alone; default: the chain of the settings."
  }),
  launcher: Schema.optional(Schema.Boolean).annotations({
    description: "Make a launcher for a person, also where the service could continue by itself."
  })
}).annotations({ identifier: "HandoffWish", parseOptions: { onExcessProperty: "error" } })
export type HandoffWish = typeof HandoffWish.Type

const list = HttpApiEndpoint.get("list", "/v1/sessions")
  .setUrlParams(SessionsParams)
  .addSuccess(SessionList)
  .annotateContext(
    OpenApi.annotations({
      summary: "List Claude Code sessions",
      description:
        "The sessions that feeds told of, with the hand-off each had last, and the limits of their accounts: level, part " +
        "used, reset."
    })
  )

const get = HttpApiEndpoint.get("get", "/v1/sessions/:id")
  .setPath(SessionPath)
  .addSuccess(SessionView)
  .addError(ErrorBody.NotFound)
  .annotateContext(OpenApi.annotations({ summary: "Show a session", description: "The same of one session." }))

const handoff = HttpApiEndpoint.post("handoff", "/v1/sessions/:id/handoff")
  .setPath(SessionPath)
  .setPayload(HandoffWish)
  .addSuccess(HandoffView, { status: 202 })
  .addError(ErrorBody.NotFound)
  .addError(ErrorBody.Conflict)
  .addError(ErrorBody.PayloadTooLarge)
  .addError(ErrorBody.UnsupportedMediaType)
  .addError(ErrorBody.Overloaded)
  .annotateContext(
    OpenApi.annotations({
      summary: "Hand a session off",
      description:
        "Keeps its context, chooses a platform and lets the session go on there, whatever the level of its limits; or goes " +
        "on with the hand-off it has. It follows in the background: see the session, or its events. Sessions that the " +
        "service launched, or that are to be handed off by themselves, go on headless with their own permissions; for " +
        "others a launcher is made, which `dream-team sessions resume` starts."
    })
  )

const handoffs = HttpApiEndpoint.get("handoffs", "/v1/handoffs")
  .setUrlParams(HandoffsParams)
  .addSuccess(HandoffList)
  .annotateContext(
    OpenApi.annotations({
      summary: "List hand-offs",
      description: "Each with its state, why it is in it, what was kept of the session, and who answered."
    })
  )

/** Claude Code sessions over HTTP. */
export class SessionsGroup extends HttpApiGroup.make("sessions")
  .add(list)
  .add(get)
  .add(handoff)
  .add(handoffs)
  .addError(ErrorBody.InvalidRequest)
  .middleware(Authorization)
  .annotateContext(
    OpenApi.annotations({
      title: "Sessions",
      description: "Claude Code sessions of this machine, how near their limits are, and their hand-off."
    })
  ) {}
