// The MoE branch of a pair, operator by operator as the schedule moves them: gate, counts, encode, dispatch, experts, combine, decode.
// m[n] = sum_i G(x)_i E_i(x); x: [N, d], the branch's normalised input. Backward of dispatch is combine and the reverse; in the backward
// pass every op keeps the part of the forward op it undoes.

import { gradientOf } from '../model.ts'
import { BUFFER } from './buffers.ts'
import { rowsReceived, rowsSent } from './cost.ts'
import type { Emitter } from './emitter.ts'
import type { Attrs } from './program.ts'

const scopeOf = (e: Emitter) => `blocks.${2 * e.segment.pair + 1}.moe`
const places = (scope: string) => [`${scope}.expert`, `${scope}.slot`, `${scope}.counts`]

function route(e: Emitter): Attrs {
  const { dim, experts, topK, capacity } = e.config
  return { rows: e.tokens, dim, experts, topK, capacity }
}

/** Rows in expert order, before dispatch or after combine. */
const sent = (e: Emitter, name: string) => e.transient(name, rowsSent(e.config) * e.config.dim)
/** Rows at the experts, after dispatch or before combine. */
const received = (e: Emitter, name: string, width: number) => e.transient(name, rowsReceived(e.config) * width)

/** Returns m [N, d]. */
export function moe(e: Emitter, x: string): string {
  const scope = scopeOf(e)
  const { dim, experts, topK, worldSize } = e.config
  gate(e, scope, x)
  e.at({ part: 'encode' })
  const encoded = sent(e, `${scope}.encoded`)
  e.op('permute', { inputs: [x, ...places(scope)], outputs: [encoded], attrs: route(e) })
  exchange(e, 'dispatch', encoded, received(e, `${scope}.dispatched`, dim))
  const y = runExperts(e, scope)
  const combined = sent(e, `${scope}.combined`)
  exchange(e, 'combine', y, combined)
  e.at({ part: 'decode' })
  const m = e.transient(`${scope}.m`, e.tokens * dim)
  const inputs = [combined, ...places(scope), `${scope}.weight`]
  e.op('unpermute', { inputs, outputs: [m], attrs: route(e), label: 'unpermute' })
  e.op('aux_loss', {
    inputs: [`${scope}.probs`, `${scope}.allCounts`],
    outputs: [BUFFER.aux(e.segment.pair)],
    attrs: { rows: e.tokens, experts, topK, worldSize },
    label: 'aux',
  })
  return m
}

function gate(e: Emitter, scope: string, x: string): void {
  const { experts, topK, worldSize } = e.config
  e.at({ part: 'gate' })
  const outputs = [
    e.transient(`${scope}.probs`, e.tokens * experts),
    e.transient(`${scope}.expert`, e.tokens * topK, 'i32'),
    e.transient(`${scope}.weight`, e.tokens * topK),
    e.transient(`${scope}.slot`, e.tokens * topK, 'i32'),
    e.transient(`${scope}.counts`, experts, 'i32'),
  ]
  e.op('router', { inputs: [x, `${scope}.router.weight`], outputs, attrs: route(e), label: 'router' })
  e.at({ part: 'counts' })
  const allCounts = e.transient(`${scope}.allCounts`, worldSize * experts, 'i32')
  e.op('all_gather_counts', { inputs: [`${scope}.counts`], outputs: [allCounts], attrs: { experts } })
}

/** One all-to-all. In backward the part is the forward exchange it undoes, which travels the other way. */
function exchange(e: Emitter, part: 'dispatch' | 'combine', rows: string, out: string): void {
  e.at({ part })
  const backward = e.segment.phase === 'backward'
  const direction = (part === 'dispatch') === backward ? 'combine' : 'dispatch'
  const attrs = { direction, dim: e.config.dim, ...e.group }
  e.op('all_to_all', { inputs: [rows, `${scopeOf(e)}.allCounts`], outputs: [out], attrs })
}

/** E_e(x) = down_e(gelu(up_e(x))) for the rows of every local expert. */
function runExperts(e: Emitter, scope: string): string {
  e.at({ part: 'experts' })
  const { dim, feedForward } = e.config
  const up = received(e, `${scope}.up.y`, feedForward)
  const hidden = received(e, `${scope}.gelu`, feedForward)
  const down = received(e, `${scope}.down.y`, dim)
  grouped(e, 'up', `${scope}.dispatched`, up)
  e.op('gelu', {
    inputs: [up, `${scope}.allCounts`],
    outputs: [hidden],
    attrs: { rows: rowsReceived(e.config), dim: feedForward, ...e.group },
    label: 'gelu',
  })
  grouped(e, 'down', hidden, down)
  return down
}

