// What scmoe-run executes: worker/native/run/file.h on this side.

import type { Program } from '../../worker/program/program.ts'

/** What a persistent buffer holds before the first step. Random values follow from the seed and the place, counted from `first`. */
export type Fill = { buffer: string } & (
  | { kind: 'normal'; std: number; seed: number; first: number }
  | { kind: 'integers'; below: number; seed: number; first: number }
  | { kind: 'constant'; value: number }
  | { kind: 'values'; values: number[] }
)

export interface RunFile {
  title: string
  programs: Program[]
  /** Names of programs, in the order a step runs them. */
  step: string[]
  fills: Fill[]
  /** Floating-point buffers whose first element is reported after each step. */
  report: string[]
  /** Of ops by label: what of the layer they are. */
  parts: Record<string, string>
  /** Of this rank and a step. */
  tokens: number
  flops: number
}
