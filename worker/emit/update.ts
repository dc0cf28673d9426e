// The optimizer step, and the norm of all gradients that it needs.

import { gradientOf, meanOf, type Tensor, varianceOf } from '../model/tensors.ts'
import { BUFFER, statistics } from './buffers.ts'
import { type Emitter, gradients, localElements } from './emitter.ts'
import { allReduce } from './reduce.ts'

export function reduceStatistics(e: Emitter): void {
  if (!e.reduces) return
  allReduce(e, statistics(e.config), { group: 'world', label: 'statistics' })
}

/** Zeroes the gradients, and the statistics if micro-batches add to them. */
export function zeroGradients(e: Emitter): void {
  e.at({ unit: -1, phase: 'forward', part: 'other' })
  const outputs = [...gradients(e.tensors), ...(e.accumulate === 1 ? statistics(e.config) : [])]
  e.op('zero', { inputs: [], outputs, label: 'zero' })
}

/**
 * norm^2 = |dense|^2 + |experts|^2, where the experts are those of one expert-data-parallel
 * replica, summed over its EP group. Every rank gets the same number. Experts come first: their
 * squares need no dense bucket, which may still be on its way.
 */
export function gradientNorm(e: Emitter): void {
  squares(e, 'expert')
  if (e.config.kind !== 'Dense') allReduce(e, ['norm.expert'], { group: 'ep', label: 'norm' })
  squares(e, 'dense')
  e.op('global_norm', { inputs: ['norm.dense', 'norm.expert'], outputs: [BUFFER.norm], label: 'norm' })
}

function squares(e: Emitter, kind: Tensor['kind']): void {
  e.at({ unit: -1, phase: 'update', part: 'other' })
  const inputs = gradients(e.tensors.filter(tensor => tensor.kind === kind))
  const outputs = [e.transient(`norm.${kind}`, 1)]
  if (inputs.length === 0) e.op('zero', { inputs, outputs, label: `squares.${kind}` })
  else e.op('square_sum', { inputs, outputs, label: `squares.${kind}` })
}

/** AdamW on every tensor; only matrices decay. */
export function optimizerStep(e: Emitter): void {
  e.at({ unit: -1, phase: 'update', part: 'other' })
  for (const tensor of e.tensors) adamw(e, tensor)
}

function adamw(e: Emitter, tensor: Tensor): void {
  const { beta1, beta2, epsilon, weightDecay, clip } = e.config
  const { name, decay } = tensor
  e.op('adamw', {
    inputs: [gradientOf(name), BUFFER.hyper, BUFFER.norm],
    outputs: [name, meanOf(name), varianceOf(name)],
    attrs: {
      elements: localElements(tensor, e),
      beta1,
      beta2,
      epsilon,
      weightDecay: decay ? weightDecay : 0,
      clip,
    },
    label: `adamw.${name}`,
  })
}
