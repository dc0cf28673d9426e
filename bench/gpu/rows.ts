// The rows of the results, each with the case that was measured. Pure.

import type { Spans } from '../../worker/schedule/schedule.ts'
import type { Case } from './cases.ts'
import { type Measured, measuredOf, type Results } from './results.ts'

export type Cases = ReadonlyMap<string, Case>

/** A row with its case and the times of the case's ops. */
export interface Found {
  measured: Measured
  subject: Case
  spans: Spans
}

/**
 * The row of a case; `way` is the suffix of the row's name. Undefined if the row is missing. Throws
 * if it was measured with another version's programs.
 */
export function found(results: Results, cases: Cases, name: string, way = ''): Found | undefined {
  const measured = measuredOf(results, name + way)
  const subject = cases.get(name)
  if (!measured || !subject) return undefined
  const { ops } = subject.scheduled
  const other = ops.findIndex(({ label }, i) => measured.ops[i]?.label !== label)
  if (other >= 0 || measured.ops.length !== ops.length)
    throw new Error(
      `row ${name}${way}: op ${Math.max(other, 0)} is '${measured.ops[other]?.label}', the case has '${ops[other]?.label}'; evaluate with the version that wrote the programs`,
    )
  const of = (time: (op: Measured['ops'][number]) => number) => Float64Array.from(measured.ops, time)
  const spans = { start: of(op => op.start), end: of(op => op.end), ready: of(op => op.ready) }
  return { measured, subject, spans }
}
