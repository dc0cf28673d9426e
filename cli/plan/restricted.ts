// The words of scmoe plan about a job that some operators refuse.

import { privileges } from '../../crds/privileges.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'

/** A paragraph for a job that an operator with --restrict-templates refuses, otherwise nothing. */
export function restricted(spec: ScMoEJobSpec): string[] {
  const found = privileges(spec)
  if (found.length === 0) return []
  return [['An operator with --restrict-templates refuses', ...found.map(each => `  ${each}`)].join('\n')]
}
