import { spawnSync } from "node:child_process"
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A file system of its own, so small that it can be filled, and as real as any. */
export interface SmallDisk {
  readonly folder: string
  /** Leaves not a byte free. */
  readonly fill: () => void
  readonly free: () => void
  readonly readOnly: (isReadOnly: boolean) => void
  readonly remove: () => void
}

const run = (command: string, ...args: ReadonlyArray<string>): boolean => spawnSync(command, args).status === 0

/** Needs the right to mount, which root in a container may lack: then there is none. */
export const smallDisk = (megabytes: number): SmallDisk | undefined => {
  const folder = mkdtempSync(join(tmpdir(), "dream-team-disk-"))
  if (process.platform !== "linux" || !run("mount", "-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", folder)) {
    rmSync(folder, { recursive: true, force: true })
    return undefined
  }
  const filler = join(folder, "filler")
  return {
    folder,
    fill: () => {
      const file = openSync(filler, "a")
      try {
        for (const size of [65_536, 4_096, 1]) {
          const block = Buffer.alloc(size, 1)
          try {
            while (writeSync(file, block) > 0);
          } catch {
            // Full, as far as pieces of this size go.
          }
        }
      } finally {
        closeSync(file)
      }
    },
    free: () => rmSync(filler),
    readOnly: (isReadOnly) => {
      if (!run("mount", "-o", `remount,${isReadOnly ? "ro" : "rw"}`, folder)) throw new Error("it cannot be remounted")
    },
    remove: () => {
      run("umount", "-l", folder)
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
