// The file that scmoe-run executes; worker/native/run/file.h reads it.

import type { Program } from '../../worker/program/program.ts'

/**
 * The initial values of a persistent buffer. A random value depends only on the seed and its place,
 * counted from `first`.
 */
export type Fill = { buffer: string } & (
  | { kind: 'normal'; std: number; seed: number; first: number }
  | { kind: 'integers'; below: number; seed: number; first: number }
  | { kind: 'constant'; value: number }
  | { kind: 'values'; values: number[] }
)

export interface RunFile {
  title: string
  programs: Program[]
  /** Names of programs, in the order in which a step runs them. */
  step: string[]
  fills: Fill[]
  /** Floating-point buffers whose first element is reported after each step. */
  report: string[]
  /** By label of an op: the part of the layer that it computes. */
  parts: Record<string, string>
  /** Tokens of this rank per step. */
  tokens: number
  /** Operations of this rank per step. */
  flops: number
}
