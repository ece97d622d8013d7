import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import { Authorization } from "../Domain/Access.js"
import { ErrorBody } from "../Domain/ApiError.js"
import { BudgetsView } from "../Domain/Budget.js"

const show = HttpApiEndpoint.get("show", "/v1/budgets")
  .addSuccess(BudgetsView)
  .annotateContext(
    OpenApi.annotations({
      summary: "Show the budgets of the day",
      description:
        "What the own API key and every platform have spent on the UTC day, what attempts under way may use at most, and " +
        "the limits, where there are any. What is spent counts without a limit too."
    })
  )

/** Budgets over HTTP. */
export class BudgetsGroup extends HttpApiGroup.make("budgets")
  .add(show)
  .addError(ErrorBody.InvalidRequest)
  .middleware(Authorization)
  .annotateContext(OpenApi.annotations({ title: "Budgets", description: "What may be spent, and what is." })) {}
