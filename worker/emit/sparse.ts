// The ops of the last block of a unit after its attention, by kind (arXiv 2404.05019). a2 is the
// stream after that attention and N a normalisation:
//
//   Top1, Top2    out = a2 + m                         x = N(a2)
//   SharedExpert  out = a2 + c0 SE(x) + c1 m           x = N(a2)       (eq. 6)
//   ScMoE         out = a2 + c0 SE(N(a2)) + c1 m       x = N'(source)  (eq. 7)
//   DGMoE         out = a2 + m(N(source)) + m'(N(a2))                  (eq. 23)
//
// Here source is the stream at the shortcut position. DGMoE has one module and one gate for both
// passes, and m' avoids the experts of m.
//
// In all of them m = sum_i G(x)_i E_i(x). The coefficients are c = (1, 1) for DirectAdd, c0 =
// sigmoid(<w, .>) and c1 = 1 for CG1 (eq. 14), and c = softmax(W .) for CG2 (eq. 16).

import { gradientOf } from '../model/tensors.ts'
import type { Emitter } from './emitter.ts'
import { feedForward, feedForwardAgain, feedForwardBackward, norm, normBackward, RESIDUAL } from './layers.ts'
import { type Branch, decodeBackward, expertsBackward, gateBackward, moeDecode, moeForward } from './moe.ts'
import { reduceBucket } from './reduce.ts'

/**
 * The block that carries the MoE layer: its number, the stream that its experts read (source), and
 * the stream after its attention (a2).
 */
export interface Sparse {
  block: number
  source: string
  a2: string
}

const COEFFICIENTS = { DirectAdd: 0, CG1: 1, CG2: 2 } as const

const moduleOf = ({ block }: Sparse) => `blocks.${block}.moe`
const sharedOf = ({ block }: Sparse) => `blocks.${block}.shared`
const hasShared = ({ config }: Emitter) => config.kind === 'SharedExpert' || config.kind === 'ScMoE'
const coefficientsOf = ({ config }: Emitter) => COEFFICIENTS[config.coefficientGate]
const width = (e: Emitter) => ({ rows: e.tokens, dim: e.config.dim })

/**
 * The buffer of the shared expert's input: the normalised a2. SharedExpert has it in common with
 * the branch.
 */
const sharedInput = (e: Emitter, at: Sparse) =>
  e.config.kind === 'ScMoE' ? `${sharedOf(at)}.norm.y` : `${moduleOf(at)}.norm.y`

const branchOf = (at: Sparse): Branch => ({
  module: moduleOf(at),
  scope: moduleOf(at),
  x: `${moduleOf(at)}.norm.y`,
  current: false,
})

/** DGMoE's second pass, over the current representation. No token chooses an expert twice. */
const currentOf = (at: Sparse): Branch => ({
  module: moduleOf(at),
  scope: `${moduleOf(at)}.current`,
  x: `${moduleOf(at)}.current.norm.y`,
  taken: `${moduleOf(at)}.expert`,
  current: true,
})

/** Emits the forward pass. Returns out. */
export function sparseForward(e: Emitter, at: Sparse): string {
  const branch = branchOf(at)
  const s = e.config.kind === 'ScMoE' ? sharedForward(e, at) : undefined
  e.at({ part: 'gate' })
  norm(e, `${branch.module}.norm`, at.source)
  const early = s ?? (hasShared(e) ? sharedForward(e, at) : at.a2)
  moeForward(e, branch)
  const a = e.config.kind === 'DGMoE' ? currentForward(e, at) : early
  const m = moeDecode(e, branch)
  const out = e.transient(`blocks.${at.block}.out`, e.tokens * e.config.dim)
  if (!hasShared(e) || coefficientsOf(e) === 0) {
    e.op('add', { inputs: [a, m], outputs: [out], attrs: width(e), label: 'add' })
  } else {
    const inputs = [at.a2, a, `${sharedOf(at)}.c`, m]
    const attrs = { ...width(e), coefficients: coefficientsOf(e) }
    e.op('gated_add', { inputs, outputs: [out], attrs, label: 'add' })
  }
  return out
}

/** Returns a2 + SE(x) if the coefficients are 1, and otherwise SE(x). */
function sharedForward(e: Emitter, at: Sparse): string {
  const shared = sharedOf(at)
  const coefficients = coefficientsOf(e)
  e.at({ part: 'shared' })
  if (e.config.kind === 'ScMoE') norm(e, `${shared}.norm`, at.a2)
  const x = sharedInput(e, at)
  if (coefficients === 0) return feedForward(e, shared, x, at.a2)
  const s = feedForward(e, shared, x)
  const c = e.transient(`${shared}.c`, e.tokens * coefficients)
  const inputs = [x, `${shared}.gate.weight`]
  e.op('shared_gate', { inputs, outputs: [c], attrs: { ...width(e), coefficients }, label: 'gate' })
  return s
}

