// The whole model once more, in float64, by automatic differentiation (@jax-js/jax): shares no formula of a gradient with the engine.
// All ranks' tokens in one batch; every expert sees all tokens and its result is weighted, so no dispatch exists that could be wrong.

import { defaultDevice, init, numpy as np, valueAndGrad } from '@jax-js/jax'
import type { ModelConfig } from '../../worker/model.ts'

type Tensor = np.Array
type Parameters = Record<string, Tensor>

export interface OracleResult {
  loss: number
  /** Load-balance loss of every pair, without its coefficient. */
  aux: number[]
  gradients: Map<string, Float64Array>
  /** Share of choices that capacity dropped. */
  dropped: number
}

/** Weights of choice i as masks [N, E], and the share f_e of choices per expert before any drop. */
interface Routing {
  chosen: Tensor[]
  kept: Tensor[]
  share: Tensor
  dropped: number
}

// jax-js counts references: every function here borrows its arguments.
const constant = (values: ArrayLike<number>, shape: number[]) =>
  np.array(Float64Array.from(values), { dtype: np.float64 }).reshape(shape)
const add = (a: Tensor, b: Tensor) => np.add(a.ref, b.ref)
const subtract = (a: Tensor, b: Tensor) => np.subtract(a.ref, b.ref)
const multiply = (a: Tensor, b: Tensor) => np.multiply(a.ref, b.ref)
const divide = (a: Tensor, b: Tensor) => np.divide(a.ref, b.ref)
const scale = (a: Tensor, by: number) => a.ref.mul(by)
const sum = (a: Tensor, axis: number) => np.sum(a.ref, axis, { keepdims: true })
const matmul = (a: Tensor, b: Tensor) => np.matmul(a.ref, b.ref)
const transpose = (a: Tensor, axes: number[]) => np.transpose(a.ref, axes)
const reshape = (a: Tensor, shape: number[]) => a.ref.reshape(shape)
const exp = (a: Tensor) => np.exp(a.ref)

/** Throws where the model has no such parameter. */
function get(p: Parameters, name: string): Tensor {
  const found = p[name]
  if (!found) throw new Error(`the oracle has no parameter ${name}`)
  return found
}

function layernorm(p: Parameters, scope: string, x: Tensor): Tensor {
  const width = x.shape.at(-1) ?? 1
  const centred = subtract(x, scale(sum(x, -1), 1 / width))
  const variance = scale(sum(multiply(centred, centred), -1), 1 / width)
  const normalised = divide(centred, np.sqrt(variance.add(1e-5)))
  return add(multiply(normalised, get(p, `${scope}.gamma`)), get(p, `${scope}.beta`))
}

const linear = (p: Parameters, scope: string, x: Tensor, of = '') =>
  add(matmul(x, transpose(get(p, `${scope}.weight${of}`), [1, 0])), get(p, `${scope}.bias${of}`))

function gelu(x: Tensor): Tensor {
  const cube = multiply(x, multiply(x, x))
  const inner = scale(add(x, scale(cube, 0.044715)), Math.sqrt(2 / Math.PI))
  return scale(multiply(x, np.tanh(inner).add(1)), 0.5)
}

const feedForward = (p: Parameters, scope: string, x: Tensor, of = '') =>
  linear(p, `${scope}.down`, gelu(linear(p, `${scope}.up`, x, of)), of)

function attention(p: Parameters, scope: string, x: Tensor, config: ModelConfig): Tensor {
  const { sequence, heads, dim } = config
  const rows = x.shape[0] ?? 0
  const width = dim / heads
  const qkv = linear(p, `${scope}.qkv`, layernorm(p, `${scope}.norm`, x))
  const [q, k, v] = np
    .split(qkv, 3, 1)
    .map(part => transpose(reshape(part, [rows / sequence, sequence, heads, width]), [0, 2, 1, 3]))
  if (!q || !k || !v) throw new Error('split gave fewer than three parts')
  const past = constant(
    Array.from({ length: sequence ** 2 }, (_, i) => (i % sequence <= Math.floor(i / sequence) ? 1 : 0)),
    [1, 1, sequence, sequence],
  )
  const scores = multiply(exp(scale(matmul(q, transpose(k, [0, 1, 3, 2])), 1 / Math.sqrt(width))), past)
  const mixed = matmul(divide(scores, sum(scores, -1)), v)
  return add(x, linear(p, `${scope}.proj`, reshape(transpose(mixed, [0, 2, 1, 3]), [rows, dim])))
}

