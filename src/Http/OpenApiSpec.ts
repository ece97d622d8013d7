type Json = Record<string, unknown>

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const decodeErrorRef = "#/components/schemas/HttpApiDecodeError"

const onlyOurErrors = (schema: unknown): unknown => {
  if (!isJson(schema) || !Array.isArray(schema.anyOf)) return schema
  const members = schema.anyOf.filter((member) => !isJson(member) || member.$ref !== decodeErrorRef)
  return members.length === 1 ? members[0] : { ...schema, anyOf: members }
}

const isOnlyDecodeError = (response: unknown): boolean => {
  const content = isJson(response) && isJson(response.content) ? response.content["application/json"] : undefined
  return isJson(content) && isJson(content.schema) && content.schema.$ref === decodeErrorRef
}

const mapValues = (record: Json, f: (value: unknown, key: string) => unknown): Json =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, f(value, key)]))

const completeResponse = (response: unknown): unknown =>
  isJson(response) && isJson(response.content)
    ? {
        ...response,
        content: mapValues(response.content, (media) =>
          isJson(media) ? { ...media, schema: onlyOurErrors(media.schema) } : media
        )
      }
    : response

const textHeader = (name: string, description: string) => ({ [name]: { description, schema: { type: "string" } } })

const retryAfter = textHeader("Retry-After", "Seconds until it is worth trying again, at least 1.")

/** Headers that come with every error of a status. */
const errorHeaders: Readonly<Record<string, Json>> = {
  401: textHeader("WWW-Authenticate", "`Bearer`."),
  429: retryAfter,
  503: retryAfter
}

const completeOperation = (operation: unknown): unknown =>
  isJson(operation) && isJson(operation.responses)
    ? {
        ...operation,
        responses: mapValues(
          Object.fromEntries(
            Object.entries(operation.responses).filter(([, response]) => !isOnlyDecodeError(response))
          ),
          (response, status) => {
            const complete = completeResponse(response)
            if (!isJson(complete)) return complete
            if (status === "400") {
              return { ...complete, description: "The request is not what this endpoint takes; each field is named." }
            }
            const headers = errorHeaders[status]
            return headers === undefined
              ? complete
              : { ...complete, headers: { ...Object(complete.headers), ...headers } }
          }
        )
      }
    : operation

const unusedSchemas = new Set(["HttpApiDecodeError", "Issue", "PropertyKey"])

/**
 * The generated description, put right where it differs from what goes over the wire: requests that cannot be decoded
 * answer in the shape of every other error, so the framework's own shape is taken out.
 */
export const completeSpec = (spec: Json): Json => {
  const components = isJson(spec.components) ? spec.components : {}
  const schemas = isJson(components.schemas) ? components.schemas : {}
  return {
    ...spec,
    paths: isJson(spec.paths)
      ? mapValues(spec.paths, (path) => (isJson(path) ? mapValues(path, completeOperation) : path))
      : {},
    components: {
      ...components,
      schemas: Object.fromEntries(Object.entries(schemas).filter(([name]) => !unusedSchemas.has(name)))
    }
  }
}
