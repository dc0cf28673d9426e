// Runs before the tests of the project: looks for the GPU, and prints the reason if there is none.

import type { TestProject } from 'vitest/node'
import { findGpu } from './machine.ts'

declare module 'vitest' {
  interface ProvidedContext {
    gpu: { environment: Record<string, string> } | { missing: string }
  }
}

export default function prepare({ provide }: TestProject): void {
  const gpu = findGpu()
  provide('gpu', gpu)
  if ('missing' in gpu) console.log(`gpu: all tests are skipped: ${gpu.missing}`)
}
