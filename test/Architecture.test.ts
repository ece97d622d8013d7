import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import ts from "typescript"
import { describe, expect, it } from "vitest"

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "src")

/** Each room and its floor: a room imports from its own floor and those below. */
const floors: Readonly<Record<string, number>> = {
  Domain: 0,
  Feed: 1,
  Settings: 1,
  Sql: 1,
  Telemetry: 1,
  Transcript: 1,
  Benchmark: 2,
  ClaudeCode: 2,
  Events: 2,
  Platforms: 2,
  SessionStore: 2,
  TaskStore: 2,
  AgentRouter: 3,
  Budgets: 3,
  PlatformDetector: 3,
  ResourceManager: 3,
  Delegation: 4,
  TaskValidator: 4,
  CCRWatcher: 5,
  Coordinator: 5,
  Gateway: 5,
  Webhooks: 5,
  Api: 6,
  Cli: 6,
  Client: 6,
  feed: 6,
  Http: 6,
  Simulator: 6,
  Team: 6,
  Testing: 6,
  index: 6,
  main: 6
}
const doors = 6

interface Import {
  readonly specifier: string
  /** The imported file relative to src, or undefined for a package. */
  readonly target: string | undefined
  readonly typeOnly: boolean
}

interface Module {
  readonly path: string
  readonly source: ts.SourceFile
  readonly imports: ReadonlyArray<Import>
}

const isTypeOnly = (clause: ts.ImportClause | undefined): boolean =>
  clause !== undefined &&
  (clause.isTypeOnly ||
    (clause.name === undefined &&
      clause.namedBindings !== undefined &&
      ts.isNamedImports(clause.namedBindings) &&
      clause.namedBindings.elements.length > 0 &&
      clause.namedBindings.elements.every((element) => element.isTypeOnly)))

const parse = (file: string): Module => {
  const path = relative(root, file)
  const source = ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.ES2022, true)
  const imports: Array<Import> = []
  const add = (specifier: ts.Node | undefined, typeOnly: boolean): void => {
    if (specifier === undefined || !ts.isStringLiteral(specifier)) return
    const target = specifier.text.startsWith(".")
      ? relative(root, join(dirname(file), specifier.text)).replace(/\.js$/, ".ts")
      : undefined
    imports.push({ specifier: specifier.text, target, typeOnly })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypeOnly(node.importClause))
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly)
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return { path, source, imports }
}

const modules = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => parse(join(root, path)))

const roomOf = (path: string): string => path.split("/")[0]?.replace(/\.ts$/, "") ?? path

/** `X/Api.ts` and `X/Http.ts` are the doors of concern X. */
const floorOf = (path: string): number =>
  /\/(Api|Http)\.ts$/.test(path) ? doors : (floors[roomOf(path)] ?? Number.NaN)

/** The first circle found in a graph, as the way round it. */
const circle = (edges: ReadonlyMap<string, ReadonlySet<string>>): ReadonlyArray<string> | undefined => {
  const done = new Set<string>()
  const walk = (node: string, way: ReadonlyArray<string>): ReadonlyArray<string> | undefined => {
    if (way.includes(node)) return [...way.slice(way.indexOf(node)), node]
    if (done.has(node)) return undefined
    for (const next of edges.get(node) ?? []) {
      const found = walk(next, [...way, node])
      if (found !== undefined) return found
    }
    done.add(node)
    return undefined
  }
  for (const node of edges.keys()) {
    const found = walk(node, [])
    if (found !== undefined) return found
  }
  return undefined
}

const graph = (pairs: ReadonlyArray<readonly [string, string]>): ReadonlyMap<string, ReadonlySet<string>> => {
  const edges = new Map<string, Set<string>>()
  for (const [from, to] of pairs) edges.set(from, (edges.get(from) ?? new Set()).add(to))
  return edges
}

const internal = modules.flatMap((module) =>
  module.imports.flatMap(({ target, typeOnly }) =>
    target?.endsWith(".ts") === true && !target.startsWith("..") ? [{ from: module.path, to: target, typeOnly }] : []
  )
)

