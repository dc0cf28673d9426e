// Before any test of the project: looks for the GPU once, and says once why there is none.

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
  if ('missing' in gpu) console.log(`gpu: skipped, all of it: ${gpu.missing}`)
}
