// The MoE branch of a unit, part by part as the schedule moves them: gate, counts, encode,
// dispatch, experts, combine, decode. It computes m[n] = sum_i G(x)_i E_i(x) from its normalised
// input x: [N, d]. The backward of dispatch is combine, and the reverse. In the backward pass every
// op has the part of the forward op that it undoes.

import { gradientOf } from '../model/tensors.ts'
import { rowsReceived, rowsSent } from '../program/cost.ts'
import type { Attrs, Part } from '../program/program.ts'
import { BUFFER } from './buffers.ts'
import type { Emitter } from './emitter.ts'
import { activation, activationBackward, upWidth } from './layers.ts'

/** One pass of the tokens through the MoE module of a block. DGMoE makes two. */
export interface Branch {
  /**
   * The module, e.g. `blocks.1.moe`; its parameters are `<module>.router.weight`,
   * `<module>.experts.*`.
   */
  module: string
  /** The prefix of the names of this pass's buffers. */
  scope: string
  /** The normalised input [N, d]. */
  x: string
  /** i32 [N]: experts that the tokens may not choose. */
  taken?: string
  /** Whether this is DGMoE's second pass, all of whose ops have the part `current`. */
  current: boolean
}

const places = ({ scope }: Branch) => [`${scope}.expert`, `${scope}.slot`, `${scope}.counts`]
const allCounts = ({ scope }: Branch) => `${scope}.allCounts`

function route(e: Emitter): Attrs {
  const { dim, experts, topK, capacity } = e.config
  return { rows: e.tokens, dim, experts, topK, capacity }
}

/** Rows in expert order, before dispatch or after combine. */
const sent = (e: Emitter, name: string) => e.transient(name, rowsSent(e.config) * e.config.dim)
/** Rows at the experts, after dispatch or before combine. */
const received = (e: Emitter, name: string, width: number) => e.transient(name, rowsReceived(e.config) * width)

/**
 * The weight of one router loss: losses of a step are means over its micro-batches and over both
 * passes of DGMoE.
 */
const share = ({ config, microBatches }: Emitter) => 1 / (microBatches * (config.kind === 'DGMoE' ? 2 : 1))

/**
 * Emits ops of `part`. In DGMoE's second pass the part is in the label, because all its ops have
 * part `current`.
 */
function at(e: Emitter, branch: Branch, part: Part, emit: () => void): void {
  e.at({ part: branch.current ? 'current' : part })
  if (branch.current) e.within(part, emit)
  else emit()
}

/** Emits the parts from gate to combine. */
export function moeForward(e: Emitter, branch: Branch): void {
  const { scope, x } = branch
  gate(e, branch)
  at(e, branch, 'encode', () => {
    const outputs = [sent(e, `${scope}.encoded`)]
    e.op('permute', { inputs: [x, ...places(branch)], outputs, attrs: route(e) })
  })
  exchange(e, branch, {
    part: 'dispatch',
    rows: `${scope}.encoded`,
    out: received(e, `${scope}.dispatched`, e.config.dim),
  })
  at(e, branch, 'experts', () => {
    activationOfExperts(e, branch)
    grouped(e, branch, { layer: 'down', x: `${scope}.act`, y: received(e, `${scope}.down.y`, e.config.dim) })
  })
  exchange(e, branch, { part: 'combine', rows: `${scope}.down.y`, out: sent(e, `${scope}.combined`) })
}