function softmax(x: Tensor): Tensor {
  const e = exp(x)
  return divide(e, sum(e, -1))
}

/** m and the balance loss. `route` says which expert each token chose, from concrete probabilities. */
function moe(
  p: Parameters,
  scope: string,
  x: Tensor,
  model: { config: ModelConfig; route: (probs: Tensor) => Routing },
) {
  const { experts } = model.config
  const probs = softmax(matmul(x, transpose(get(p, `${scope}.router.weight`), [1, 0])))
  const { chosen, kept, share } = model.route(probs)
  let weights = chosen.map(mask => sum(multiply(probs, mask), -1))
  const [first, second] = weights
  if (first && second) weights = weights.map(weight => divide(weight, add(first, second)))
  // [N, E]: what each expert's result counts for each token.
  const gate = weights.map((weight, i) => multiply(kept[i] ?? weight, weight)).reduce(add)
  const columns = np.split(gate, experts, 1)
  const m = columns.map((weight, e) => multiply(feedForward(p, `${scope}.experts`, x, `[${e}]`), weight)).reduce(add)
  const mean = scale(sum(probs, 0), 1 / (x.shape[0] ?? 1))
  return { m, aux: scale(np.sum(multiply(mean, share)), experts) }
}

function pairForward(p: Parameters, pair: number, h0: Tensor, model: Model) {
  const [dense, sparse] = [`blocks.${2 * pair}`, `blocks.${2 * pair + 1}`]
  const { config } = model
  const a1 = attention(p, `${dense}.attn`, h0, config)
  const h1 = add(a1, feedForward(p, `${dense}.mlp`, layernorm(p, `${dense}.mlp.norm`, a1)))
  const a2 = attention(p, `${sparse}.attn`, h1, config)
  const source = config.kind === 'ScMoE' ? a1 : a2
  const x = layernorm(p, `${sparse}.moe.norm`, source)
  const { m, aux } = moe(p, `${sparse}.moe`, x, { config, route: probs => model.route(pair, probs) })
  const branch = add(a2, m)
  if (config.kind === 'Top2') return { out: branch, aux }
  if (config.kind === 'SharedExpert') return { out: add(branch, feedForward(p, `${sparse}.shared`, x)), aux }
  const n = layernorm(p, `${sparse}.shared.norm`, a2)
  const score = matmul(n, reshape(get(p, `${sparse}.shared.gate.weight`), [config.dim, 1]))
  const c = np.reciprocal(exp(scale(score, -1)).add(1))
  return { out: add(branch, multiply(feedForward(p, `${sparse}.shared`, n), c)), aux }
}

interface Model {
  config: ModelConfig
  route: (pair: number, probs: Tensor) => Routing
}

/** tokens: rows of T+1, all sequences of all ranks. */
function forward(p: Parameters, tokens: Int32Array, model: Model) {
  const { sequence, vocabulary, pairs, dim } = model.config
  const sequences = tokens.length / (sequence + 1)
  const oneHot = (shift: number) => {
    const mask = new Float64Array(sequences * sequence * vocabulary)
    for (let b = 0; b < sequences; b++)
      for (let t = 0; t < sequence; t++)
        mask[(b * sequence + t) * vocabulary + (tokens[b * (sequence + 1) + t + shift] ?? 0)] = 1
    return constant(mask, [sequences * sequence, vocabulary])
  }
  const embedded = reshape(matmul(oneHot(0), get(p, 'wte')), [sequences, sequence, dim])
  let h = reshape(add(embedded, get(p, 'wpe')), [sequences * sequence, dim])
  const aux: Tensor[] = []
  for (let pair = 0; pair < pairs; pair++) {
    const result = pairForward(p, pair, h, model)
    h = result.out
    aux.push(result.aux)
  }
  const logits = linear(p, 'head', layernorm(p, 'norm', h))
  const likelihood = subtract(np.log(sum(exp(logits), -1)), sum(multiply(logits, oneHot(1)), -1))
  return { loss: scale(np.sum(likelihood), 1 / (sequences * sequence)), aux }
}

