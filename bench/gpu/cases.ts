// The programs that a GPU is measured with: steps of models as jobs describe them, and the routed
// part of a layer at published sizes. Pure.

import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { BUFFER, emitTrain } from '../../worker/emit/emit.ts'
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'
import { meanOf, sliceOf, tensors, varianceOf } from '../../worker/model/tensors.ts'
import type { Buffer, Emitted, Op, Scheduled } from '../../worker/program/program.ts'
import { assemble, type Choice, choices, describe, schedule } from '../../worker/schedule/schedule.ts'
import { workOf } from '../world/peak.ts'
import type { Fill, RunFile } from './run-file.ts'

const SEED = 1
const LEARNING_RATE = 3e-4

export interface Sizes {
  model: object
  sequence: number
  /** Sequences per step, over all ranks. */
  sequences: number
  ranks?: number
  precision?: Precision
}
export type Precision = ModelConfig['precision']

export function configOf({ model, sequence, sequences, ranks = 1, precision = 'float32' }: Sizes): ModelConfig {
  const spec = ScMoEJobSpec.parse({
    model,
    training: { steps: 1, sequenceLength: sequence, globalBatchSequences: sequences, precision },
    workers: { replicas: ranks },
  })
  return modelConfig(spec, ranks)
}

/** The paper's model (arXiv 2404.05019, table 8). */
export const SMALL: Sizes = { model: { preset: 'gpt2-moe-small', kind: 'ScMoE' }, sequence: 1024, sequences: 8 }
/** A wider model, as deep as 80 GB allow in float32 with AdamW's moments. */
export const WIDE: Sizes = {
  model: { preset: 'gpt3-moe-xl', blocks: 4, kind: 'ScMoE' },
  sequence: 2048,
  sequences: 4,
}
/** A tiny model. Its capacity is large enough that no token is dropped, on any number of ranks. */
export const TINY: Sizes = {
  model: { preset: 'tiny', kind: 'ScMoE', capacityFactor: '8' },
  sequence: 128,
  sequences: 4,
}
/**
 * Two pairs of blocks that are wide enough for every op to keep the device busy. They compute in
 * bfloat16, because the speed of computation decides how much of a transfer is hidden.
 */
export const OVERLAP: Sizes = {
  model: { kind: 'ScMoE', blocks: 4, hiddenSize: 1024, heads: 16, feedForwardSize: 4096, experts: 8 },
  sequence: 1024,
  sequences: 8,
  precision: 'bfloat16',
}

/**
 * The initial values of all persistent buffers. A parameter depends on the seed and the tensor's
 * place in the model, so it is the same on every rank that holds it.
 */
function fillsOf(config: ModelConfig, rank: number): Fill[] {
  const parameters = tensors(config).flatMap((tensor, index): Fill[] => {
    const { init } = tensor
    // A rank holds the experts from its first one on, and all of a dense tensor.
    const { start: first } = sliceOf(tensor, config, rank)
    const values: Fill =
      init.kind === 'normal'
        ? { buffer: tensor.name, kind: 'normal', std: init.std, seed: SEED + 1000 * index, first }
        : { buffer: tensor.name, kind: 'constant', value: init.kind === 'ones' ? 1 : 0 }
    return [
      values,
      { buffer: meanOf(tensor.name), kind: 'constant', value: 0 },
      { buffer: varianceOf(tensor.name), kind: 'constant', value: 0 },
    ]
  })
  // The tokens are the same in every step, so the loss falls.
  const tokens: Fill = {
    buffer: BUFFER.tokens,
    kind: 'integers',
    below: config.vocabulary,
    seed: SEED,
    first: rank * config.batch * (config.sequence + 1),
  }
  // The bias corrections of Adam's first step are kept in all steps. They only scale the step,
  // which does not change what is measured.
  const hyper: Fill = {
    buffer: BUFFER.hyper,
    kind: 'values',
    values: [LEARNING_RATE, 1 - config.beta1, 1 - config.beta2, 0],
  }
  return [...parameters, tokens, hyper]
}

/** A file for scmoe-run, and the program that its times belong to. */
export interface Case {
  file: RunFile
  precision: Precision
  emitted: Emitted
  scheduled: Scheduled
}

/** An optimizer step of one rank under one schedule. */
export function stepCase(title: string, sizes: Sizes, choice: Choice, rank = 0): Case {
  const config = configOf(sizes)
  const emitted = emitTrain(config, rank)
  const scheduled = schedule(emitted, choice)
  const file: RunFile = {
    title: `${title}, ${config.precision}, ${describe(choice)}`,
    programs: [assemble(scheduled, config, rank)],
    step: [emitted.name],
    fills: fillsOf(config, rank),
    report: [BUFFER.loss, BUFFER.norm],
    parts: partsOf(scheduled),
    tokens: config.batch * config.sequence,
    flops: workOf([emitted]),
  }
  return { file, precision: config.precision, emitted, scheduled }
}

const partsOf = ({ ops }: Scheduled) => Object.fromEntries(ops.map(({ label, segment }) => [label, segment.part]))

/**
 * The sequential schedule, and the shortcut with the experts in every slot of the forward pass. The
 * slot of the backward pass mirrors it if there is such a slot.
 */