/** Emits the part decode. Returns m [N, d]. */
export function moeDecode(e: Emitter, branch: Branch): string {
  const { scope, current } = branch
  const { kind, dim, experts, topK, worldSize, zCoefficient } = e.config
  const { unit } = e.segment
  // DGMoE's second pass is decoded first, so the first pass adds to its losses.
  const accumulate = kind === 'DGMoE' && !current ? 1 : e.accumulate
  const m = e.transient(`${scope}.m`, e.tokens * dim)
  at(e, branch, 'decode', () => {
    const inputs = [`${scope}.combined`, ...places(branch), `${scope}.weight`]
    e.op('unpermute', { inputs, outputs: [m], attrs: route(e), label: 'unpermute' })
    e.op('aux_loss', {
      inputs: [`${scope}.probs`, allCounts(branch)],
      outputs: [BUFFER.aux(unit)],
      attrs: { rows: e.tokens, experts, topK, worldSize, scale: share(e), accumulate },
      label: 'aux',
    })
    if (zCoefficient === 0) return
    const scale = share(e) / (worldSize * e.tokens)
    const attrs = { rows: e.tokens, scale, accumulate }
    e.op('z_loss', { inputs: [`${scope}.lse`], outputs: [BUFFER.z(unit)], attrs, label: 'z' })
  })
  return m
}

function gate(e: Emitter, branch: Branch): void {
  const { module, scope, x, taken } = branch
  const { experts, topK, worldSize, zCoefficient } = e.config
  at(e, branch, 'gate', () => {
    const outputs = [
      e.transient(`${scope}.probs`, e.tokens * experts),
      e.transient(`${scope}.expert`, e.tokens * topK, 'i32'),
      e.transient(`${scope}.weight`, e.tokens * topK),
      e.transient(`${scope}.slot`, e.tokens * topK, 'i32'),
      e.transient(`${scope}.counts`, experts, 'i32'),
    ]
    if (zCoefficient > 0) outputs.push(e.transient(`${scope}.lse`, e.tokens))
    const inputs = [x, `${module}.router.weight`, ...(taken === undefined ? [] : [taken])]
    e.op('router', { inputs, outputs, attrs: route(e), label: 'router' })
  })
  at(e, branch, 'counts', () => {
    const outputs = [e.transient(allCounts(branch), worldSize * experts, 'i32')]
    e.op('all_gather_counts', { inputs: [`${scope}.counts`], outputs, attrs: { experts } })
  })
}

/**
 * Emits one all-to-all. In the backward pass its part is the forward exchange that it undoes, and
 * rows travel in the other direction.
 */
function exchange(e: Emitter, branch: Branch, io: { part: 'dispatch' | 'combine'; rows: string; out: string }): void {
  const backward = e.segment.phase === 'backward'
  const direction = (io.part === 'dispatch') === backward ? 'combine' : 'dispatch'
  const attrs = { direction, dim: e.config.dim, ...e.group, ...e.whole }
  at(e, branch, io.part, () => {
    e.op('all_to_all', { inputs: [io.rows, allCounts(branch)], outputs: [io.out], attrs })
  })
}

/** act(up_e(x)) for the rows of every local expert. */
function activationOfExperts(e: Emitter, branch: Branch): void {
  const { scope } = branch
  const up = received(e, `${scope}.up.y`, upWidth(e))
  grouped(e, branch, { layer: 'up', x: `${scope}.dispatched`, y: up })
  activation(e, scope, up, { rows: rowsReceived(e.config), allCounts: allCounts(branch) })
}

function grouped(e: Emitter, branch: Branch, io: { layer: 'up' | 'down'; x: string; y: string }): void {
  const scope = `${branch.module}.experts.${io.layer}`
  const [weight = '', ...bias] = e.parametersOf(scope)
  e.op('grouped_linear', {
    inputs: [io.x, weight, allCounts(branch), ...bias],
    outputs: [io.y],
    attrs: { ...e.weightShape(scope), ...e.group, ...e.whole },
    label: io.layer,
  })
}

/** Emits the ops from dm, the gradient of m, to the rows that travel to the experts. */
export function decodeBackward(e: Emitter, branch: Branch, dm: string): void {
  const { scope } = branch
  const dcombined = sent(e, `${scope}.combined.grad`)
  at(e, branch, 'decode', () => {
    e.op('unpermute_backward', {
      inputs: [dm, `${scope}.combined`, ...places(branch), `${scope}.weight`],
      outputs: [dcombined, e.transient(`${scope}.weight.grad`, e.tokens * e.config.topK)],
      attrs: route(e),
      label: 'unpermute',
    })
  })
  exchange(e, branch, { part: 'combine', rows: dcombined, out: received(e, `${scope}.down.y.grad`, e.config.dim) })
}

