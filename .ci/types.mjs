// Type-checks the project once, for TypeScript's own diagnostics and for Effect's. Any error or warning fails.
// `effect-language-service diagnostics` reports the same of Effect's, but analyses the project anew for every 50 files.
import effect from "@effect/language-service/transform.js"
import ts from "typescript"

const config = ts.getParsedCommandLineOfConfigFile(
  "tsconfig.json",
  {},
  {
    ...ts.sys,
    onUnRecoverableConfigFileDiagnostic: (diagnostic) => {
      throw new Error(ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n"))
    }
  }
)
const plugin = config.options.plugins.find(({ name }) => name === "@effect/language-service")
const program = ts.createProgram({
  rootNames: config.fileNames,
  options: config.options,
  configFileParsingDiagnostics: config.errors
})
const found = [...ts.getPreEmitDiagnostics(program)]
const examine = effect.default(program, plugin, { ts, addDiagnostic: (diagnostic) => found.push(diagnostic) })()
for (const file of config.fileNames) examine(program.getSourceFile(file))

const failures = found.filter(
  ({ category }) => category === ts.DiagnosticCategory.Error || category === ts.DiagnosticCategory.Warning
)
process.stdout.write(
  ts.formatDiagnostics(failures, {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: ts.sys.getCurrentDirectory,
    getNewLine: () => "\n"
  })
)
console.log(`Types of ${config.fileNames.length} files: ${failures.length} errors and warnings.`)
process.exitCode = failures.length > 0 ? 1 : 0
