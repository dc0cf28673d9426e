// Tells the user, once, what a valid spec would probably not do as meant: a condition and an event.

import type { ScMoEJobStatus } from '../../../crds/status.ts'
import { warningsOf } from '../../../crds/warnings.ts'
import type { Job } from '../../objects/wire.ts'
import { clip } from '../../objects/wire.ts'
import type { Note } from '../decision.ts'
import { readSpec } from '../view.ts'

type Doubt = { type: 'Doubtful'; status: 'True' | 'False'; reason: string; message: string }

/** The condition Doubtful. None for a job that never had a warning. */
export function doubtOf(job: Job, { conditions = [] }: ScMoEJobStatus): Doubt[] {
  const reading = readSpec(job)
  const warnings = 'spec' in reading ? warningsOf(reading.spec) : []
  const message = clip(warnings.map(each => each.message).join('. '))
  if (warnings.length > 0) return [{ type: 'Doubtful', status: 'True', reason: 'SpecWarnings', message }]
  const isKnown = conditions.some(({ type }) => type === 'Doubtful')
  return isKnown ? [{ type: 'Doubtful', status: 'False', reason: 'NoWarnings', message: '' }] : []
}

/** The event, when the status gets a warning that it did not have. */
export function doubtNote(job: Job, before: ScMoEJobStatus): Note | undefined {
  const [doubt] = doubtOf(job, before)
  const said = before.conditions?.find(({ type }) => type === 'Doubtful')
  if (doubt?.status !== 'True' || (said?.status === 'True' && said.message === doubt.message)) return undefined
  return { type: 'Warning', reason: doubt.reason, action: 'Read', note: doubt.message }
}
