// Layers of the oracle. Inputs and outputs are [rows, width]. The parameters of a layer are named
// after its scope: `<scope>.weight`, `<scope>.bias`, ...

import {
  add,
  constant,
  divide,
  exp,
  get,
  matmul,
  multiply,
  type OracleConfig,
  type Parameters,
  reshape,
  scale,
  sigmoid,
  softmax,
  split,
  sqrt,
  subtract,
  sum,
  type Tensor,
  tanh,
  transpose,
} from './tensor.ts'

const EPSILON = 1e-5

/** LayerNorm, or RMSNorm (arXiv 1910.07467), which neither centres nor shifts. */
export function norm(p: Parameters, scope: string, x: Tensor, config: OracleConfig): Tensor {
  const width = x.shape.at(-1) ?? 1
  const isRms = config.norm === 'RMSNorm'
  const centred = isRms ? x : subtract(x, scale(sum(x, -1), 1 / width))
  const variance = scale(sum(multiply(centred, centred), -1), 1 / width)
  const scaled = multiply(divide(centred, sqrt(variance.add(EPSILON))), get(p, `${scope}.gamma`))
  return isRms ? scaled : add(scaled, get(p, `${scope}.beta`))
}

/** A linear layer. `of` is a suffix that tells experts apart. */
export function linear(p: Parameters, scope: string, x: Tensor, of = ''): Tensor {
  const y = matmul(x, transpose(get(p, `${scope}.weight${of}`), [1, 0]))
  const bias = p[`${scope}.bias${of}`]
  return bias ? add(y, bias) : y
}

/** GELU in the tanh approximation. */
function gelu(x: Tensor): Tensor {
  const cube = multiply(x, multiply(x, x))
  const inner = scale(add(x, scale(cube, 0.044715)), Math.sqrt(2 / Math.PI))
  return scale(multiply(x, tanh(inner).add(1)), 0.5)
}

/** SwiGLU of x = g | u, i.e. silu(g) * u (arXiv 2002.05202). */
function swiglu(x: Tensor): Tensor {
  const [g, u] = split(x, 2)
  if (!g || !u) throw new Error('split gave fewer than two parts')
  return multiply(multiply(g, sigmoid(g)), u)
}

export function feedForward(p: Parameters, scope: string, x: Tensor, { config, of = '' }: Expert): Tensor {
  const hidden = linear(p, `${scope}.up`, x, of)
  return linear(p, `${scope}.down`, config.activation === 'SwiGLU' ? swiglu(hidden) : gelu(hidden), of)
}
interface Expert {
  config: OracleConfig
  of?: string
}

/**
 * A matrix [all, heads * width] that picks the given heads, of `width` columns each, in order. A
 * head may be picked more than once.
 */
function picking(heads: readonly number[], all: number, width: number): Tensor {
  const columns = heads.length * width
  const mask = new Float64Array(all * columns)
  for (const [to, from] of heads.entries())
    for (let j = 0; j < width; j++) mask[(from * width + j) * columns + to * width + j] = 1
  return constant(mask, [all, columns])
}

/**
 * Rotary positions (arXiv 2104.09864) on x [B, H, T, w]: the pair (x_j, x_{j + w/2}) of position t
 * turns by the angle t * base^(-2j/w). In complex numbers this is (a + ib)(cos + i sin); the factor
 * i is written as a matrix.
 */
function rotate(x: Tensor, base: number): Tensor {
  const [, , sequence = 0, width = 0] = x.shape
  const half = width / 2
  const angles = Array.from({ length: sequence * width }, (_, i) => {
    const j = (i % width) % half
    return Math.floor(i / width) / base ** ((2 * j) / width)
  })
  const turn = new Float64Array(width * width)
  for (let j = 0; j < half; j++) {
    turn[(j + half) * width + j] = -1
    turn[j * width + j + half] = 1
  }
  const shape = [1, 1, sequence, width]
  const quarter = matmul(x, constant(turn, [1, 1, width, width]))
  return add(
    multiply(x, constant(angles.map(Math.cos), shape)),
    multiply(quarter, constant(angles.map(Math.sin), shape)),
  )
}

/**
 * x + Attn(N(x)). Each key and value head serves heads / keyValueHeads consecutive query heads
 * (arXiv 2305.13245).
 */
export function attention(p: Parameters, scope: string, x: Tensor, config: OracleConfig): Tensor {
  const { sequence, heads, keyValueHeads, dim, positions, ropeBase } = config
  const rows = x.shape[0] ?? 0
  const width = dim / heads
  const qkv = linear(p, `${scope}.qkv`, norm(p, `${scope}.norm`, x, config))
  const all = (heads + 2 * keyValueHeads) * width
  const part = (first: number, shared: number) => {
    const picked = Array.from({ length: heads }, (_, head) => first + Math.floor(head / shared))
    const columns = matmul(qkv, picking(picked, all, width))
    return transpose(reshape(columns, [rows / sequence, sequence, heads, width]), [0, 2, 1, 3])
  }
  const group = heads / keyValueHeads
  const turned = (y: Tensor) => (positions === 'RoPE' ? rotate(y, ropeBase) : y)
  const q = turned(part(0, 1))
  const k = turned(part(heads, group))
  const v = part(heads + keyValueHeads, group)
  const past = Array.from({ length: sequence ** 2 }, (_, i) => (i % sequence <= Math.floor(i / sequence) ? 1 : 0))
  const scores = multiply(
    exp(scale(matmul(q, transpose(k, [0, 1, 3, 2])), 1 / Math.sqrt(width))),
    constant(past, [1, 1, sequence, sequence]),
  )
  const mixed = matmul(divide(scores, sum(scores, -1)), v)
  return add(x, linear(p, `${scope}.proj`, reshape(transpose(mixed, [0, 2, 1, 3]), [rows, dim])))
}

/**
 * Coefficients of the shared and of the routed experts, [rows, 1] each, from the input of the gate
 * (arXiv 2404.05019, eqs. 14 to 17). Undefined means 1.
 */
export function coefficients(
  p: Parameters,
  scope: string,
  x: Tensor,
  { coefficientGate, dim }: OracleConfig,
): { shared?: Tensor; routed?: Tensor } {
  if (coefficientGate === 'DirectAdd') return {}
  const weight = get(p, `${scope}.weight`)
  if (coefficientGate === 'CG1') return { shared: sigmoid(matmul(x, reshape(weight, [dim, 1]))) }
  const [shared, routed] = split(softmax(matmul(x, transpose(weight, [1, 0]))), 2)
  return { ...(shared && { shared }), ...(routed && { routed }) }
}
