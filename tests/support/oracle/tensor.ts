// Arithmetic of the oracle. jax-js counts references, and an operation consumes those of its
// arguments. The functions here take references of their own, so that arguments can be used again.

import { numpy as np } from '@jax-js/jax'
import type { ModelConfig } from '../../../worker/model/config.ts'

export type Tensor = np.Array
export type Parameters = Record<string, Tensor>
/**
 * The fields of a model that the oracle is told. How experts are spread over ranks is not among
 * them.
 */
export type OracleConfig = Omit<ModelConfig, 'expertParallelSize'>
/** The parameters of the whole model, or their gradients, by name. */
export type Values = ReadonlyMap<string, { shape: readonly number[]; values: ArrayLike<number> }>

export const constant = (values: ArrayLike<number>, shape: readonly number[]): Tensor =>
  np.array(Float64Array.from(values), { dtype: np.float64 }).reshape([...shape])

export const add = (a: Tensor, b: Tensor): Tensor => np.add(a.ref, b.ref)
export const subtract = (a: Tensor, b: Tensor): Tensor => np.subtract(a.ref, b.ref)
export const multiply = (a: Tensor, b: Tensor): Tensor => np.multiply(a.ref, b.ref)
export const divide = (a: Tensor, b: Tensor): Tensor => np.divide(a.ref, b.ref)
export const scale = (a: Tensor, by: number): Tensor => a.ref.mul(by)
/** The sum along one axis, which stays with length 1. */
export const sum = (a: Tensor, axis: number): Tensor => np.sum(a.ref, axis, { keepdims: true })
export const total = (a: Tensor): Tensor => np.sum(a.ref)
export const matmul = (a: Tensor, b: Tensor): Tensor => np.matmul(a.ref, b.ref)
export const transpose = (a: Tensor, axes: number[]): Tensor => np.transpose(a.ref, axes)
export const reshape = (a: Tensor, shape: number[]): Tensor => a.ref.reshape(shape)
/** Splits into equal parts along the last axis. */
export const split = (a: Tensor, parts: number): Tensor[] => np.split(a.ref, parts, a.shape.length - 1)
export const exp = (a: Tensor): Tensor => np.exp(a.ref)
export const log = (a: Tensor): Tensor => np.log(a.ref)
export const sqrt = (a: Tensor): Tensor => np.sqrt(a.ref)
export const tanh = (a: Tensor): Tensor => np.tanh(a.ref)
export const sigmoid = (a: Tensor): Tensor => np.reciprocal(exp(scale(a, -1)).add(1))

export function softmax(x: Tensor): Tensor {
  const e = exp(x)
  return divide(e, sum(e, -1))
}

/** Throws if the model has no such parameter. */
export function get(p: Parameters, name: string): Tensor {
  const found = p[name]
  if (!found) throw new Error(`the oracle has no parameter ${name}`)
  return found
}

export function rowsOf(matrix: Tensor): number[][] {
  const flat: number[] = reshape(matrix, [-1]).js()
  const width = matrix.shape[1] ?? 1
  return Array.from({ length: flat.length / width }, (_, n) => flat.slice(n * width, (n + 1) * width))
}

/**
 * Makes one parameter for each expert, `<name>[e]`, so that experts can be multiplied one by one.
 */
const partNames = (name: string, shape: readonly number[]) =>
  name.includes('.experts.') ? Array.from({ length: shape[0] ?? 0 }, (_, e) => `${name}[${e}]`) : [name]

export function toParameters(values: Values): Parameters {
  const p: Parameters = {}
  for (const [name, { shape, values: whole }] of values) {
    const parts = partNames(name, shape)
    const size = whole.length / parts.length
    for (const [e, part] of parts.entries()) {
      const own = Array.from({ length: size }, (_, i) => whole[e * size + i] ?? 0)
      p[part] = constant(own, parts[0] === name ? shape : shape.slice(1))
    }
  }
  return p
}

/** The inverse of `toParameters`: one array for each parameter of the model. */
export async function fromParameters(p: Parameters, like: Values): Promise<Map<string, Float64Array>> {
  const found = new Map<string, Float64Array>()
  for (const [name, { shape, values }] of like) {
    const parts = partNames(name, shape)
    const all = new Float64Array(values.length)
    for (const [e, part] of parts.entries()) all.set(await get(p, part).data(), (e * all.length) / parts.length)
    found.set(name, all)
  }
  return found
}
