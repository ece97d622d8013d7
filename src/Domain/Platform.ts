import { Schema } from "effect"

/** A platform's name: lower-case letters, digits and hyphens, as used in settings, paths and tasks. */
export const PlatformId = Schema.String.pipe(
  Schema.pattern(/^[a-z][a-z0-9-]{0,39}$/, {
    message: () => "a platform id is 1 to 40 lower-case letters, digits or hyphens and starts with a letter"
  }),
  Schema.brand("PlatformId"),
  Schema.annotations({ identifier: "PlatformId" })
)
export type PlatformId = typeof PlatformId.Type

/** How a platform is spoken to: OpenAI's Responses, OpenAI's Chat Completions, or Gemini's generateContent. */
export const WireFormat = Schema.Literal("openai-responses", "openai-chat", "gemini").annotations({
  identifier: "WireFormat"
})
export type WireFormat = typeof WireFormat.Type

/** How a platform is reached: over HTTP in a wire format, or through the Claude Code of this machine. */
export const PlatformWire = Schema.Literal(...WireFormat.literals, "claude-code").annotations({
  identifier: "PlatformWire"
})
export type PlatformWire = typeof PlatformWire.Type

/** What a model can do. A task lists what it needs in `requires`. */
export const Capability = Schema.Literal(
  "text",
  "code",
  "vision",
  "tools",
  "json",
  "long-context",
  "reasoning",
  "streaming"
).annotations({ identifier: "Capability" })
export type Capability = typeof Capability.Type

/** A kind of model that a task may ask for in place of a name; the settings say which model of a platform it is. */
export const ModelClass = Schema.Literal("fast", "balanced", "best").annotations({ identifier: "ModelClass" })
export type ModelClass = typeof ModelClass.Type

/**
 * What a choice among platforms goes by:
 * `balanced` = how well each suits the type of task, and what is measured of it;
 * `fastest`, `cheapest` = the same, with speed or price before all;
 * `best` = how well each suits, whatever it takes and costs.
 */
export const RoutingPolicy = Schema.Literal("balanced", "fastest", "cheapest", "best").annotations({
  identifier: "RoutingPolicy"
})
export type RoutingPolicy = typeof RoutingPolicy.Type

/**
 * How a provider counts an attempt against its token limit:
 * `reserved` = input plus the maximum output, when the request arrives;
 * `input` = input only, when the request arrives;
 * `actual` = input and output really used, when the answer is complete.
 */
export const TokensCounted = Schema.Literal("reserved", "input", "actual").annotations({ identifier: "TokensCounted" })
export type TokensCounted = typeof TokensCounted.Type

/** Whether a platform can be used, as its health checks and real attempts show it. `unknown` = not checked yet. */
export const PlatformStatus = Schema.Literal("available", "degraded", "unavailable", "unknown").annotations({
  identifier: "PlatformStatus"
})
export type PlatformStatus = typeof PlatformStatus.Type

/** State of a circuit breaker. */
export const BreakerState = Schema.Literal("closed", "open", "half-open").annotations({ identifier: "BreakerState" })
export type BreakerState = typeof BreakerState.Type
