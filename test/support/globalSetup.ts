import { rmSync } from "node:fs"
import { buildBin } from "../../esbuild.config.js"

/** Bundles the program once, for the tests that run it as a process of its own. Runs side by side have one each. */
export default async (): Promise<() => void> => {
  process.env.TEST_RUN_ID = String(process.pid)
  const folder = `node_modules/.cache/dream-team-test/${process.pid}`
  const clean = () => rmSync(folder, { recursive: true, force: true })
  try {
    await buildBin(folder)
  } catch {
    // esbuild has told what is wrong; the tests that need the program fail, the others run.
    clean()
  }
  return clean
}
