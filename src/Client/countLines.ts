const newline = 0x0a

const isBlank = (byte: number | undefined): boolean => byte === 0x20 || byte === 0x09 || byte === 0x0d

/** Counts the lines of bytes that come piece by piece; blank ones do not count, as they are not submitted. */
export const countLines = () => {
  let lines = 0
  /** Whether the line at hand was counted. */
  let isCounted = false
  return {
    add: (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; ) {
        if (isCounted) {
          const end = bytes.indexOf(newline, at)
          if (end === -1) return
          isCounted = false
          at = end + 1
        } else {
          if (bytes[at] !== newline && !isBlank(bytes[at])) {
            isCounted = true
            lines += 1
          }
          at += 1
        }
      }
    },
    lines: (): number => lines
  }
}