function grouped(e: Emitter, layer: 'up' | 'down', x: string, y: string): void {
  const scope = `${scopeOf(e)}.experts.${layer}`
  const inputs = [x, `${scope}.weight`, `${scope}.bias`, `${scopeOf(e)}.allCounts`]
  e.op('grouped_linear', { inputs, outputs: [y], attrs: { ...e.weightShape(scope), ...e.group }, label: layer })
}

/** From dm, the gradient of m, to the gradient of the encoded rows and of the gate's weights; expert weight gradients last. */
export function moeBackward(e: Emitter, dm: string): void {
  const scope = scopeOf(e)
  const { dim, feedForward, topK } = e.config
  e.at({ part: 'decode' })
  const dcombined = sent(e, `${scope}.combined.grad`)
  e.op('unpermute_backward', {
    inputs: [dm, `${scope}.combined`, ...places(scope), `${scope}.weight`],
    outputs: [dcombined, e.transient(`${scope}.weight.grad`, e.tokens * topK)],
    attrs: route(e),
  })
  const ddown = received(e, `${scope}.down.y.grad`, dim)
  exchange(e, 'combine', dcombined, ddown)

  e.at({ part: 'experts' })
  const dhidden = received(e, `${scope}.gelu.grad`, feedForward)
  const dup = received(e, `${scope}.up.y.grad`, feedForward)
  const ddispatched = received(e, `${scope}.dispatched.grad`, dim)
  groupedDgrad(e, 'down', ddown, dhidden)
  e.op('gelu_backward', {
    inputs: [dhidden, `${scope}.up.y`, `${scope}.allCounts`],
    outputs: [dup],
    attrs: { rows: rowsReceived(e.config), dim: feedForward, ...e.group },
    label: 'gelu',
  })
  groupedDgrad(e, 'up', dup, ddispatched)
  exchange(e, 'dispatch', ddispatched, sent(e, `${scope}.encoded.grad`))

  e.at({ part: 'wgrad' })
  groupedWgrad(e, 'down', ddown, `${scope}.gelu`)
  groupedWgrad(e, 'up', dup, `${scope}.dispatched`)
}

function groupedDgrad(e: Emitter, layer: 'up' | 'down', dy: string, dx: string): void {
  const scope = `${scopeOf(e)}.experts.${layer}`
  const inputs = [dy, `${scope}.weight`, `${scopeOf(e)}.allCounts`]
  e.op('grouped_linear_dgrad', { inputs, outputs: [dx], attrs: { ...e.weightShape(scope), ...e.group }, label: layer })
}

function groupedWgrad(e: Emitter, layer: 'up' | 'down', dy: string, x: string): void {
  const scope = `${scopeOf(e)}.experts.${layer}`
  e.op('grouped_linear_wgrad', {
    inputs: [dy, x, `${scopeOf(e)}.allCounts`],
    outputs: [gradientOf(`${scope}.weight`), gradientOf(`${scope}.bias`)],
    attrs: { ...e.weightShape(scope), ...e.group },
    label: layer,
  })
}

/** Gradient of the branch's input x: through the rows, then through the gate. Written to `dx`, or added to what it holds. */
export function gateBackward(e: Emitter, io: { x: string; dx: string; accumulate: 0 | 1 }): void {
  const scope = scopeOf(e)
  const { worldSize, auxCoefficient } = e.config
  e.at({ part: 'encode' })
  e.op('permute_backward', {
    inputs: [`${scope}.encoded.grad`, ...places(scope)],
    outputs: [io.dx],
    attrs: { ...route(e), accumulate: io.accumulate },
  })
  e.at({ part: 'gate' })
  const chosen = [`${scope}.probs`, `${scope}.expert`, `${scope}.weight`, `${scope}.slot`, `${scope}.allCounts`]
  e.op('router_backward', {
    inputs: [`${scope}.weight.grad`, ...chosen, io.x, `${scope}.router.weight`],
    outputs: [io.dx, gradientOf(`${scope}.router.weight`)],
    attrs: { ...route(e), worldSize, auxCoefficient, accumulate: 1 },
    label: 'router',
  })
}