/** The k largest of every row, ties to the lower index; places counted rank by rank, first choices of all tokens before second ones. */
function routing(probs: readonly number[][], config: ModelConfig): Routing {
  const { experts, topK, capacity, batch, sequence } = config
  const rows = probs.length
  const perRank = batch * sequence
  const order = probs.map(row =>
    row.map((value, e) => ({ value, e })).toSorted((a, b) => b.value - a.value || a.e - b.e),
  )
  const chosen = Array.from({ length: topK }, () => new Float64Array(rows * experts))
  const kept = Array.from({ length: topK }, () => new Float64Array(rows * experts))
  const share = new Float64Array(experts)
  let dropped = 0
  for (let first = 0; first < rows; first += perRank) {
    const taken = new Float64Array(experts)
    for (let i = 0; i < topK; i++)
      for (let n = first; n < first + perRank; n++) {
        const e = order[n]?.[i]?.e ?? 0
        const fits = (taken[e] ?? 0) < capacity
        taken[e] = (taken[e] ?? 0) + 1
        share[e] = (share[e] ?? 0) + 1 / (rows * topK)
        chosen[i]?.fill(1, n * experts + e, n * experts + e + 1)
        if (fits) kept[i]?.fill(1, n * experts + e, n * experts + e + 1)
        else dropped += 1 / (rows * topK)
      }
  }
  const masks = (list: Float64Array[]) => list.map(values => constant(values, [rows, experts]))
  return { chosen: masks(chosen), kept: masks(kept), share: constant(share, [1, experts]), dropped }
}

/** Global values of every tensor by name; `tokens` of all ranks, rank by rank. */
export async function oracle(
  config: ModelConfig,
  values: ReadonlyMap<string, { shape: readonly number[]; values: ArrayLike<number> }>,
  tokens: Int32Array,
): Promise<OracleResult> {
  await init('cpu')
  defaultDevice('cpu')
  const p = toParameters(values)
  const routings: Routing[] = []
  const first = forward(p, tokens, {
    config,
    route: (pair, probs) => (routings[pair] = routing(rowsOf(probs), config)),
  })
  const result = { loss: Number(first.loss.js()), aux: first.aux.map(aux => Number(aux.js())) }
  const objective = (q: Parameters) => {
    const route = (pair: number) => routings[pair] ?? routing([], config)
    const { loss, aux } = forward(q, tokens, { config, route })
    return add(loss, scale(aux.reduce(add), config.auxCoefficient))
  }
  const [, gradient] = valueAndGrad(objective)(p)
  const gradients = new Map<string, Float64Array>()
  for (const [name, { shape, values: whole }] of values) {
    const all = new Float64Array(whole.length)
    for (const [e, part] of partNames(name, shape).entries())
      all.set(await get(gradient, part).data(), (e * whole.length) / partNames(name, shape).length)
    gradients.set(name, all)
  }
  return { ...result, gradients, dropped: routings.reduce((total, { dropped }) => total + dropped / config.pairs, 0) }
}

function rowsOf(probs: Tensor): number[][] {
  const flat: number[] = reshape(probs, [-1]).js()
  const width = probs.shape[1] ?? 1
  return Array.from({ length: flat.length / width }, (_, n) => flat.slice(n * width, (n + 1) * width))
}

/** One parameter per expert, so that each can be multiplied by itself. */
const partNames = (name: string, shape: readonly number[]) =>
  name.includes('.experts.') ? Array.from({ length: shape[0] ?? 0 }, (_, e) => `${name}[${e}]`) : [name]

function toParameters(
  values: ReadonlyMap<string, { shape: readonly number[]; values: ArrayLike<number> }>,
): Parameters {
  const p: Parameters = {}
  for (const [name, { shape, values: whole }] of values) {
    const parts = partNames(name, shape)
    const size = whole.length / parts.length
    for (const [e, part] of parts.entries())
      p[part] = constant(
        Array.from({ length: size }, (_, i) => whole[e * size + i] ?? 0),
        parts[0] === name ? [...shape] : shape.slice(1),
      )
  }
  return p
}
