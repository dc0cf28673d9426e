// The file that bench/gpu/run.sh writes.

import { z } from 'zod'

const Op = z.object({
  label: z.string(),
  /** Microseconds since the start of the run; medians over steps. */
  start: z.number(),
  /** The arrival of the last rank at a collective; start of other ops. */
  ready: z.number(),
  end: z.number(),
})

const Measured = z.object({
  engine: z.string(),
  steps: z.number(),
  milliseconds: z.number(),
  tokensPerSecond: z.number(),
  transfers: z.number(),
  /** After each step, warm-up included. */
  reported: z.record(z.string(), z.array(z.number())),
  ops: z.array(Op),
  // These three belong to a run with emulated transfers.
  /** The share of the MoE layers' time that the transfers were to take. */
  transferShare: z.number().optional(),
  /** The time that each transfer was to take. */
  emulatedTransferMicroseconds: z.number().optional(),
  /** The time of the same step without transfers. */
  freeMilliseconds: z.number().optional(),
})
export type Measured = z.infer<typeof Measured>

const Checks = z.object({ outcome: z.enum(['passed', 'failed']), lines: z.number() })
const Killed = z.object({ exitCode: z.number(), message: z.string() })

const Row = z.object({
  case: z.string(),
  result: z.union([Measured, Checks, Killed]).optional(),
  error: z.string().optional(),
})

export const Results = z.object({ date: z.string(), device: z.string(), rows: z.array(Row) })
export type Results = z.infer<typeof Results>

/** The name of the device as nvidia-smi gives it; without nvidia-smi, the name of the engine. */
export const deviceOf = ({ device, rows }: Results): string =>
  device || (rows.flatMap(({ result }) => (result && 'engine' in result ? [result.engine] : []))[0] ?? 'no device')

const find = (results: Results, name: string) => results.rows.find(row => row.case === name)?.result

/** Undefined if the row is missing, has failed or is of another kind. */
export function measuredOf(results: Results, name: string): Measured | undefined {
  const found = find(results, name)
  return found && 'ops' in found ? found : undefined
}
export function checksOf(results: Results): z.infer<typeof Checks> | undefined {
  const found = find(results, 'ops')
  return found && 'outcome' in found ? found : undefined
}
export function killedOf(results: Results): z.infer<typeof Killed> | undefined {
  const found = find(results, 'rank-killed')
  return found && 'exitCode' in found ? found : undefined
}
