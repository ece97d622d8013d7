import { once } from "node:events"
import { createServer, type Server } from "node:http"
import { Webhook } from "standardwebhooks"

/** What webhooks are signed with in these tests. */
export const secret = `whsec_${Buffer.from("a secret of at least 24 bytes").toString("base64")}`

/** Every so many messages is refused the first time it comes. */
const refusedFirst = 15

/** A message, however often it came. */
export interface Told {
  readonly type: string
  /** Of the task or job. */
  readonly of: string
}

/** A receiver of webhooks that knows a message by its `webhook-id`, as receivers are told to. */
export class Receiver {
  /** By `webhook-id`. */
  readonly told = new Map<string, Told>()
  /** Came again although they had been accepted. */
  repeated = 0
  /** Not signed as they should be, or different from what came under the same id before. */
  wrong = 0
  refuses = true
  private readonly refused = new Set<string>()
  private seen = 0
  private readonly server: Server

  private constructor() {
    this.server = createServer((request, response) => {
      let body = ""
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString()
      })
      request.on("error", () => undefined)
      request.on("end", () => {
        response.writeHead(this.receive(request.headers, body)).end()
      })
    })
  }

  static readonly start = async (): Promise<Receiver> => {
    const receiver = new Receiver()
    receiver.server.listen(0, "127.0.0.1")
    await once(receiver.server, "listening")
    return receiver
  }

  get url(): string {
    const address = this.server.address()
    return `http://127.0.0.1:${address !== null && typeof address === "object" ? address.port : 0}/hook`
  }

  readonly close = (): void => {
    this.server.close()
    this.server.closeAllConnections()
  }

  /** The status that answers it. */
  private readonly receive = (headers: NodeJS.Dict<string | Array<string>>, body: string): number => {
    const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) =>
      String(headers[`webhook-${name}`])
    )
    if (id === undefined || signatures === undefined) return 400
    // At the time that the sender says it is: its clock is set ahead and back.
    const signature = new Webhook(secret).sign(id, new Date(Number(timestamp) * 1_000), body)
    if (!signatures.split(" ").includes(signature)) {
      this.wrong += 1
      return 400
    }
    const parsed = Object(JSON.parse(body))
    const message: Told = { type: String(parsed.type), of: String(Object(parsed.data).id) }
    const before = this.told.get(id)
    if (before !== undefined) {
      if (before.type === message.type && before.of === message.of) this.repeated += 1
      else this.wrong += 1
      return 204
    }
    this.seen += 1
    if (this.refuses && this.seen % refusedFirst === 0 && !this.refused.has(id)) {
      this.refused.add(id)
      return 503
    }
    this.told.set(id, message)
    return 204
  }
}
