import { Effect, Either, Encoding, Option } from "effect"
import { InvalidRequest } from "../Domain/ApiError.js"

const defaultPage = 50
const maxPage = 200

/** A place in a list, for clients to hand back as it is. */
export const encodeCursor = (seq: number): string => Encoding.encodeBase64Url(String(seq))

const decodeCursor = (cursor: string): Option.Option<number> =>
  Option.filterMap(Either.getRight(Encoding.decodeBase64UrlString(cursor)), (text) =>
    /^[1-9][0-9]{0,14}$/.test(text) ? Option.some(Number(text)) : Option.none()
  )

/** Where in a list to go on, or every reason why not. */
export const pageOf = (page: {
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}): Effect.Effect<{ readonly limit: number; readonly from: Option.Option<number> }, InvalidRequest> => {
  const { cursor, limit = defaultPage } = page
  const from = cursor === undefined ? Option.none<number>() : decodeCursor(cursor)
  const problems = [
    ...(Number.isInteger(limit) && limit >= 1 && limit <= maxPage
      ? []
      : [{ field: "limit", problem: `it must be a whole number from 1 to ${maxPage}` }]),
    ...(cursor !== undefined && Option.isNone(from)
      ? [{ field: "cursor", problem: "it must be the `next` of an earlier page" }]
      : [])
  ]
  return problems.length > 0
    ? new InvalidRequest({
        message: `The page cannot be read. ${problems.map(({ field, problem }) => `${field}: ${problem}`).join(". ")}`,
        problems
      })
    : Effect.succeed({ limit, from })
}
