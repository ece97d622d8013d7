import { isIP } from "node:net"
import type { FieldProblem } from "../Domain/ApiError.js"
import { isPublicAddress } from "./PublicAddress.js"
import type { SettingsShape } from "./Shape.js"

const maxLength = 2048

/** The host of a URL as it is connected to: without the brackets of an IPv6 address and the dot that may end a name. */
export const hostOf = (url: URL): string => url.hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "")

const httpsOnly = "it must begin with https:// (http:// is taken only where webhooks.allowPrivate is set)"

const isOwnName = (host: string): boolean => host === "localhost" || host.endsWith(".localhost")

/**
 * What keeps a webhook from being sent to a URL, as far as the URL itself tells; what its name resolves to is only known
 * when it is sent. Parsing has put odd notations right by then: `0x7f.1` is `127.0.0.1`.
 */
export const urlProblem = (text: string, allowPrivate: boolean): string | undefined => {
  if (text.length > maxLength) return `it is longer than ${maxLength} characters`
  // To be parsed these are left out or percent-encoded, but the text itself is stored, and PostgreSQL stores no NUL.
  if (/\p{Cc}/u.test(text)) return "it holds a control character: percent-encode it"
  if (!URL.canParse(text)) return "it is not a URL"
  const url = new URL(text)
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return allowPrivate ? "it must begin with https:// or http://" : httpsOnly
  }
  if (url.username !== "" || url.password !== "") {
    return "it must hold no user name or password: what is signed needs none"
  }
  if (allowPrivate) return undefined
  if (url.protocol === "http:") return httpsOnly
  const host = hostOf(url)
  return isOwnName(host) || (isIP(host) !== 0 && !isPublicAddress(host))
    ? "it leads to an address that is not public (such are taken only where webhooks.allowPrivate is set)"
    : undefined
}

/** What is wrong with a `callbackUrl` as it is submitted, for the field it came in. */
export const callbackProblems = (
  text: string | undefined,
  { allowPrivate, secrets }: SettingsShape["webhooks"],
  field = "callbackUrl"
): ReadonlyArray<FieldProblem> => {
  if (text === undefined) return []
  if (secrets.length === 0) {
    return [
      {
        field,
        problem:
          "webhooks are signed, and there is no secret: the setting webhooks.secrets (DREAM_TEAM_WEBHOOK_SECRETS) takes some"
      }
    ]
  }
  const problem = urlProblem(text, allowPrivate)
  return problem === undefined ? [] : [{ field, problem }]
}
