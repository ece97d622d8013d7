import { defineConfig } from "vitest/config"

/** The package as a stranger gets it: packed, installed elsewhere (which compiles SQLite), used. Takes minutes. */
export default defineConfig({
  test: {
    include: ["test/packed/*.packed.ts"],
    testTimeout: 120_000,
    hookTimeout: 600_000,
    pool: "forks"
  }
})
