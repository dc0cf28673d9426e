// The ops outside all units: the embedding before them, and final norm, head and loss after them.

import { gradientOf } from '../model/tensors.ts'
import { BUFFER } from './buffers.ts'
import type { Emitter } from './emitter.ts'
import { linear, linearBackward, norm, normBackward, RESIDUAL } from './layers.ts'

const OUTSIDE = { unit: -1, part: 'other' } as const
const shape = ({ config: { batch, sequence, dim, vocabulary } }: Emitter) => ({ batch, sequence, dim, vocabulary })

const tables = ({ config }: Emitter) => (config.positions === 'Learned' ? ['wte', 'wpe'] : ['wte'])

/** x[n] = wte[token] (+ wpe[t]); [N, d]. */
export function embedding(e: Emitter): string {
  e.at({ ...OUTSIDE, phase: 'forward' })
  const x = e.transient('embedding.x', e.tokens * e.config.dim)
  e.op('embedding', { inputs: [BUFFER.tokens, ...tables(e)], outputs: [x], attrs: shape(e), label: 'embedding' })
  return x
}

export function embeddingBackward(e: Emitter): void {
  e.at({ ...OUTSIDE, phase: 'backward' })
  const outputs = tables(e).map(gradientOf)
  e.op('embedding_backward', { inputs: [BUFFER.tokens, RESIDUAL], outputs, attrs: shape(e), label: 'embedding' })
}

/**
 * The mean cross entropy over all tokens of the step. With `gradient`, the gradient of the logits
 * replaces them.
 */
export function head(e: Emitter, x: string, gradient: boolean): void {
  const { batch, sequence, vocabulary, worldSize } = e.config
  const scale = 1 / (worldSize * e.tokens * e.microBatches)
  e.at({ ...OUTSIDE, phase: 'forward' })
  const logits = linear(e, 'head', norm(e, 'norm', x))
  e.op('cross_entropy', {
    inputs: [logits, BUFFER.tokens],
    outputs: gradient ? [BUFFER.loss, logits] : [BUFFER.loss],
    attrs: { batch, sequence, vocabulary, scale, accumulate: e.accumulate },
    label: 'loss',
  })
}

/** Writes the first gradient into the residual stream. */
export function headBackward(e: Emitter, x: string): void {
  e.at({ ...OUTSIDE, phase: 'backward' })
  const dn = linearBackward(e, 'head', { dy: 'head.y', x: 'norm.y' })
  e.transient(RESIDUAL, e.tokens * e.config.dim)
  normBackward(e, 'norm', { dy: dn, x, accumulate: 0 })
}