export function schedulesOf(sizes: Sizes): Choice[] {
  const all = choices(emitTrain(configOf(sizes), 0), { strategy: 'Auto' })
  const slots = new Map<number, Choice>()
  for (const choice of all)
    if (choice.strategy === 'Shortcut' && choice.chunks === 1) {
      const known = slots.get(choice.forwardSlot)
      if (known === undefined || (known.strategy === 'Shortcut' && choice.backwardSlot === choice.forwardSlot))
        slots.set(choice.forwardSlot, choice)
    }
  return [{ strategy: 'Sequential' }, ...slots.values()]
}

export interface Layer {
  /** Routed rows of this rank, spread evenly over its experts. */
  rows: number
  experts: number
  hidden: number
  feedForward: number
  precision?: Precision
}
/**
 * The local rows of one rank in Megatron-Core's published measurements on H100 with eight
 * expert-parallel ranks.
 */
export const LAYERS: readonly Layer[] = [
  { rows: 8192, experts: 1, hidden: 4096, feedForward: 14_336, precision: 'bfloat16' },
  { rows: 32_768, experts: 4, hidden: 7168, feedForward: 2048, precision: 'bfloat16' },
]

/**
 * The routed experts of a layer with SwiGLU, on rows that have arrived: forward, or forward and
 * backward. In bfloat16 the weights are bfloat16 too.
 */
export function layerCase(layer: Layer, backward: boolean): Case {
  const { rows, experts, hidden, feedForward, precision = 'float32' } = layer
  const emitted = emitLayer(layer, backward)
  const config = { worldSize: 1, expertParallelSize: 1 }
  const normal = (buffer: string, std: number, seed: number): Fill => ({ buffer, kind: 'normal', std, seed, first: 0 })
  const scheduled: Scheduled = { ...emitted, ops: emitted.ops.map(op => ({ ...op, waits: [] })) }
  const file: RunFile = {
    title: `MoE layer ${rows} x ${experts}, h ${hidden}, f ${feedForward}, ${precision}, ${backward ? 'forward and backward' : 'forward'}`,
    programs: [assemble(scheduled, config, 0)],
    step: [emitted.name],
    fills: [
      normal('x', 1, 1),
      normal('up', 0.02, 2),
      normal('down', 0.02, 3),
      ...(backward ? [normal('dy', 1, 4)] : []),
      { buffer: 'counts', kind: 'constant', value: rows / experts },
    ],
    report: ['y'],
    parts: partsOf(scheduled),
    tokens: rows,
    flops: workOf([emitted]),
  }
  return { file, precision, emitted, scheduled }
}

/** The operations of a matrix product; 0 for other ops. */
const costOf = (name: Op['op'], rows: number, { in: depth, out }: Op['attrs']) =>
  name.startsWith('grouped_linear') ? 2 * rows * Number(depth) * Number(out) : 0

function emitLayer({ rows, experts, hidden, feedForward, precision }: Layer, backward: boolean): Emitted {
  const group = { experts, capacity: rows, rank: 0, expertParallelSize: 1 }
  const up = { in: hidden, out: 2 * feedForward, ...group }
  const down = { in: feedForward, out: hidden, ...group }
  const op = (name: Op['op'], inputs: string[], outputs: string[], attrs: Op['attrs']): Op => ({
    op: name,
    label: `${name}.${outputs[0]}`,
    queue: 'compute',
    inputs,
    outputs,
    attrs,
    segment: { unit: 0, phase: 'forward', part: 'experts' },
    cost: costOf(name, rows, attrs),
  })
  const activation = { rows, dim: feedForward, ...group }
  const forward = [
    op('grouped_linear', ['x', 'up', 'counts'], ['gates'], up),
    op('swiglu', ['gates', 'counts'], ['inner'], activation),
    op('grouped_linear', ['inner', 'down', 'counts'], ['y'], down),
  ]
  const gradients = [
    op('zero', [], ['dup', 'ddown'], {}),
    op('grouped_linear_dgrad', ['dy', 'down', 'counts'], ['dinner'], down),
    op('grouped_linear_wgrad', ['dy', 'inner', 'counts'], ['ddown'], down),
    op('swiglu_backward', ['dinner', 'gates', 'counts'], ['dgates'], activation),
    op('grouped_linear_dgrad', ['dgates', 'up', 'counts'], ['dx'], up),
    op('grouped_linear_wgrad', ['dgates', 'x', 'counts'], ['dup'], up),
  ]
  const sizes = {
    x: rows * hidden,
    up: experts * 2 * feedForward * hidden,
    down: experts * feedForward * hidden,
    gates: rows * 2 * feedForward,
    inner: rows * feedForward,
    y: rows * hidden,
    ...(backward && {
      dy: rows * hidden,
      dx: rows * hidden,
      dup: experts * 2 * feedForward * hidden,
      ddown: experts * feedForward * hidden,
      dgates: rows * 2 * feedForward,
      dinner: rows * feedForward,
    }),
  }
  const activations = precision === 'bfloat16' ? 'bf16' : 'f32'
  const floats = Object.entries(sizes).map(([name, elements]): Buffer => {
    const isGradientOfWeight = name === 'dup' || name === 'ddown'
    return { name, dtype: isGradientOfWeight ? 'f32' : activations, elements, arena: 'persistent' }
  })
  return {
    name: 'layer',
    buffers: [...floats, { name: 'counts', dtype: 'i32', elements: experts, arena: 'persistent' }],
    ops: backward ? [...forward, ...gradients] : forward,
  }
}
