// The attention of a block: a = x + Attn(N(x)); x, a: [N, d].

import type { Emitter } from './emitter.ts'
import { linear, linearBackward, norm, normBackward, RESIDUAL } from './layers.ts'
import { reduceBucket } from './reduce.ts'

const shape = ({ config }: Emitter) => ({
  batch: config.batch,
  sequence: config.sequence,
  heads: config.heads,
  keyValueHeads: config.keyValueHeads,
  dim: config.dim,
})

export function attention(e: Emitter, block: number, x: string): string {
  const scope = `blocks.${block}.attn`
  return linear(e, `${scope}.proj`, mixed(e, block, x), x)
}

/** Emits again everything of the forward pass that the backward pass reads. */
export function attentionAgain(e: Emitter, block: number, x: string): void {
  mixed(e, block, x)
}

function mixed(e: Emitter, block: number, x: string): string {
  const scope = `blocks.${block}.attn`
  const { dim, heads } = e.config
  const qkv = linear(e, `${scope}.qkv`, norm(e, `${scope}.norm`, x))
  rope(e, qkv, 0)
  const o = e.transient(`${scope}.o`, e.tokens * dim)
  const lse = e.transient(`${scope}.lse`, e.tokens * heads)
  e.op('attention', { inputs: [qkv], outputs: [o, lse], attrs: shape(e), label: 'attention' })
  return o
}

/** The residual stream holds the gradient of a before these ops and that of x after them. */
export function attentionBackward(e: Emitter, block: number, x: string): void {
  const scope = `blocks.${block}.attn`
  const dO = linearBackward(e, `${scope}.proj`, { dy: RESIDUAL, x: `${scope}.o` })
  reduceBucket(e, `${scope}.proj`)
  const dqkv = e.transient(`${scope}.dqkv`, e.tokens * e.weightShape(`${scope}.qkv`).out)
  const inputs = [dO, `${scope}.qkv.y`, `${scope}.o`, `${scope}.lse`]
  e.op('attention_backward', { inputs, outputs: [dqkv], attrs: shape(e), label: 'attention' })
  rope(e, dqkv, 1)
  const dy = linearBackward(e, `${scope}.qkv`, { dy: dqkv, x: `${scope}.norm.y` })
  normBackward(e, `${scope}.norm`, { dy, x })
}

function rope(e: Emitter, qkv: string, inverse: 0 | 1): void {
  const { positions, ropeBase } = e.config
  if (positions !== 'RoPE') return
  e.op('rope', { inputs: [], outputs: [qkv], attrs: { ...shape(e), base: ropeBase, inverse }, label: 'rope' })
}
