// Builds the stand-ins of a GPU's software (this folder) and says how a process is started with them.

import { join } from 'node:path'
import { build } from './build.ts'

const root = join(import.meta.dirname, '../..')
export const standIns = join(root, 'build/native/standin')

/** A device made of threads, a driver and an NCCL that are none, and other programs by name. Built once; cheap when nothing changed. */
export function buildStandIns(...programs: string[]): void {
  build('native', ['standin', 'scmoe', ...programs])
}

/** The CUDA backend with its kernels emulated on the host (tests/native/cuda/emulator), as the device library. */
export function emulatedEnvironment(): Record<string, string> {
  buildStandIns('emulated_device')
  return standInEnvironment({ SCMOE_CUDA_LIBRARY: join(standIns, 'libscmoe_cuda_emulated.so') })
}

/** For a process that is to take the stand-ins for the real ones. */
export const standInEnvironment = (settings: Record<string, string> = {}): Record<string, string> => ({
  LD_LIBRARY_PATH: standIns,
  SCMOE_CUDA_LIBRARY: join(standIns, 'libscmoe_cuda.so'),
  SCMOE_CUBLASLT_LIBRARY: join(standIns, 'libcuda.so.1'), // the stand-in of the device library uses nothing of it
  ...settings,
})
