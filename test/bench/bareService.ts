/**
 * What every figure is compared with: the least program that does the same I/O. It stores each submission in SQLite
 * before it answers, makes one streamed call for it, and stores the answer. No limits, no routing, no retries.
 */
import { Agent, createServer, request } from "node:http"
import Sqlite from "better-sqlite3"

const [port, database, upstream] = process.argv.slice(2)
if (port === undefined || database === undefined || upstream === undefined) throw new Error("port, database, upstream")

const sqlite = new Sqlite(database)
sqlite.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
sqlite.exec("CREATE TABLE tasks (id INTEGER PRIMARY KEY, body TEXT NOT NULL, state TEXT NOT NULL, result TEXT)")
const insert = sqlite.prepare("INSERT INTO tasks (body, state) VALUES (?, 'queued')")
const finish = sqlite.prepare("UPDATE tasks SET state = 'succeeded', result = ? WHERE id = ?")
const remaining = sqlite.prepare("SELECT count(*) AS left FROM tasks WHERE state = 'queued'").pluck()

const agent = new Agent({ keepAlive: true, maxSockets: 64 })

const call = (prompt: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const outgoing = request(`${upstream}/responses`, {
      agent,
      method: "POST",
      headers: { "content-type": "application/json", authorization: "Bearer simulated" }
    })
    outgoing.on("error", reject)
    outgoing.on("response", (response) => {
      let text = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        text += chunk
      })
      response.on("end", () => resolve(text))
    })
    outgoing.end(JSON.stringify({ model: "gpt-6.1-sol", input: prompt, stream: true, max_output_tokens: 64 }))
  })

const waiting: Array<{ readonly id: number | bigint; readonly prompt: string }> = []
let running = 0
const work = (): void => {
  while (running < 64) {
    const next = waiting.shift()
    if (next === undefined) return
    running++
    void call(next.prompt).then((text) => {
      finish.run(text, next.id)
      running--
      work()
    })
  }
}

createServer((incoming, outgoing) => {
  if (incoming.method === "GET") {
    outgoing.end(JSON.stringify({ left: incoming.url === "/left" ? remaining.get() : 0 }))
    return
  }
  let body = ""
  incoming.setEncoding("utf8")
  incoming.on("data", (chunk: string) => {
    body += chunk
  })
  incoming.on("end", () => {
    const { prompt, hold } = JSON.parse(body)
    const { lastInsertRowid } = insert.run(body)
    if (hold !== true) {
      waiting.push({ id: lastInsertRowid, prompt })
      work()
    }
    outgoing.writeHead(202, { "content-type": "application/json" })
    outgoing.end(JSON.stringify({ id: String(lastInsertRowid) }))
  })
}).listen(Number(port), "127.0.0.1")