/** Returns a2 + m'. */
function currentForward(e: Emitter, at: Sparse): string {
  const branch = currentOf(at)
  e.at({ part: 'current' })
  norm(e, `${branch.module}.norm`, at.a2, `${branch.scope}.norm`)
  moeForward(e, branch)
  const m = moeDecode(e, branch)
  const sum = e.transient(`${branch.scope}.sum`, e.tokens * e.config.dim)
  e.op('add', { inputs: [at.a2, m], outputs: [sum], attrs: width(e), label: 'add' })
  return sum
}

/**
 * Emits all ops that read the gradient of out. The residual stream holds that gradient before, and
 * the gradient of a2 after, except for the part that `branchBackward` adds at the source. The first
 * all-to-all starts before anything else is computed.
 */
export function sparseBackward(e: Emitter, at: Sparse): void {
  const branch = branchOf(at)
  decodeBackward(e, branch, routedGradient(e, at))
  if (e.config.kind === 'DGMoE') {
    const current = currentOf(at)
    decodeBackward(e, current, RESIDUAL)
    expertsBackward(e, current)
    expertsBackward(e, branch)
    currentBackward(e, at)
  } else expertsBackward(e, branch)
  for (const bucket of ['experts.down', 'experts']) reduceBucket(e, `${branch.module}.${bucket}`)
  if (!hasShared(e)) return
  sharedBackward(e, at)
  reduceBucket(e, sharedOf(at))
}

/** Returns dm = c1 dy, which is the residual stream itself if c1 = 1. */
function routedGradient(e: Emitter, at: Sparse): string {
  if (coefficientsOf(e) !== 2 || !hasShared(e)) return RESIDUAL
  const dm = e.transient(`${moduleOf(at)}.m.grad`, e.tokens * e.config.dim)
  e.at({ part: 'decode' })
  e.op('scale_rows', { inputs: [RESIDUAL, `${sharedOf(at)}.c`], outputs: [dm], attrs: width(e), label: 'scale' })
  return dm
}

function sharedBackward(e: Emitter, at: Sparse): void {
  const { kind, recompute } = e.config
  const shared = sharedOf(at)
  const x = sharedInput(e, at)
  e.at({ part: 'shared' })
  if (recompute)
    e.again(() => {
      norm(e, kind === 'ScMoE' ? `${shared}.norm` : `${moduleOf(at)}.norm`, at.a2)
      feedForwardAgain(e, shared, x)
    })
  const dx = coefficientsOf(e) === 0 ? feedForwardBackward(e, shared, { dy: RESIDUAL, x }) : gatedBackward(e, at)
  if (kind === 'ScMoE') normBackward(e, `${shared}.norm`, { dy: dx, x: at.a2 })
}

/** Through the coefficient gate and the shared expert; returns the gradient of their input. */
function gatedBackward(e: Emitter, at: Sparse): string {
  const shared = sharedOf(at)
  const coefficients = coefficientsOf(e)
  const attrs = { ...width(e), coefficients }
  const x = sharedInput(e, at)
  const ds = e.transient(`${shared}.down.y.grad`, e.tokens * e.config.dim)
  const dc = e.transient(`${shared}.c.grad`, e.tokens * coefficients)
  const inputs = [RESIDUAL, `${shared}.down.y`, `${shared}.c`]
  if (coefficients === 2) inputs.push(`${moduleOf(at)}.m`)
  e.op('gated_add_backward', { inputs, outputs: [ds, dc], attrs, label: 'add' })
  const dx = feedForwardBackward(e, shared, { dy: ds, x })
  const weight = `${shared}.gate.weight`
  e.op('shared_gate_backward', {
    inputs: [dc, `${shared}.c`, x, weight],
    outputs: [dx, gradientOf(weight)],
    attrs: { ...attrs, accumulate: 1 },
    label: 'gate',
  })
  return dx
}

function currentBackward(e: Emitter, at: Sparse): void {
  const branch = currentOf(at)
  const as = `${branch.scope}.norm`
  const dx = e.transient(`${branch.scope}.dx`, e.tokens * e.config.dim)
  e.at({ part: 'current' })
  if (e.config.recompute) e.again(() => norm(e, `${branch.module}.norm`, at.a2, as))
  gateBackward(e, branch, { dx, accumulate: 0 })
  normBackward(e, `${branch.module}.norm`, { dy: dx, x: at.a2, as })
}

/**
 * Emits the gradient through encode, gate and the branch's norm. It is the last to be added to the
 * residual stream while that holds the gradient of the source.
 */
export function branchBackward(e: Emitter, at: Sparse): void {
  const branch = branchOf(at)
  const { kind, recompute } = e.config
  const scope = `${branch.module}.norm`
  // If the shared expert has this norm in common, it has written its gradient to dx and has
  // computed the norm again.
  const common = kind === 'SharedExpert'
  const dx = common ? `${sharedOf(at)}.up.dx` : e.transient(`${branch.module}.dx`, e.tokens * e.config.dim)
  e.at({ part: 'gate' })
  if (recompute && !common) e.again(() => norm(e, scope, at.source))
  gateBackward(e, branch, { dx, accumulate: common ? 1 : 0 })
  normBackward(e, scope, { dy: dx, x: at.source })
  reduceBucket(e, branch.module)
}
