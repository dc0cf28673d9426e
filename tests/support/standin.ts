// Builds the stand-ins of a GPU's software (tests/native/standin) and gives the environment of a
// process that uses them.

import { join } from 'node:path'
import { build } from './build.ts'

const root = join(import.meta.dirname, '../..')
export const standIns = join(root, 'build/native/standin')

/**
 * Builds the stand-ins of a device library, a driver and NCCL, the addon, and other programs by
 * name. Cheap when nothing has changed.
 */
export function buildStandIns(...programs: string[]): void {
  build('native', ['standin', 'scmoe', ...programs])
}

/**
 * The environment in which the device library is the CUDA backend with its kernels emulated on the
 * host (tests/native/cuda/emulator).
 */
export function emulatedEnvironment(): Record<string, string> {
  buildStandIns('emulated_device')
  return standInEnvironment({ SCMOE_CUDA_LIBRARY: join(standIns, 'libscmoe_cuda_emulated.so') })
}

/** The environment in which a process finds the stand-ins instead of the real libraries. */
export const standInEnvironment = (settings: Record<string, string> = {}): Record<string, string> => ({
  LD_LIBRARY_PATH: standIns,
  SCMOE_CUDA_LIBRARY: join(standIns, 'libscmoe_cuda.so'),
  // Any library will do, because the stand-in for the device library calls no function of cuBLASLt.
  SCMOE_CUBLASLT_LIBRARY: join(standIns, 'libcuda.so.1'),
  ...settings,
})
