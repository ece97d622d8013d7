import { Context, DefaultServices, Effect, type Fiber, FiberRef, Tracer } from "effect"

const nobodysTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether anybody sees a fiber's spans: the tracer that is there by default shows them to nobody. */
export const isTraced = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean =>
  fiber.currentTracer !== nobodysTracer && fiber.getFiberRef(FiberRef.currentTracerEnabled)

/** `Effect.withSpan` for what runs for every task: where nobody sees spans it makes none. */
export const traced =
  (name: string, options: Omit<Tracer.SpanOptions, "captureStackTrace"> = {}) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiberRuntime((fiber) =>
      isTraced(fiber) ? Effect.withSpan(effect, name, { ...options, captureStackTrace: false }) : effect
    )

/** `Effect.annotateCurrentSpan` likewise. */
export const annotateSpan = (attributes: Record<string, unknown>): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => (isTraced(fiber) ? Effect.annotateCurrentSpan(attributes) : Effect.void))
