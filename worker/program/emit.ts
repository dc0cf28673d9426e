// The programs of a job, as flat lists of ops over named buffers. The order defines the numbers; where ops run is the schedule's business.
// With micro-batches an optimizer step is accumulate.first, accumulate (microBatches - 2 times), train.

import type { ModelConfig } from '../model.ts'
import { declarePersistent } from './buffers.ts'
import { Emitter } from './emitter.ts'
import { embedding, embeddingBackward, head, headBackward } from './head.ts'
import type { Emitted } from './program.ts'
import { type Stream, unitBackward, unitForward } from './unit.ts'
import { gradientNorm, optimizerStep, reduceBucket, reduceStatistics, zeroGradients } from './update.ts'

export { BUFFER } from './buffers.ts'

/** Forward, backward, sum over ranks, norm, clip, AdamW; with a single micro-batch zero gradients first. */
export function emitTrain(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank, config.microBatches)
  declarePersistent(e)
  if (config.microBatches === 1) zeroGradients(e)
  forwardBackward(e)
  gradientNorm(e)
  optimizerStep(e)
  return e.finish('train')
}

/** A micro-batch before the last: forward and backward, gradients and losses left for the next to add to. */
export function emitMicroBatch(config: ModelConfig, rank: number, first: boolean): Emitted {
  const e = new Emitter(config, rank, config.microBatches)
  e.reduces = false
  declarePersistent(e)
  if (first) zeroGradients(e)
  forwardBackward(e)
  return e.finish(first ? 'accumulate.first' : 'accumulate')
}

/** Losses, all gradients and their norm of one micro-batch; parameters stay. */
export function emitGradients(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank)
  declarePersistent(e)
  zeroGradients(e)
  forwardBackward(e)
  gradientNorm(e)
  return e.finish('gradients')
}

/** Forward and loss only, over the same persistent buffers. */
export function emitEvaluate(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank)
  declarePersistent(e)
  head(e, forward(e).out, false)
  reduceStatistics(e)
  return e.finish('evaluate')
}

function forwardBackward(e: Emitter): void {
  const { streams, out } = forward(e)
  head(e, out, true)
  reduceStatistics(e)
  headBackward(e, out)
  // A tied head's gradient is part of the embedding's.
  reduceBucket(e, 'head')
  for (const [unit, stream] of [...streams.entries()].toReversed()) unitBackward(e, unit, stream)
  embeddingBackward(e)
  reduceBucket(e, 'embedding')
}

function forward(e: Emitter): { streams: Stream[]; out: string } {
  const streams: Stream[] = []
  let out = embedding(e)
  for (let unit = 0; unit < e.config.units; unit++) {
    const stream = unitForward(e, unit, out)
    streams.push(stream)
    out = stream.out
  }
  return { streams, out }
}
