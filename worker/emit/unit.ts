// A unit: dense blocks, the preceding block, and the block that carries the MoE layer. Each block
// is pre-norm (arXiv 2404.05019, eqs. 8 to 10): a = x + Attn(N(x)), and in blocks without MoE out =
// a + MLP(N(a)).

import { blocksOf } from '../model/config.ts'
import type { Part } from '../program/program.ts'
import { attention, attentionAgain, attentionBackward } from './attention.ts'
import type { Emitter } from './emitter.ts'
import { feedForward, feedForwardAgain, feedForwardBackward, norm, normBackward, RESIDUAL } from './layers.ts'
import { reduceBucket } from './reduce.ts'
import { branchBackward, type Sparse, sparseBackward, sparseForward } from './sparse.ts'

/** Buffers of the residual stream at a block: x before the block, a after its attention. */
interface BlockStream {
  block: number
  x: string
  a: string
}

/** The residual stream of a unit, block by block; `out` is the stream after the last block. */
export interface Stream {
  blocks: BlockStream[]
  out: string
}

interface Parts {
  attention: Part
  mlp: Part
}
const PRECEDING: Parts = { attention: 'attn0', mlp: 'mlp' }
const DENSE: Parts = { attention: 'dense', mlp: 'dense' }

export function unitForward(e: Emitter, unit: number, input: string): Stream {
  e.at({ unit, phase: 'forward' })
  const blocks: BlockStream[] = []
  let x = input
  for (const block of withoutMoe(e, unit)) {
    const a = attentionIn(e, block, x)
    blocks.push({ block, x, a })
    x = mlpIn(e, block, a)
  }
  if (e.config.kind === 'Dense') return { blocks, out: x }
  const { last } = blocksOf(e.config, unit)
  e.at({ part: 'attn1' })
  const a = attention(e, last, x)
  blocks.push({ block: last, x, a })
  return { blocks, out: sparseForward(e, sparseOf(e, blocks)) }
}

/**
 * The residual stream holds the gradient of the unit's output before these ops and that of its
 * input after them.
 */
export function unitBackward(e: Emitter, unit: number, { blocks }: Stream): void {
  e.at({ unit, phase: 'backward' })
  const dense = e.config.kind === 'Dense' ? blocks : blocks.slice(0, -1)
  const last = blocks.at(-1)
  if (e.config.kind !== 'Dense' && last !== undefined) lastBackward(e, blocks, last)
  for (const stream of dense.toReversed()) {
    mlpBackward(e, stream)
    branchBackwardAt(e, blocks, stream.a)
    attentionBackwardIn(e, stream)
    branchBackwardAt(e, blocks, stream.x)
  }
}

/** Blocks without an MoE layer, in order. */
function withoutMoe({ config }: Emitter, unit: number): number[] {
  const { dense, preceding, last } = blocksOf(config, unit)
  const early = preceding === undefined ? dense : [...dense, preceding]
  return config.kind === 'Dense' ? [...early, last] : early
}

/**
 * The stream that the experts read. Shortcut position 1 is the preceding block's output, 2 is after
 * its attention, 3 its input. Without a shortcut it is the stream after this block's attention.
 */
function sparseOf({ config }: Emitter, blocks: readonly BlockStream[]): Sparse {
  const last = blocks.at(-1)
  const preceding = blocks.at(-2)
  if (!last) throw new Error('a unit has at least one block')
  const { block, x, a: a2 } = last
  if (config.kind !== 'ScMoE' && config.kind !== 'DGMoE') return { block, source: a2, a2 }
  const sources = { 1: x, 2: preceding?.a ?? x, 3: preceding?.x ?? x }
  return { block, source: sources[config.shortcutPosition], a2 }
}

/**
 * If the experts read `stream`, adds their part of its gradient, now that all other parts are in
 * it.
 */
function branchBackwardAt(e: Emitter, blocks: readonly BlockStream[], stream: string): void {
  if (e.config.kind === 'Dense') return
  const sparse = sparseOf(e, blocks)
  if (sparse.source === stream) branchBackward(e, sparse)
}

function lastBackward(e: Emitter, blocks: readonly BlockStream[], { block, x, a }: BlockStream): void {
  sparseBackward(e, sparseOf(e, blocks))
  branchBackwardAt(e, blocks, a)
  e.at({ part: 'attn1' })
  if (e.config.recompute) e.again(() => attentionAgain(e, block, x))
  attentionBackward(e, block, x)
  reduceBucket(e, `blocks.${block}.attn`)
  branchBackwardAt(e, blocks, x)
}

const partsOf = (e: Emitter, block: number): Parts =>
  e.config.kind !== 'Dense' && block === blocksOf(e.config, e.segment.unit).preceding ? PRECEDING : DENSE

/** Emits ops of a block. Labels of ops in dense blocks have the block's number. */
function inBlock(e: Emitter, block: number, part: keyof Parts, emit: () => void): void {
  const parts = partsOf(e, block)
  e.at({ part: parts[part] })
  if (parts === PRECEDING) emit()
  else e.within(`${block}.${part}`, emit)
}

function attentionIn(e: Emitter, block: number, x: string): string {
  let a = ''
  inBlock(e, block, 'attention', () => {
    a = attention(e, block, x)
  })
  return a
}

function mlpIn(e: Emitter, block: number, a: string): string {
  const mlp = `blocks.${block}.mlp`
  let out = ''
  inBlock(e, block, 'mlp', () => {
    out = feedForward(e, mlp, norm(e, `${mlp}.norm`, a), a)
  })
  return out
}

function mlpBackward(e: Emitter, { block, a }: BlockStream): void {
  const mlp = `blocks.${block}.mlp`
  inBlock(e, block, 'mlp', () => {
    if (e.config.recompute) e.again(() => feedForwardAgain(e, mlp, norm(e, `${mlp}.norm`, a)))
    normBackward(e, `${mlp}.norm`, { dy: feedForwardBackward(e, mlp, { dy: RESIDUAL, x: `${mlp}.norm.y` }), x: a })
  })
  reduceBucket(e, mlp)
}

function attentionBackwardIn(e: Emitter, { block, x }: BlockStream): void {
  inBlock(e, block, 'attention', () => {
    if (e.config.recompute) e.again(() => attentionAgain(e, block, x))
    attentionBackward(e, block, x)
  })
  reduceBucket(e, `blocks.${block}.attn`)
}
