/** What one image counts as input, tokens. */
export const imageTokens = 765

/** The simulated tokenizer: a token is 4 bytes of UTF-8. */
export const tokensOf = (text: string): number => Math.ceil(Buffer.byteLength(text) / 4)

/** The first `tokens` tokens of `text`, never ending inside a character. */
export const firstTokens = (text: string, tokens: number): string => {
  const bytes = Buffer.from(text)
  if (bytes.length <= tokens * 4) return text
  let end = tokens * 4
  // Continuation bytes of UTF-8 are 10xxxxxx: step back to where the character begins.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString("utf8", 0, end)
}

/** The first `count` characters of `text` (code points, never half of one). */
export const firstCharacters = (text: string, count: number): string =>
  text.length <= count
    ? text
    : Array.from(text.slice(0, count * 2))
        .slice(0, count)
        .join("")
