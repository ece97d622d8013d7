import { Either, Encoding, Option } from "effect"

/** A place in a list, for clients to hand back as it is. */
export const encodeCursor = (seq: number): string => Encoding.encodeBase64Url(String(seq))

export const decodeCursor = (cursor: string): Option.Option<number> =>
  Option.filterMap(Either.getRight(Encoding.decodeBase64UrlString(cursor)), (text) =>
    /^[1-9][0-9]{0,14}$/.test(text) ? Option.some(Number(text)) : Option.none()
  )
