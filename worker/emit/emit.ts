// Emits the programs of a job as flat lists of ops over named buffers. The order of ops defines the
// numbers; the schedule decides where and when ops run. With micro-batches, an optimizer step is
// accumulate.first, accumulate (microBatches - 2 times), then train.

import type { ModelConfig } from '../model/config.ts'
import type { Emitted } from '../program/program.ts'
import { declarePersistent } from './buffers.ts'
import { Emitter } from './emitter.ts'
import { embedding, embeddingBackward, head, headBackward } from './head.ts'
import { reduceBucket } from './reduce.ts'
import { type Stream, unitBackward, unitForward } from './unit.ts'
import { gradientNorm, optimizerStep, reduceStatistics, zeroGradients } from './update.ts'

export { BUFFER } from './buffers.ts'

/**
 * Forward, backward, sum over ranks, norm, clipping and AdamW. With a single micro-batch, gradients
 * are zeroed first.
 */
export function emitTrain(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank, config.microBatches)
  declarePersistent(e)
  if (config.microBatches === 1) zeroGradients(e)
  forwardBackward(e)
  gradientNorm(e)
  optimizerStep(e)
  return e.finish('train')
}

/**
 * A micro-batch before the last: forward and backward. The next one adds to its gradients and
 * losses.
 */
export function emitMicroBatch(config: ModelConfig, rank: number, first: boolean): Emitted {
  const e = new Emitter(config, rank, config.microBatches)
  e.reduces = false
  declarePersistent(e)
  if (first) zeroGradients(e)
  forwardBackward(e)
  return e.finish(first ? 'accumulate.first' : 'accumulate')
}

/** Losses, all gradients and their norm for one micro-batch. Parameters stay as they are. */
export function emitGradients(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank)
  declarePersistent(e)
  zeroGradients(e)
  forwardBackward(e)
  gradientNorm(e)
  return e.finish('gradients')
}

/** Only forward and loss, over the same persistent buffers. */
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
  // The gradient of a tied head is part of the embedding's, and there is no bucket 'head' then.
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
