import { defineConfig } from 'vitest/config'

interface Project {
  name: string
  /** Milliseconds. */
  timeout: number
  /** Test files that run at once; as many as there are cores by default. */
  files?: number
  globalSetup?: string[]
}

/** The long form of a test (`npm run soak`) has so many times the time. */
const PATIENCE = process.env['SCMOE_SOAK'] ? 60 : 1

// Five projects, from tests that need nothing to tests that need a kubelet or a GPU. tools/test.ts
// runs them, some of them in parallel, and adds up the counts.
const PROJECTS: Project[] = [
  { name: 'unit', timeout: 60_000 },
  { name: 'native', timeout: 120_000, files: 1 },
  // These tests wait for servers and deadlines most of their time, not for processors.
  { name: 'api', timeout: 300_000, files: 3, globalSetup: ['tests/support/api/prepare.ts'] },
  { name: 'cluster', timeout: 600_000, files: 1 },
  { name: 'gpu', timeout: 120_000, files: 1, globalSetup: ['tests/support/gpu/prepare.ts'] },
]

export default defineConfig({
  test: {
    projects: PROJECTS.map(({ name, timeout, files, globalSetup = [] }, groupOrder) => ({
      test: {
        name,
        include: [`tests/${name}/**/*.test.ts`],
        testTimeout: timeout * PATIENCE,
        hookTimeout: timeout * PATIENCE,
        globalSetup,
        // Concurrent tests of a file all run at once.
        maxConcurrency: 50,
        ...(files === undefined ? {} : { maxWorkers: files }),
        sequence: { groupOrder },
      },
    })),
  },
})
