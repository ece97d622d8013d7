import { Clock, Console, Effect, type Option } from "effect"
import { BudgetsView } from "../Domain/Budget.js"
import { printAs, withService } from "./Connection.js"
import { budgetsText } from "./ResourceWords.js"

/** Prints what is spent of the day's budgets. */
export const run = ({ json, url }: { readonly url: Option.Option<string>; readonly json: boolean }) =>
  withService(url, (client) =>
    Effect.gen(function* () {
      const view = yield* client.budgets.show()
      yield* json ? printAs(BudgetsView, view) : Console.log(budgetsText(view, yield* Clock.currentTimeMillis))
    })
  )
