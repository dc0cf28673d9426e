import { defineConfig } from 'vitest/config'

// Five projects, from "needs nothing" to "needs a kubelet" and "needs a GPU". tools/test.ts runs them one after another and adds up the counts.
const project = (name: string, timeout: number, parallel: boolean, globalSetup: string[] = []) => ({
  test: {
    name,
    include: [`tests/${name}/**/*.test.ts`],
    testTimeout: timeout,
    hookTimeout: timeout,
    fileParallelism: parallel,
    globalSetup,
  },
})

export default defineConfig({
  test: {
    projects: [
      project('unit', 30_000, true),
      project('native', 120_000, false),
      project('api', 120_000, false, ['tests/api/prepare.ts']),
      project('cluster', 600_000, false),
      project('gpu', 120_000, false, ['tests/gpu/prepare.ts']),
    ],
  },
})
