import { Effect } from "effect"
import { Budgets } from "../Budgets.js"
import * as Endpoints from "../Http/Endpoints.js"
import { BudgetsGroup } from "./Api.js"

/** The endpoint of budgets. */
export const endpoints = Endpoints.of(
  BudgetsGroup,
  Effect.map(Budgets, (budgets) => ({ show: ({ tenant }) => budgets.view(tenant) }))
)
