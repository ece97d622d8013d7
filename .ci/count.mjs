// Adds up the vitest JSON reports in a folder and prints `N passed, N failed`.
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const folder = process.argv[2]
let passed = 0
let failed = 0
for (const file of readdirSync(folder)) {
  for (const suite of JSON.parse(readFileSync(join(folder, file), "utf8")).testResults) {
    const outcomes = suite.assertionResults.map(({ status }) => status)
    passed += outcomes.filter((status) => status === "passed").length
    const failures = outcomes.filter((status) => status === "failed").length
    // A file that could not be loaded has no tests of its own to fail.
    failed += suite.status === "failed" ? Math.max(failures, 1) : failures
  }
}
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
