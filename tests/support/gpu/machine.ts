// The GPU of this machine with everything that a worker opens for it, or the one reason why these tests cannot run.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { inspectHardware } from '../../../worker/engine.ts'
import { build } from '../build.ts'

const root = join(import.meta.dirname, '../../..')
const run = (command: string, ...words: string[]) =>
  execFileSync(command, words, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()
const BUILT = join(root, 'build/cuda/libscmoe_cuda.so')

/**
 * Variables of a process that uses the GPU, or `missing`: what was looked for, what was found and what to do. Builds what is needed, but nothing
 * that takes minutes before a driver with a GPU was found.
 */
export function findGpu(): { environment: Record<string, string> } | { missing: string } {
  build('native', ['scmoe'])
  const { driver } = inspectHardware()
  if (driver.missing !== '') return { missing: driver.missing }
  build('native', ['cuda_device_test'])
  build('cuda', ['scmoe_cuda'], [`-DCUDA_ROOT=${run('bash', 'tools/cuda.sh')}`])
  // Ranks that share a GPU are hosts of their own to NCCL (tests/support/engine/ranks.ts), so they meet by a network: this one is everywhere.
  const network = { NCCL_SOCKET_IFNAME: process.env['NCCL_SOCKET_IFNAME'] ?? 'lo' }
  const installed = { SCMOE_CUDA_LIBRARY: BUILT, ...network }
  if (missingWith(installed) === '') return { environment: installed }
  const fetched = { ...installed, ...libraries() }
  const missing = missingWith(fetched)
  return missing === '' ? { environment: fetched } : { missing }
}

/** What this process cannot open with these variables; they stay set. */
function missingWith(environment: Record<string, string>): string {
  Object.assign(process.env, environment)
  const { library, nccl } = inspectHardware()
  return library.missing || nccl.missing
}

/** cuBLASLt and NCCL as the image has them. */
function libraries(): Record<string, string> {
  run('bash', 'tools/cuda-libraries.sh')
  const folder = join(root, 'build/cuda-libraries')
  return {
    SCMOE_CUBLASLT_LIBRARY: process.env['SCMOE_CUBLASLT_LIBRARY'] ?? join(folder, 'libcublasLt.so.13'),
    SCMOE_NCCL_LIBRARY: process.env['SCMOE_NCCL_LIBRARY'] ?? join(folder, 'libnccl.so.2'),
  }
}
