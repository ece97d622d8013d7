import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import { Effect } from "effect"
import { Budgets } from "../Budgets.js"
import { CurrentTenant } from "../Domain/Access.js"
import { BudgetsApi } from "./Api.js"

/** The endpoint of budgets. */
export const layer = HttpApiBuilder.group(BudgetsApi, "budgets", (handlers) =>
  Effect.map(Budgets, (budgets) => handlers.handle("show", () => Effect.flatMap(CurrentTenant, budgets.view)))
)
