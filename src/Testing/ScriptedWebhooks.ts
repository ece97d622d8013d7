import { Context, Effect, Layer } from "effect"
import { type WebhookAnswer, type WebhookRequest, WebhookSender, type WebhookUnanswered } from "../Webhooks/Sender.js"

/** How a receiver answers a webhook. */
export type Receiver = (request: WebhookRequest) => Effect.Effect<WebhookAnswer, WebhookUnanswered>

/** What was sent to receivers of webhooks, and how they answer. */
export class SentWebhooks extends Context.Tag("dream-team/Testing/SentWebhooks")<
  SentWebhooks,
  {
    /** Oldest first, every attempt. */
    readonly all: Effect.Effect<ReadonlyArray<WebhookRequest>>
    /** From now on receivers answer so; at first they accept everything. */
    readonly answerWith: (receiver: Receiver) => Effect.Effect<void>
  }
>() {}

/** Receivers in memory: no socket opens. */
export const scriptedWebhooks: Layer.Layer<SentWebhooks | WebhookSender> = Layer.effectContext(
  Effect.sync(() => {
    const sent: Array<WebhookRequest> = []
    let receiver: Receiver = () => Effect.succeed({ status: 204 })
    return Context.make(SentWebhooks, {
      all: Effect.sync(() => [...sent]),
      answerWith: (next) =>
        Effect.sync(() => {
          receiver = next
        })
    }).pipe(
      Context.add(WebhookSender, {
        send: (request) =>
          Effect.suspend(() => {
            sent.push(request)
            return receiver(request)
          })
      })
    )
  })
)
