// The layers that every block is made of. A layer is named by its scope, e.g. `blocks.0.attn.qkv`:
// its parameters are `<scope>.weight` and `<scope>.bias`, its result is `<scope>.y`. The backward
// pass of a layer reads the buffers that its forward pass wrote under the same scope.

import { gradientOf } from '../model/tensors.ts'
import type { Emitter } from './emitter.ts'
import { reduceBucket } from './reduce.ts'

/**
 * The gradient of the residual stream: one buffer for the whole backward pass, updated in place.
 */
export const RESIDUAL = 'residual.grad'

const lastWord = (scope: string) => scope.slice(scope.lastIndexOf('.') + 1)

/**
 * y = LN(x) or RMSNorm(x); [N, d]. `as` is the scope of the result if parameters are used twice.
 */
export function norm(e: Emitter, scope: string, x: string, as = scope): string {
  const { dim } = e.config
  const attrs = { rows: e.tokens, dim }
  const y = e.transient(`${as}.y`, e.tokens * dim)
  const statistics = statisticsOf(e, as).map(name => e.transient(name, e.tokens))
  const parameters = e.parametersOf(scope)
  const op = e.config.norm === 'RMSNorm' ? 'rmsnorm' : 'layernorm'
  e.op(op, { inputs: [x, ...parameters], outputs: [y, ...statistics], attrs, label: lastWord(scope) })
  return y
}

const statisticsOf = ({ config }: Emitter, scope: string) =>
  config.norm === 'RMSNorm' ? [`${scope}.rstd`] : [`${scope}.mean`, `${scope}.rstd`]

/** Adds the gradient of x to the residual stream, or overwrites the stream with it. */
export function normBackward(
  e: Emitter,
  scope: string,
  io: { dy: string; x: string; accumulate?: 0 | 1; as?: string },
): void {
  const op = e.config.norm === 'RMSNorm' ? 'rmsnorm_backward' : 'layernorm_backward'
  e.op(op, {
    inputs: [io.dy, io.x, `${scope}.gamma`, ...statisticsOf(e, io.as ?? scope)],
    outputs: [RESIDUAL, ...e.parametersOf(scope).map(gradientOf)],
    attrs: { rows: e.tokens, dim: e.config.dim, accumulate: io.accumulate ?? 1 },
    label: lastWord(scope),
  })
}

/** y = x W^T (+ b) (+ residual); [N, in] -> [N, out]. */
export function linear(e: Emitter, scope: string, x: string, residual?: string): string {
  const shape = e.weightShape(scope)
  const y = e.transient(`${scope}.y`, e.tokens * shape.out)
  const parameters = e.parametersOf(scope)
  const inputs = [x, ...parameters, ...(residual === undefined ? [] : [residual])]
  const attrs = { rows: e.tokens, ...shape, bias: parameters.length - 1 }
  e.op('linear', { inputs, outputs: [y], attrs, label: lastWord(scope) })
  return y
}

/** dW += dy^T x, db += sum dy; returns dx = dy W. */
export function linearBackward(e: Emitter, scope: string, io: { dy: string; x: string }): string {
  const shape = e.weightShape(scope)
  const attrs = { rows: e.tokens, ...shape }
  const dx = e.transient(`${scope}.dx`, e.tokens * shape.in)
  const [weight = ''] = e.parametersOf(scope)
  e.op('linear_dgrad', {
    inputs: [io.dy, weight],
    outputs: [dx],
    attrs: { ...attrs, accumulate: 0 },
    label: `${lastWord(scope)}.dgrad`,
  })
  const outputs = e.parametersOf(scope).map(gradientOf)
  e.op('linear_wgrad', { inputs: [io.dy, io.x], outputs, attrs, label: `${lastWord(scope)}.wgrad` })
  return dx
}

/**
 * The rows that an activation works on: the local tokens, or with `allCounts` the rows routed to
 * this rank, of which there are at most `rows`.
 */
export interface Rows {
  rows: number
  allCounts?: string
}

/**
 * Writes `<scope>.act`: gelu(x) with x: [rows, F], or for SwiGLU silu(g) * u with x = g | u: [rows,
 * 2F].
 */
export function activation(e: Emitter, scope: string, x: string, { rows, allCounts }: Rows): string {
  const dim = e.config.feedForward
  const y = e.transient(`${scope}.act`, rows * dim)
  const inputs = allCounts === undefined ? [x] : [x, allCounts]
  const op = e.config.activation === 'SwiGLU' ? 'swiglu' : 'gelu'
  e.op(op, { inputs, outputs: [y], attrs: { rows, dim, ...e.group, ...e.whole }, label: 'act' })
  return y
}

/** Writes the gradient of x to `<scope>.act.dx`. */
export function activationBackward(
  e: Emitter,
  scope: string,
  { dy, x, rows, allCounts }: Rows & { dy: string; x: string },
): string {
  const dim = e.config.feedForward
  const dx = e.transient(`${scope}.act.dx`, rows * upWidth(e))
  const inputs = allCounts === undefined ? [dy, x] : [dy, x, allCounts]
  const op = e.config.activation === 'SwiGLU' ? 'swiglu_backward' : 'gelu_backward'
  e.op(op, { inputs, outputs: [dx], attrs: { rows, dim, ...e.group, ...e.whole }, label: 'act' })
  return dx
}

/** The width before the activation: U in model.ts. */
export const upWidth = ({ config }: Emitter) =>
  config.activation === 'SwiGLU' ? 2 * config.feedForward : config.feedForward

/** down(act(up(x))) (+ residual). */
export function feedForward(e: Emitter, scope: string, x: string, residual?: string): string {
  return linear(e, `${scope}.down`, feedForwardAgain(e, scope, x), residual)
}

/** Emits again everything of the forward pass that the backward pass reads. */
export function feedForwardAgain(e: Emitter, scope: string, x: string): string {
  return activation(e, scope, linear(e, `${scope}.up`, x), { rows: e.tokens })
}

export function feedForwardBackward(e: Emitter, scope: string, io: { dy: string; x: string }): string {
  const dhidden = linearBackward(e, `${scope}.down`, { dy: io.dy, x: `${scope}.act` })
  reduceBucket(e, `${scope}.down`)
  const dup = activationBackward(e, scope, { dy: dhidden, x: `${scope}.up.y`, rows: e.tokens })
  return linearBackward(e, `${scope}.up`, { dy: dup, x: io.x })
}
