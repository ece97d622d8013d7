import { Either } from "effect"
import { parseJson } from "./Body.js"

/** A call that a platform admitted. */
export interface RecordedRequest {
  readonly platform: string
  readonly model: string
  /** Epoch ms. */
  readonly at: number
  /** As it was sent. */
  readonly body: unknown
}

interface Kept extends Omit<RecordedRequest, "body"> {
  readonly text: string
}

/** The newest calls, as many as it is told to keep, and no more than fits into 64 MB. */
export class Recorder {
  private readonly most: number
  private kept: Array<Kept> = []
  private characters = 0

  constructor(most: number) {
    this.most = most
  }

  add(request: Kept): void {
    if (this.most === 0) return
    this.kept.push(request)
    this.characters += request.text.length
    while (this.kept.length > this.most || this.characters > maxCharacters) {
      this.characters -= this.kept.shift()?.text.length ?? 0
    }
  }

  /** Oldest first. */
  list(platform: string | undefined): ReadonlyArray<RecordedRequest> {
    return this.kept
      .filter((kept) => platform === undefined || kept.platform === platform)
      .map(({ text, ...rest }) => ({ ...rest, body: Either.getOrElse(parseJson(text), () => text) }))
  }
}

const maxCharacters = 32 * 1024 * 1024
