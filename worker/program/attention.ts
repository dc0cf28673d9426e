// a = x + Attn(LN(x)); x, a: [N, d].

import type { Emitter } from './emitter.ts'
import { linear, linearBackward, norm, normBackward, RESIDUAL } from './layers.ts'

const shape = ({ config }: Emitter) => ({
  batch: config.batch,
  sequence: config.sequence,
  heads: config.heads,
  dim: config.dim,
})

export function attention(e: Emitter, block: number, x: string): string {
  const scope = `blocks.${block}.attn`
  const { dim, heads } = e.config
  const qkv = linear(e, `${scope}.qkv`, norm(e, `${scope}.norm`, x))
  const o = e.transient(`${scope}.o`, e.tokens * dim)
  const lse = e.transient(`${scope}.lse`, e.tokens * heads)
  e.op('attention', { inputs: [qkv], outputs: [o, lse], attrs: shape(e), label: 'attention' })
  return linear(e, `${scope}.proj`, o, x)
}

/** The residual stream holds da before and dx after. */
export function attentionBackward(e: Emitter, block: number, x: string): void {
  const scope = `blocks.${block}.attn`
  const dO = linearBackward(e, `${scope}.proj`, { dy: RESIDUAL, x: `${scope}.o` })
  const dqkv = e.transient(`${scope}.dqkv`, e.tokens * 3 * e.config.dim)
  const inputs = [dO, `${scope}.qkv.y`, `${scope}.o`, `${scope}.lse`]
  e.op('attention_backward', { inputs, outputs: [dqkv], attrs: shape(e), label: 'attention' })
  const dy = linearBackward(e, `${scope}.qkv`, { dy: dqkv, x: `${scope}.norm.y` })
  normBackward(e, `${scope}.norm`, { dy, x })
}
