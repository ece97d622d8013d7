import * as HttpServerResponse from "@effect/platform/HttpServerResponse"

/** A value as a JSON response. Its body stays text: Node sends a text together with the headers, in one piece. */
export const jsonResponse = (
  value: unknown,
  options: { readonly status?: number; readonly headers?: Readonly<Record<string, string>> } = {}
): HttpServerResponse.HttpServerResponse => {
  const text = JSON.stringify(value)
  return HttpServerResponse.raw(text, {
    ...options,
    contentType: "application/json",
    contentLength: Buffer.byteLength(text)
  })
}
