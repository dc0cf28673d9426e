// The whole model once more, in float64, with automatic differentiation (@jax-js/jax), so that it
// shares no formula of a gradient with the engine. The tokens of all ranks are one batch. Every
// expert computes all tokens and its results are weighted, so there is no dispatch that could be
// wrong.

import { defaultDevice, init, valueAndGrad } from '@jax-js/jax'
import { blocksOf } from '../../../worker/model/config.ts'
import { attention, coefficients, feedForward, linear, norm } from './layers.ts'
import { type Routing, routing } from './routing.ts'
import {
  add,
  constant,
  divide,
  exp,
  fromParameters,
  get,
  log,
  matmul,
  multiply,
  type OracleConfig,
  type Parameters,
  reshape,
  rowsOf,
  scale,
  softmax,
  split,
  subtract,
  sum,
  type Tensor,
  toParameters,
  total,
  transpose,
  type Values,
} from './tensor.ts'

/** Results of an optimizer step: means over all tokens, and over its micro-batches. */
export interface OracleResult {
  loss: number
  /**
   * Load-balance loss of every unit, without its coefficient. For DGMoE it is the mean of both
   * ways.
   */
  aux: number[]
  /** Router z-loss of every unit, in the same way. */
  z: number[]
  gradients: Map<string, Float64Array>
  /** Share of choices that were dropped because of capacity. */
  dropped: number
  /** First choices of every way through a MoE layer, e.g. `micro-batch 0, unit 1, current`. */
  experts: ReadonlyMap<string, readonly number[]>
}

/** The name of one way of a micro-batch's tokens through a MoE layer. */
const wayName = (micro: number, unit: number, way: string) => `micro-batch ${micro}, unit ${unit}, ${way}`

interface Model {
  config: OracleConfig
  micro: number
  /** The first forward pass finds the routing, and the second one is given it. */
  routings: Map<string, Routing>
}

interface Way {
  unit: number
  way: 'routed' | 'current'
  taken?: readonly number[]
}

interface Losses {
  aux: Tensor
  z: Tensor
}

/** m[n] = sum_i G(x)_i E_i(x), and the losses of this way. */
function moe(
  p: Parameters,
  scope: string,
  x: Tensor,
  model: Model & Way,
): Losses & { m: Tensor; first: readonly number[] } {
  const { config, routings, taken } = model
  const rows = x.shape[0] ?? 1
  const logits = matmul(x, transpose(get(p, `${scope}.router.weight`), [1, 0]))
  const probs = softmax(logits)
  const name = wayName(model.micro, model.unit, model.way)
  const routed = routings.get(name) ?? routing(rowsOf(probs), config, taken)
  routings.set(name, routed)
  let weights = routed.chosen.map(mask => sum(multiply(probs, mask), -1))
  const [first, second] = weights
  if (first && second) weights = weights.map(weight => divide(weight, add(first, second)))
  // [N, E]: the weight of each expert's result for each token.
  const gate = weights.map((weight, i) => multiply(routed.kept[i] ?? weight, weight)).reduce(add)
  const m = split(gate, config.experts)
    .map((weight, e) => multiply(feedForward(p, `${scope}.experts`, x, { config, of: `[${e}]` }), weight))
    .reduce(add)
  const mean = scale(sum(probs, 0), 1 / rows)
  const lse = log(sum(exp(logits), -1))
  return {
    m,
    first: routed.first,
    aux: scale(total(multiply(mean, routed.share)), config.experts),
    z: scale(total(multiply(lse, lse)), 1 / rows),
  }
}

/**
 * The streams that experts may read: the input of the preceding block, the stream after its
 * attention, its output, and the stream after the last block's attention.
 */
interface Streams {
  h0: Tensor
  a1: Tensor
  h1: Tensor
  a2: Tensor
}

/** The output of the block that has the MoE layer. */
function sparse(p: Parameters, block: number, streams: Streams, model: Model & { unit: number }) {
  const { config } = model
  const { a2 } = streams
  const scope = `blocks.${block}`
  const normalised = (x: Tensor) => norm(p, `${scope}.moe.norm`, x, config)
  const hasShortcut = config.kind === 'ScMoE' || config.kind === 'DGMoE'
  const source = hasShortcut ? { 1: streams.h1, 2: streams.a1, 3: streams.h0 }[config.shortcutPosition] : a2
  const x = normalised(source)
  const routed = moe(p, `${scope}.moe`, x, { ...model, way: 'routed' })
  if (config.kind === 'DGMoE') {
    const way = { ...model, way: 'current', taken: routed.first } as const
    const current = moe(p, `${scope}.moe`, normalised(a2), way)
    const mean = (a: Tensor, b: Tensor) => scale(add(a, b), 0.5)
    return {
      out: add(a2, add(routed.m, current.m)),
      aux: mean(routed.aux, current.aux),
      z: mean(routed.z, current.z),
    }
  }
  if (config.kind === 'Top1' || config.kind === 'Top2') return { ...routed, out: add(a2, routed.m) }
  const n = config.kind === 'ScMoE' ? norm(p, `${scope}.shared.norm`, a2, config) : x
  const s = feedForward(p, `${scope}.shared`, n, { config })
  const c = coefficients(p, `${scope}.shared.gate`, n, config)
  const weighed = (y: Tensor, by: Tensor | undefined) => (by ? multiply(y, by) : y)
  return { ...routed, out: add(a2, add(weighed(s, c.shared), weighed(routed.m, c.routed))) }
}

