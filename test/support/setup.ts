import { effect, it, layer, scoped } from "@effect/vitest"

// `layer` of @effect/vitest writes its own methods over those of the one `it` that all files of a worker share.
Object.assign(it, { effect, layer, scoped })
