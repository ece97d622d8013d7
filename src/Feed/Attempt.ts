import { closeSync, fstatSync, openSync, readSync } from "node:fs"

/** The last bytes of a file; empty where it cannot be read. */
export const endOf = (file: string, bytes: number): string =>
  attempted(() => {
    const opened = openSync(file, "r")
    try {
      const { size } = fstatSync(opened)
      const buffer = Buffer.alloc(Math.min(size, bytes))
      return buffer.toString("utf8", 0, readSync(opened, buffer, 0, buffer.length, size - buffer.length))
    } finally {
      closeSync(opened)
    }
  }) ?? ""

/** What it gives; undefined where it throws. */
export const attempted = <A>(act: () => A): A | undefined => {
  try {
    return act()
  } catch {
    return undefined
  }
}