function unitForward(p: Parameters, unit: number, h: Tensor, model: Model): { out: Tensor; losses?: Losses } {
  const { config } = model
  const { dense, preceding, last } = blocksOf(config, unit)
  const before = [...dense, ...(preceding === undefined ? [] : [preceding])]
  let streams = { h0: h, a1: h, h1: h }
  for (const block of config.kind === 'Dense' ? [...before, last] : before) {
    const h0 = streams.h1
    const a1 = attention(p, `blocks.${block}.attn`, h0, config)
    const mlp = `blocks.${block}.mlp`
    streams = { h0, a1, h1: add(a1, feedForward(p, mlp, norm(p, `${mlp}.norm`, a1, config), { config })) }
  }
  if (config.kind === 'Dense') return { out: streams.h1 }
  const a2 = attention(p, `blocks.${last}.attn`, streams.h1, config)
  const { out, aux, z } = sparse(p, last, { ...streams, a2 }, { ...model, unit })
  return { out, losses: { aux, z } }
}

/** Computes one micro-batch. `tokens` has rows of T+1, for all sequences of all ranks. */
function forward(p: Parameters, tokens: Int32Array, model: Model) {
  const { sequence, vocabulary, units, dim, positions, tieEmbeddings } = model.config
  const sequences = tokens.length / (sequence + 1)
  const rows = sequences * sequence
  const oneHot = (shift: number) => {
    const mask = new Float64Array(rows * vocabulary)
    for (let b = 0; b < sequences; b++)
      for (let t = 0; t < sequence; t++)
        mask[(b * sequence + t) * vocabulary + (tokens[b * (sequence + 1) + t + shift] ?? 0)] = 1
    return constant(mask, [rows, vocabulary])
  }
  const embedded = reshape(matmul(oneHot(0), get(p, 'wte')), [sequences, sequence, dim])
  let h = reshape(positions === 'Learned' ? add(embedded, get(p, 'wpe')) : embedded, [rows, dim])
  const losses: Losses[] = []
  for (let unit = 0; unit < units; unit++) {
    const result = unitForward(p, unit, h, model)
    h = result.out
    if (result.losses) losses.push(result.losses)
  }
  const n = norm(p, 'norm', h, model.config)
  const logits = tieEmbeddings ? matmul(n, transpose(get(p, 'wte'), [1, 0])) : linear(p, 'head', n)
  const likelihood = subtract(log(sum(exp(logits), -1)), sum(multiply(logits, oneHot(1)), -1))
  return { loss: scale(total(likelihood), 1 / rows), aux: losses.map(l => l.aux), z: losses.map(l => l.z) }
}

/** The means over the micro-batches of a step. */
function step(p: Parameters, tokens: Int32Array, config: OracleConfig, routings: Map<string, Routing>) {
  const { microBatches } = config
  const size = tokens.length / microBatches
  const parts = Array.from({ length: microBatches }, (_, micro) =>
    forward(p, tokens.subarray(micro * size, (micro + 1) * size), { config, micro, routings }),
  )
  const mean = (of: (part: (typeof parts)[number]) => Tensor) => scale(parts.map(of).reduce(add), 1 / microBatches)
  const unitMeans = (name: 'aux' | 'z') =>
    (parts[0]?.[name] ?? []).map((first, unit) => mean(part => part[name][unit] ?? first))
  return { loss: mean(part => part.loss), aux: unitMeans('aux'), z: unitMeans('z') }
}

/**
 * Computes a step. `values` has the global values of every tensor by name; `tokens` are those of
 * all micro-batches in order, and within each micro-batch those of all ranks in order.
 */
export async function oracle(config: OracleConfig, values: Values, tokens: Int32Array): Promise<OracleResult> {
  await init('cpu')
  defaultDevice('cpu')
  const p = toParameters(values)
  const routings = new Map<string, Routing>()
  const first = step(p, tokens, config, routings)
  const numbers = (list: readonly Tensor[]) => list.map(value => Number(value.js()))
  const result = { loss: Number(first.loss.js()), aux: numbers(first.aux), z: numbers(first.z) }
  const objective = (q: Parameters) => {
    const { loss, aux, z } = step(q, tokens, config, routings)
    const weighed = [
      ...aux.map(value => scale(value, config.auxCoefficient)),
      ...z.map(value => scale(value, config.zCoefficient)),
    ]
    return weighed.reduce(add, loss)
  }
  const [, gradient] = valueAndGrad(objective)(p)
  const shares = [...routings.values()]
  return {
    ...result,
    gradients: await fromParameters(gradient, values),
    dropped: shares.reduce((mean, share) => mean + share.dropped / shares.length, 0),
    experts: new Map([...routings].map(([name, { first: choice }]) => [name, choice])),
  }
}
