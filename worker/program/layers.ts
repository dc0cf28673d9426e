// Layers that every block is made of. A layer is named by its scope, e.g. `blocks.0.attn.qkv`: parameters are `<scope>.weight`, `<scope>.bias`,
// the result is `<scope>.y`. Backward of a layer reads what its forward left under the same scope.

import { gradientOf } from '../model.ts'
import type { Emitter } from './emitter.ts'

/** The gradient of the residual stream: one buffer through the whole backward pass, updated in place. */
export const RESIDUAL = 'residual.grad'

const lastWord = (scope: string) => scope.slice(scope.lastIndexOf('.') + 1)

/** y = LN(x); [N, d]. */
export function norm(e: Emitter, scope: string, x: string): string {
  const { dim } = e.config
  const outputs = [e.transient(`${scope}.y`, e.tokens * dim)]
  outputs.push(e.transient(`${scope}.mean`, e.tokens), e.transient(`${scope}.rstd`, e.tokens))
  const inputs = [x, `${scope}.gamma`, `${scope}.beta`]
  e.op('layernorm', { inputs, outputs, attrs: { rows: e.tokens, dim }, label: lastWord(scope) })
  return `${scope}.y`
}

/** Adds the gradient of x into the residual stream, or starts the stream with it. */
export function normBackward(e: Emitter, scope: string, io: { dy: string; x: string; accumulate?: 0 | 1 }): void {
  e.op('layernorm_backward', {
    inputs: [io.dy, io.x, `${scope}.gamma`, `${scope}.mean`, `${scope}.rstd`],
    outputs: [RESIDUAL, gradientOf(`${scope}.gamma`), gradientOf(`${scope}.beta`)],
    attrs: { rows: e.tokens, dim: e.config.dim, accumulate: io.accumulate ?? 1 },
    label: lastWord(scope),
  })
}

/** y = x W^T + b (+ residual); [N, in] -> [N, out]. */
export function linear(e: Emitter, scope: string, x: string, residual?: string): string {
  const shape = e.weightShape(scope)
  const y = e.transient(`${scope}.y`, e.tokens * shape.out)
  const inputs = [x, `${scope}.weight`, `${scope}.bias`]
  if (residual !== undefined) inputs.push(residual)
  e.op('linear', { inputs, outputs: [y], attrs: { rows: e.tokens, ...shape }, label: lastWord(scope) })
  return y
}

/** dW += dy^T x, db += sum dy; returns dx = dy W. */
export function linearBackward(e: Emitter, scope: string, io: { dy: string; x: string }): string {
  const shape = e.weightShape(scope)
  const attrs = { rows: e.tokens, ...shape }
  const dx = e.transient(`${scope}.dx`, e.tokens * shape.in)
  e.op('linear_dgrad', {
    inputs: [io.dy, `${scope}.weight`],
    outputs: [dx],
    attrs: { ...attrs, accumulate: 0 },
    label: `${lastWord(scope)}.dgrad`,
  })
  const outputs = [gradientOf(`${scope}.weight`), gradientOf(`${scope}.bias`)]
  e.op('linear_wgrad', { inputs: [io.dy, io.x], outputs, attrs, label: `${lastWord(scope)}.wgrad` })
  return dx
}

/** y = gelu(x) over N rows. */
export function gelu(e: Emitter, scope: string, x: string): string {
  const dim = e.config.feedForward
  const y = e.transient(`${scope}.gelu`, e.tokens * dim)
  e.op('gelu', { inputs: [x], outputs: [y], attrs: { rows: e.tokens, dim, ...e.group }, label: 'gelu' })
  return y
}

export function geluBackward(e: Emitter, scope: string, io: { dy: string; x: string }): string {
  const dim = e.config.feedForward
  const dx = e.transient(`${scope}.gelu.dx`, e.tokens * dim)
  const attrs = { rows: e.tokens, dim, ...e.group }
  e.op('gelu_backward', { inputs: [io.dy, io.x], outputs: [dx], attrs, label: 'gelu' })
  return dx
}

/** down(gelu(up(x))) (+ residual). */
export function feedForward(e: Emitter, scope: string, x: string, residual?: string): string {
  const hidden = gelu(e, scope, linear(e, `${scope}.up`, x))
  return linear(e, `${scope}.down`, hidden, residual)
}

export function feedForwardBackward(e: Emitter, scope: string, io: { dy: string; x: string }): string {
  const dhidden = linearBackward(e, `${scope}.down`, { dy: io.dy, x: `${scope}.gelu` })
  const dup = geluBackward(e, scope, { dy: dhidden, x: `${scope}.up.y` })
  return linearBackward(e, `${scope}.up`, { dy: dup, x: io.x })
}
