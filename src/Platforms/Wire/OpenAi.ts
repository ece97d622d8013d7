import { Either, Schema } from "effect"
import type { ImagePart } from "../../Domain/Call.js"
import { decodeJson, type Wire } from "../Wire.js"

/* What OpenAI's two wire formats, Responses and Chat Completions, have in common. */

export const authorization: Wire["authorization"] = (secret) => ({ authorization: `Bearer ${secret}` })

const decodeList = decodeJson(
  Schema.Struct({ data: Schema.Array(Schema.Struct({ id: Schema.String })) }),
  "the list of models"
)

export const decodeModels: Wire["decodeModels"] = (body) =>
  Either.map(decodeList(body), (list) => list.data.map((model) => model.id))

/** Where an image is: its own URL, or its data as one. */
export const imageUrl = ({ source }: typeof ImagePart.Type): string =>
  source.kind === "url" ? source.url : `data:${source.mediaType};base64,${source.data}`

/** Why a call with an image in the assistant's turns cannot be written. */
export const usersImagesOnly = "this platform takes images from the user only, not in the assistant's turns"
