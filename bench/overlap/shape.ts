// The models of the overlap benchmark, the schedules to measure, and an upper bound of their speed.
// Pure.

import type { Emitted } from '../../worker/program/program.ts'
import type { Choice, Strategy, Wish } from '../../worker/schedule/schedule.ts'

export type Phase = 'train' | 'forward'

export const MODELS = {
  Top2: { kind: 'Top2' },
  Top1: { kind: 'Top1' },
  SharedExpert: { kind: 'SharedExpert' },
  'ScMoE Pos-1': { kind: 'ScMoE', shortcutPosition: 1 },
  'ScMoE Pos-2': { kind: 'ScMoE', shortcutPosition: 2 },
  'ScMoE Pos-3': { kind: 'ScMoE', shortcutPosition: 3 },
} as const
export type ModelName = keyof typeof MODELS
export const MODEL_NAMES = Object.keys(MODELS) as ModelName[]
/** The architecture that the paper proposes. */
export const PROPOSED: ModelName = 'ScMoE Pos-2'

/** A schedule to measure: a given one, or the one that is chosen from those the wish allows. */
export interface Row {
  model: ModelName
  strategy: Strategy
  slot: number | null
  chunks: number | null
  ask: { choice: Choice } | { wish: Wish }
}

export const BASELINE: Row = {
  model: 'Top2',
  strategy: 'Sequential',
  slot: null,
  chunks: null,
  ask: { choice: { strategy: 'Sequential' } },
}

/** `slots` are those of the proposed model's forward pass. */
export function rowsOf(slots: readonly number[]): Row[] {
  const none = { slot: null, chunks: null }
  const auto = (model: ModelName): Row => ({ model, strategy: 'Auto', ...none, ask: { wish: { strategy: 'Auto' } } })
  const pipelined = (chunks: number): Row => {
    const choice = { strategy: 'Pipelined', chunks } as const
    return { ...BASELINE, strategy: 'Pipelined', chunks, ask: { choice } }
  }
  const fixed = (slot: number): Row => {
    const choice = { strategy: 'Shortcut', forwardSlot: slot, backwardSlot: slot, chunks: 1 } as const
    return { model: PROPOSED, strategy: 'Shortcut', slot, chunks: 1, ask: { choice } }
  }
  const shortcut = (model: ModelName, chunks: number | null): Row => {
    const wish = { strategy: 'Shortcut', ...(chunks !== null && { chunks }) } as const
    return { model, strategy: 'Shortcut', slot: null, chunks, ask: { wish } }
  }
  return [
    BASELINE,
    ...[2, 4, 8].map(pipelined),
    { ...BASELINE, model: 'Top1' },
    { ...BASELINE, model: 'SharedExpert' },
    shortcut('SharedExpert', null),
    auto('ScMoE Pos-1'),
    auto(PROPOSED),
    auto('ScMoE Pos-3'),
    ...slots.map(fixed),
    shortcut(PROPOSED, 2),
  ]
}

const PRODUCT = /linear|attention|router/
const BRANCH = new Set(['gate', 'encode', 'experts', 'decode', 'wgrad'])

/** Floating-point operations of matrix products and attention: all, and those of the MoE branch. */
export function work(programs: readonly Emitted[]): { all: number; branch: number } {
  const sum = { all: 0, branch: 0 }
  for (const { op, queue, segment, cost } of programs.flatMap(({ ops }) => ops)) {
    if (queue !== 'compute' || !PRODUCT.test(op)) continue
    sum.all += cost
    if (BRANCH.has(segment.part)) sum.branch += cost
  }
  return sum
}

/**
 * The highest speed of a model over that of sequential Top2, if all its all-to-alls travel beside
 * computation and both compute at the same rate:
 *   (all of Top2 + share / (1 - share) * branch of Top2) / all of the model
 * `share` is that of communication in the MoE layer of Top2.
 */
export function flopBound(top2: { all: number; branch: number }, model: { all: number }, share: number): number {
  return (top2.all + (share / (1 - share)) * top2.branch) / model.all
}
