// The two programs of a job, as flat lists of ops over named buffers. The order defines the numbers; where ops run is the schedule's business.

import type { ModelConfig } from '../model.ts'
import { declarePersistent } from './buffers.ts'
import { Emitter } from './emitter.ts'
import { embedding, embeddingBackward, head, headBackward } from './head.ts'
import { pairBackward, pairForward, type Stream } from './pair.ts'
import type { Emitted } from './program.ts'
import { gradientNorm, optimizerStep, reduceBucket, reduceStatistics, zeroGradients } from './update.ts'

export { BUFFER } from './buffers.ts'

/** Zero gradients, forward, backward, sum over ranks, norm, clip, AdamW. One run is one optimizer step. */
export function emitTrain(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank)
  declarePersistent(e)
  zeroGradients(e)
  const { streams, out } = forward(e)
  head(e, out, true)
  reduceStatistics(e)

  headBackward(e, out)
  reduceBucket(e, 'head')
  for (const [pair, stream] of [...streams.entries()].toReversed()) {
    pairBackward(e, pair, stream)
    reduceBucket(e, `pair${pair}.experts`)
    reduceBucket(e, `pair${pair}`)
  }
  embeddingBackward(e)
  reduceBucket(e, 'embedding')

  gradientNorm(e)
  optimizerStep(e)
  return e.finish('train')
}

/** Forward and loss only, over the same persistent buffers. */
export function emitEvaluate(config: ModelConfig, rank: number): Emitted {
  const e = new Emitter(config, rank)
  declarePersistent(e)
  head(e, forward(e).out, false)
  reduceStatistics(e)
  return e.finish('evaluate')
}

function forward(e: Emitter): { streams: Stream[]; out: string } {
  const streams: Stream[] = []
  let out = embedding(e)
  for (let pair = 0; pair < e.config.pairs; pair++) {
    const stream = pairForward(e, pair, out)
    streams.push(stream)
    out = stream.out
  }
  return { streams, out }
}