describe("the house", () => {
  it("gives every room a floor", () => {
    expect(modules.map(({ path }) => path).filter((path) => Number.isNaN(floorOf(path)))).toEqual([])
  })

  it("imports only what exists", () => {
    const paths = new Set(modules.map(({ path }) => path))
    expect(internal.filter(({ to }) => !paths.has(to))).toEqual([])
  })

  it("imports lower floors, or its own", () => {
    const upward = internal
      .filter(({ from, to }) => floorOf(to) > floorOf(from))
      .map(({ from, to }) => `${from} -> ${to}`)
    expect(upward).toEqual([])
  })

  it("has no circle of modules", () => {
    expect(
      circle(graph(internal.filter(({ typeOnly }) => !typeOnly).map(({ from, to }) => [from, to])))
    ).toBeUndefined()
  })

  it("has no circle of rooms below the doors, not even of types", () => {
    const rooms = internal
      .filter(({ from, to }) => floorOf(from) < doors && floorOf(to) < doors)
      .map(({ from, to }): readonly [string, string] => [roomOf(from), roomOf(to)])
      .filter(([from, to]) => from !== to)
    expect(circle(graph(rooms))).toBeUndefined()
  })

  it("keeps what a client loads light: the domain, the endpoints' descriptions and @effect/platform", () => {
    const byPath = new Map(modules.map((module) => [module.path, module]))
    const reached = new Set<string>()
    const heavy: Array<string> = []
    const visit = (path: string): void => {
      if (reached.has(path)) return
      reached.add(path)
      for (const { specifier, target } of byPath.get(path)?.imports ?? []) {
        const light =
          target === undefined
            ? /^(effect|@effect\/platform)(\/|$)/.test(specifier)
            : /^(Client|Domain|Http)\/|(^|\/)Api\.ts$/.test(target)
        if (!light) heavy.push(`${path} -> ${specifier}`)
        else if (target !== undefined) visit(target)
      }
    }
    visit("Client.ts")
    visit("Api.ts")
    expect(heavy).toEqual([])
  })

  it("lets the simulator know the domain only, so that it tests the wire from the other side", () => {
    const known = internal
      .filter(({ from, to }) => roomOf(from) === "Simulator" && !["Simulator", "Domain"].includes(roomOf(to)))
      .map(({ from, to }) => `${from} -> ${to}`)
    expect(known).toEqual([])
  })

  it("has no barrel but index.ts", () => {
    const barrels = modules.filter(
      ({ path, source }) =>
        path !== "index.ts" &&
        source.statements.length > 0 &&
        source.statements.every((statement) => ts.isExportDeclaration(statement) || ts.isImportDeclaration(statement))
    )
    expect(barrels.map(({ path }) => path)).toEqual([])
  })

  it("reads clock and chance from their services and runs effects at the process's edge only", () => {
    const edge = new Set(["main.ts", "feed.ts", "Cli/Process.ts"])
    const banned = /^(Date\.now|Math\.random|setTimeout|setInterval|Effect\.run(Promise|Sync|Fork|Callback)(Exit)?)$/
    const found: Array<string> = []
    for (const { path, source } of modules) {
      if (edge.has(path)) continue
      const at = (node: ts.Node): string => `${path}:${source.getLineAndCharacterOfPosition(node.getStart()).line + 1}`
      const visit = (node: ts.Node): void => {
        if (ts.isCallExpression(node) && banned.test(node.expression.getText())) {
          found.push(`${at(node)} ${node.expression.getText()}`)
        }
        if (ts.isNewExpression(node) && node.expression.getText() === "Date" && (node.arguments ?? []).length === 0) {
          found.push(`${at(node)} new Date()`)
        }
        if (ts.isAsExpression(node) && node.type.getText() !== "const")
          found.push(`${at(node)} as ${node.type.getText()}`)
        ts.forEachChild(node, visit)
      }
      visit(source)
    }
    expect(found).toEqual([])
  })
})
