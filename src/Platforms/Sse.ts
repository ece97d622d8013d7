/** The events of a body, or that a line or an event of it is longer than the limit. */
export type SseResult = { readonly events: ReadonlyArray<string>; readonly tooLong: boolean }

export interface SseParser {
  /** The data of the events that these bytes complete. */
  readonly push: (bytes: Uint8Array) => SseResult
  /** The body has ended: the data of a last event whose closing empty line is missing. */
  readonly end: () => SseResult
  /** The first lines of the body that are no field of an event stream, such as a bare JSON error. */
  readonly stray: () => string
}

const strayLimit = 16 * 1024

/**
 * An incremental parser of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) that
 * keeps the data only: line ends of all three kinds, characters and lines cut anywhere by the network, comments.
 * No line, and no event's data, grows beyond `maxLength` characters.
 */
export const makeSseParser = (maxLength: number): SseParser => {
  const decoder = new TextDecoder()
  let pending: Array<string> = []
  let pendingLength = 0
  let data: Array<string> = []
  let dataLength = 0
  let afterCarriageReturn = false
  let stray = ""
  let tooLong = false
  let events: Array<string> = []

  const dispatch = () => {
    if (data.length > 0) {
      events.push(data.join("\n"))
      data = []
      dataLength = 0
    }
  }

  const line = (text: string) => {
    if (text === "") {
      dispatch()
    } else if (text.startsWith("data:")) {
      const value = text.startsWith("data: ") ? text.slice(6) : text.slice(5)
      dataLength += value.length
      tooLong ||= dataLength > maxLength
      data.push(value)
    } else if (!/^(?::|(?:event|id|retry|data)(?::|$))/.test(text) && stray.length < strayLimit) {
      stray += `${text.slice(0, strayLimit - stray.length)}\n`
    }
  }

  const feed = (text: string) => {
    let start = 0
    if (afterCarriageReturn && text !== "") {
      afterCarriageReturn = false
      start = text.startsWith("\n") ? 1 : 0
    }
    // Each kind of line end is looked for on its own: nearly all bodies have one, and the other then costs one look.
    let lineFeed = text.indexOf("\n", start)
    let carriageReturn = text.indexOf("\r", start)
    while (lineFeed !== -1 || carriageReturn !== -1) {
      const isLineFeed = carriageReturn === -1 || (lineFeed !== -1 && lineFeed < carriageReturn)
      const end = isLineFeed ? lineFeed : carriageReturn
      const piece = text.slice(start, end)
      if (pending.length === 0) {
        line(piece)
      } else {
        line(pending.join("") + piece)
        pending = []
        pendingLength = 0
      }
      start = !isLineFeed && lineFeed === end + 1 ? end + 2 : end + 1
      if (lineFeed !== -1 && lineFeed < start) lineFeed = text.indexOf("\n", start)
      if (carriageReturn !== -1 && carriageReturn < start) carriageReturn = text.indexOf("\r", start)
    }
    if (text.endsWith("\r")) {
      afterCarriageReturn = true
    }
    if (start < text.length) {
      pending.push(text.slice(start))
      pendingLength += text.length - start
      tooLong ||= pendingLength > maxLength
    }
  }

  const taken = (): SseResult => {
    const result = { events, tooLong }
    events = []
    return result
  }

  return {
    push: (bytes) => {
      // TextDecoder drops a byte order mark at the start by itself.
      feed(decoder.decode(bytes, { stream: true }))
      return taken()
    },
    end: () => {
      feed(decoder.decode())
      if (pending.length > 0) {
        line(pending.join(""))
        pending = []
      }
      dispatch()
      return taken()
    },
    stray: () => stray
  }
}
