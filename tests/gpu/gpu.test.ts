// The tests of a GPU on the GPU of this machine. They are skipped if there is none;
// tests/support/gpu/prepare.ts prints the reason.

import { describe, inject } from 'vitest'
import {
  claimCheckpoints,
  claimOps,
  claimPrecision,
  claimRanks,
  claimTraining,
  type Machine,
} from '../support/gpu/claims.ts'

const gpu = inject('gpu')

const machine = (): Machine => {
  if ('missing' in gpu) throw new Error(gpu.missing)
  return { environment: gpu.environment, tolerance: 1e-4, opsWords: [], graphs: true }
}

describe.skipIf('missing' in gpu)('on a GPU', () => {
  claimOps(machine)
  claimTraining(machine)
  claimPrecision(machine)
  claimRanks(machine)
  claimCheckpoints(machine, 1, 'float32')
  claimCheckpoints(machine, 1, 'bfloat16')
})
