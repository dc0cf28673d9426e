// Initial values of a model's tensors. Pure.

import type { Slice, Tensor } from './tensors.ts'

/**
 * Initial values of a slice. Element i depends only on the tensor's name, the seed and i, so every
 * number of ranks starts with the same model. Normal values come from Box-Muller, one pair for the
 * elements 2j and 2j + 1.
 */
export function initialise(tensor: Pick<Tensor, 'name' | 'init'>, seed: number, slice: Slice): Float32Array {
  const { init } = tensor
  const values = new Float32Array(slice.count)
  if (init.kind !== 'normal') return init.kind === 'ones' ? values.fill(1) : values
  const first = mix(hash(tensor.name) ^ seed)
  const second = mix(first + 0x9e3779b9 + seed)
  for (let at = 0; at < slice.count; ) {
    const pair = Math.floor((slice.start + at) / 2)
    const low = pair >>> 0
    const high = Math.floor(pair / 2 ** 32)
    const radius = Math.sqrt(-2 * Math.log((mix(mix(low + first) ^ (second + high)) + 0.5) / 2 ** 32)) * init.std
    const angle = (mix(mix(low + second) ^ (first - high)) / 2 ** 32) * 2 * Math.PI
    if ((slice.start + at) % 2 === 0) values[at++] = radius * Math.cos(angle)
    if (at < slice.count) values[at++] = radius * Math.sin(angle)
  }
  return values
}

/** A bijection on 32 bits whose every output bit depends on every input bit. */
function mix(value: number): number {
  let x = value | 0
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d)
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b)
  return (x ^ (x >>> 16)) >>> 0
}

/** The FNV-1a hash of 32 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h >>> 0
}
