import { type Agent, type OutgoingHttpHeaders, request } from "node:http"

/** One request over the connections of `agent`; answers the body. Fails where the status is none of success. */
export const send = (
  agent: Agent,
  method: "GET" | "POST",
  url: string,
  headers: OutgoingHttpHeaders = {},
  body?: string
): Promise<string> =>
  new Promise((resolve, reject) => {
    const outgoing = request(url, { agent, method, headers })
    outgoing.on("error", reject)
    outgoing.on("response", (response) => {
      let text = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        text += chunk
      })
      response.on("end", () =>
        (response.statusCode ?? 500) < 300
          ? resolve(text)
          : reject(new Error(`${method} ${url}: ${response.statusCode} ${text}`))
      )
    })
    outgoing.end(body)
  })

/** Does something `count` times, `atOnce` at a time; answers how often in a second. */
export const inParallel = async (
  atOnce: number,
  count: number,
  each: (index: number) => Promise<unknown>
): Promise<number> => {
  let next = 0
  const start = performance.now()
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < count) await each(next++)
    })
  )
  return count / ((performance.now() - start) / 1_000)
}
