import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** These take longest, in this order: begun last, one of them would leave a worker without work at the end. */
const slowest = [
  "test/chaos/kills.test.ts",
  "test/ResourceManager/Invariants.test.ts",
  "test/Testing/mixedLoad.test.ts",
  "test/ResourceManager/Served.test.ts",
  "test/CCRWatcher/RealPrograms.test.ts",
  "test/Cli/Service.test.ts",
  "test/ResourceManager/Killed.test.ts"
]

class SlowestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const rank = ({ moduleId }: TestSpecification) => {
      const index = slowest.findIndex((file) => moduleId.endsWith(file))
      return index === -1 ? slowest.length : index
    }
    return (await super.sort(files)).sort((one, other) => rank(one) - rank(other))
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    setupFiles: ["test/support/setup.ts"],
    // To import Effect anew for each file takes longer than most files' tests.
    isolate: false,
    sequence: { sequencer: SlowestFirst },
    testTimeout: 60_000,
    // As many from the start on: Vitest fails when it ends one of more than the least that has no more to do.
    minWorkers: 2,
    maxWorkers: 2
  }
})