/**
 * Emits the backward pass of the experts, the exchange of its rows back to the tokens, and the
 * experts' weight gradients.
 */
export function expertsBackward(e: Emitter, branch: Branch): void {
  const { scope } = branch
  const { dim, feedForward, recompute } = e.config
  const ddown = `${scope}.down.y.grad`
  const ddispatched = received(e, `${scope}.dispatched.grad`, dim)
  at(e, branch, 'experts', () => {
    if (recompute) e.again(() => activationOfExperts(e, branch))
    const dact = received(e, `${scope}.act.grad`, feedForward)
    groupedDgrad(e, branch, { layer: 'down', dy: ddown, dx: dact })
    const rows = rowsReceived(e.config)
    activationBackward(e, scope, { dy: dact, x: `${scope}.up.y`, rows, allCounts: allCounts(branch) })
    groupedDgrad(e, branch, { layer: 'up', dy: `${scope}.act.dx`, dx: ddispatched })
  })
  exchange(e, branch, { part: 'dispatch', rows: ddispatched, out: sent(e, `${scope}.encoded.grad`) })
  at(e, branch, 'wgrad', () => {
    groupedWgrad(e, branch, { layer: 'down', dy: ddown, x: `${scope}.act` })
    groupedWgrad(e, branch, { layer: 'up', dy: `${scope}.act.dx`, x: `${scope}.dispatched` })
  })
}

function groupedDgrad(e: Emitter, branch: Branch, io: { layer: 'up' | 'down'; dy: string; dx: string }): void {
  const scope = `${branch.module}.experts.${io.layer}`
  const inputs = [io.dy, `${scope}.weight`, allCounts(branch)]
  const attrs = { ...e.weightShape(scope), ...e.group, ...e.whole }
  e.op('grouped_linear_dgrad', { inputs, outputs: [io.dx], attrs, label: io.layer })
}

function groupedWgrad(e: Emitter, branch: Branch, io: { layer: 'up' | 'down'; dy: string; x: string }): void {
  const scope = `${branch.module}.experts.${io.layer}`
  e.op('grouped_linear_wgrad', {
    inputs: [io.dy, io.x, allCounts(branch)],
    outputs: e.parametersOf(scope).map(gradientOf),
    attrs: { ...e.weightShape(scope), ...e.group },
    label: `${io.layer}.wgrad`,
  })
}

/**
 * Emits the gradient of the branch's input x, through the rows and then through the gate. With
 * `accumulate` it is added to `dx`.
 */
export function gateBackward(e: Emitter, branch: Branch, io: { dx: string; accumulate: 0 | 1 }): void {
  const { module, scope, x } = branch
  const { worldSize, auxCoefficient, zCoefficient } = e.config
  at(e, branch, 'encode', () => {
    const inputs = [`${scope}.encoded.grad`, ...places(branch)]
    const attrs = { ...route(e), accumulate: io.accumulate }
    e.op('permute_backward', { inputs, outputs: [io.dx], attrs, label: 'permute' })
  })
  const chosen = ['probs', 'expert', 'weight', 'slot', 'allCounts'].map(name => `${scope}.${name}`)
  const router = `${module}.router.weight`
  const coefficients = { auxCoefficient: auxCoefficient * share(e), zCoefficient: zCoefficient * share(e) }
  at(e, branch, 'gate', () => {
    e.op('router_backward', {
      inputs: [`${scope}.weight.grad`, ...chosen, x, router, ...(zCoefficient > 0 ? [`${scope}.lse`] : [])],
      outputs: [io.dx, gradientOf(router)],
      attrs: { ...route(e), worldSize, ...coefficients, accumulate: 1 },
      label: 'router',
    })
  })
}
