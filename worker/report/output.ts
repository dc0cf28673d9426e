// Writing into the output folder of a run.

import { errnoText, WorkerFailure } from '../failure.ts'

/** Runs `act`, which writes `path`. Throws a `checkpoint` failure that names it. */
export function writing(path: string, act: () => void): void {
  try {
    act()
  } catch (error) {
    throw new WorkerFailure(
      'checkpoint',
      `${path} cannot be written: ${errnoText(error)}. Check the output folder's free space and permissions.`,
    )
  }
}
