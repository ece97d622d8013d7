import { Clock, Console, Effect } from "effect"
import { BudgetsView } from "../Domain/Budget.js"
import { printAs, type ServiceOptions, withService } from "./Connection.js"
import { budgetsText } from "./ResourceWords.js"

/** Prints what is spent of the day's budgets. */
export const run = ({ json, url }: ServiceOptions) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const view = yield* client.budgets.show()
      yield* json ? printAs(BudgetsView, view) : Console.log(budgetsText(view, yield* Clock.currentTimeMillis))
    })
  )
