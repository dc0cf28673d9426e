// Finds the GPU of this machine and the libraries that a worker opens for it, or the reason why the
// tests of a GPU cannot run.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { inspectHardware } from '../../../worker/engine.ts'
import { build } from '../build.ts'

const root = join(import.meta.dirname, '../../..')
const run = (command: string, ...words: string[]) =>
  execFileSync(command, words, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()
const BUILT = join(root, 'build/cuda/libscmoe_cuda.so')

/**
 * The environment of a process that uses the GPU, or `missing`, which says what was looked for,
 * what was found and what to do. Builds what is needed; builds that take minutes come after a
 * driver with a GPU was found.
 */
export function findGpu(): { environment: Record<string, string> } | { missing: string } {
  build('native', ['scmoe'])
  const { driver } = inspectHardware()
  if (driver.missing !== '') return { missing: driver.missing }
  build('native', ['cuda_device_test'])
  build('cuda', ['scmoe_cuda'], [`-DCUDA_ROOT=${run('bash', 'tools/cuda.sh')}`])
  // NCCL takes ranks that share a GPU for different hosts (tests/support/engine/ranks.ts), so they
  // connect by a network. Every machine has the loopback network.
  const network = { NCCL_SOCKET_IFNAME: process.env['NCCL_SOCKET_IFNAME'] ?? 'lo' }
  const installed = { SCMOE_CUDA_LIBRARY: BUILT, ...network }
  if (missingWith(installed) === '') return { environment: installed }
  const fetched = { ...installed, ...libraries() }
  const missing = missingWith(fetched)
  return missing === '' ? { environment: fetched } : { missing }
}

/**
 * The reason why this process cannot open the libraries with these variables, or ''. The variables
 * stay set.
 */
function missingWith(environment: Record<string, string>): string {
  Object.assign(process.env, environment)
  const { library, nccl } = inspectHardware()
  return library.missing || nccl.missing
}

/** The environment with cuBLASLt and NCCL of the versions that the image has. */
function libraries(): Record<string, string> {
  run('bash', 'tools/cuda-libraries.sh')
  const folder = join(root, 'build/cuda-libraries')
  return {
    SCMOE_CUBLASLT_LIBRARY: process.env['SCMOE_CUBLASLT_LIBRARY'] ?? join(folder, 'libcublasLt.so.13'),
    SCMOE_NCCL_LIBRARY: process.env['SCMOE_NCCL_LIBRARY'] ?? join(folder, 'libnccl.so.2'),
  }
}
