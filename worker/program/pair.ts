// A pair of blocks, as the paper writes it (arXiv 2404.05019):
//
//   a1 = h0 + Attn(LN(h0))      h1 = a1 + MLP(LN(a1))      a2 = h1 + Attn(LN(h1))      then with m = sum_i G(x)_i E_i(x)
//   Top2          out = a2 + m                        x = LN(a2)
//   SharedExpert  out = a2 + SE(x) + m                x = LN(a2)
//   ScMoE         out = a2 + c * SE(LN(a2)) + m       x = LN'(a1)  (shortcut position 2),  c = sigmoid(<w, LN(a2)>)  (CG-1)

import { gradientOf } from '../model.ts'
import { attention, attentionBackward } from './attention.ts'
import type { Emitter } from './emitter.ts'
import { feedForward, feedForwardBackward, norm, normBackward, RESIDUAL } from './layers.ts'
import { gateBackward, moe, moeBackward } from './moe.ts'

/** Names of the residual stream inside a pair. */
export interface Stream {
  h0: string
  a1: string
  h1: string
  a2: string
  out: string
}

const width = (e: Emitter) => ({ rows: e.tokens, dim: e.config.dim })

export function pairForward(e: Emitter, pair: number, h0: string): Stream {
  const dense = 2 * pair
  e.at({ pair, phase: 'forward', part: 'attn0' })
  const a1 = attention(e, dense, h0)
  e.at({ part: 'mlp' })
  const h1 = feedForward(e, `blocks.${dense}.mlp`, norm(e, `blocks.${dense}.mlp.norm`, a1), a1)
  e.at({ part: 'attn1' })
  const a2 = attention(e, dense + 1, h1)
  const out = SPARSE[e.config.kind].forward(e, `blocks.${dense + 1}`, { a1, a2 })
  return { h0, a1, h1, a2, out }
}

/** The residual stream holds d out before and d h0 after. */
export function pairBackward(e: Emitter, pair: number, { h0, a1, h1, a2 }: Stream): void {
  const dense = 2 * pair
  const sparse = `blocks.${dense + 1}`
  const branch = SPARSE[e.config.kind]
  e.at({ pair, phase: 'backward' })
  moeBackward(e, RESIDUAL)
  branch.sharedBackward(e, sparse, a2)
  if (!branch.shortcut) branchBackward(e, sparse, a2)
  e.at({ part: 'attn1' })
  attentionBackward(e, dense + 1, h1)
  e.at({ part: 'mlp' })
  const mlp = `blocks.${dense}.mlp`
  normBackward(e, `${mlp}.norm`, { dy: feedForwardBackward(e, mlp, { dy: RESIDUAL, x: `${mlp}.norm.y` }), x: a1 })
  // Last, so that every schedule adds to d a1 in this order.
  if (branch.shortcut) branchBackward(e, sparse, a1)
  e.at({ part: 'attn0' })
  attentionBackward(e, dense, h0)
}

/** Through encode, gate and the branch's LN into the residual stream. SE, where it shares that LN, has left its gradient in dx. */
function branchBackward(e: Emitter, block: string, source: string): void {
  const dx = `${block}.moe.dx`
  const shared = e.config.kind === 'SharedExpert'
  const target = shared ? `${block}.shared.up.dx` : e.transient(dx, e.tokens * e.config.dim)
  gateBackward(e, { x: `${block}.moe.norm.y`, dx: target, accumulate: shared ? 1 : 0 })
  normBackward(e, `${block}.moe.norm`, { dy: target, x: source })
}

interface Sparse {
  /** True when the branch reads a1, so that the residual stream does not wait for it until the end of the pair. */
  shortcut: boolean
  forward(e: Emitter, block: string, stream: { a1: string; a2: string }): string
  /** Backward of the shared expert alone. */
  sharedBackward(e: Emitter, block: string, a2: string): void
}

const SPARSE: Record<Emitter['config']['kind'], Sparse> = {
  Top2: {
    shortcut: false,
    forward(e, block, { a2 }) {
      e.at({ part: 'gate' })
      const m = moe(e, norm(e, `${block}.moe.norm`, a2))
      return add(e, block, a2, m)
    },
    sharedBackward() {},
  },

  SharedExpert: {
    shortcut: false,
    forward(e, block, { a2 }) {
      e.at({ part: 'gate' })
      const x = norm(e, `${block}.moe.norm`, a2)
      e.at({ part: 'shared' })
      const s = feedForward(e, `${block}.shared`, x, a2)
      return add(e, block, s, moe(e, x))
    },
    sharedBackward(e, block) {
      e.at({ part: 'shared' })
      feedForwardBackward(e, `${block}.shared`, { dy: RESIDUAL, x: `${block}.moe.norm.y` })
    },
  },

  ScMoE: {
    shortcut: true,
    forward(e, block, { a1, a2 }) {
      e.at({ part: 'shared' })
      const n = norm(e, `${block}.shared.norm`, a2)
      const s = feedForward(e, `${block}.shared`, n)
      const c = e.transient(`${block}.shared.c`, e.tokens)
      const gate = `${block}.shared.gate.weight`
      e.op('shared_gate', { inputs: [n, gate], outputs: [c], attrs: width(e), label: 'gate' })
      e.at({ part: 'gate' })
      const m = moe(e, norm(e, `${block}.moe.norm`, a1))
      const out = e.transient(`${block}.out`, e.tokens * e.config.dim)
      e.op('gated_add', { inputs: [a2, s, c, m], outputs: [out], attrs: width(e), label: 'add' })
      return out
    },
    sharedBackward(e, block, a2) {
      const shared = `${block}.shared`
      e.at({ part: 'shared' })
      const ds = e.transient(`${shared}.down.y.grad`, e.tokens * e.config.dim)
      const dc = e.transient(`${shared}.c.grad`, e.tokens)
      const inputs = [RESIDUAL, `${shared}.down.y`, `${shared}.c`]
      e.op('gated_add_backward', { inputs, outputs: [ds, dc], attrs: width(e), label: 'add' })
      const dn = feedForwardBackward(e, shared, { dy: ds, x: `${shared}.norm.y` })
      e.op('shared_gate_backward', {
        inputs: [dc, `${shared}.c`, `${shared}.norm.y`, `${shared}.gate.weight`],
        outputs: [dn, gradientOf(`${shared}.gate.weight`)],
        attrs: { ...width(e), accumulate: 1 },
        label: 'gate',
      })
      normBackward(e, `${shared}.norm`, { dy: dn, x: a2 })
    },
  },
}

function add(e: Emitter, block: string, a: string, b: string): string {
  const y = e.transient(`${block}.out`, e.tokens * e.config.dim)
  e.op('add', { inputs: [a, b], outputs: [y], attrs: width(e), label: 'add' })
  return y
}
