import * as HttpApi from "@effect/platform/HttpApi"
import { Api } from "../Api.js"

/** Paths served beside the API's own endpoints. */
export const openApiPath = "/openapi.json"
export const docsPath = "/docs"

interface Route {
  readonly method: string
  readonly segments: ReadonlyArray<string>
}

const segmentsOf = (path: string): ReadonlyArray<string> => path.split("/").filter((segment) => segment !== "")

const routes: ReadonlyArray<Route> = (() => {
  const found: Array<Route> = [
    { method: "GET", segments: segmentsOf(openApiPath) },
    { method: "GET", segments: segmentsOf(docsPath) }
  ]
  HttpApi.reflect(Api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint }) => {
      found.push({ method: endpoint.method, segments: segmentsOf(endpoint.path) })
    }
  })
  return found
})()

const matches = (route: Route, segments: ReadonlyArray<string>): boolean =>
  route.segments.length === segments.length &&
  route.segments.every((segment, index) => segment.startsWith(":") || segment === segments[index])

/** The methods a path has, `HEAD` where it has `GET`; none for a path that does not exist. */
export const allowedMethods = (path: string): ReadonlyArray<string> => {
  const segments = segmentsOf(path)
  const methods = new Set(routes.filter((route) => matches(route, segments)).map((route) => route.method))
  if (methods.has("GET")) methods.add("HEAD")
  return Array.from(methods).sort()
}
