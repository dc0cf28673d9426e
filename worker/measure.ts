// The process that `scmoe simulate` starts to measure the compute ops of one rank, without the
// other ranks. There is one for each rank that shares a machine. It sends the times of every round
// until its channel closes.

import { z } from 'zod'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { alone, balancedCounts, countBuffers, ONES } from './emit/alone.ts'
import { BUFFER, emitMicroBatch, emitTrain } from './emit/emit.ts'
import { createEngine, type Engine } from './engine.ts'
import { type ModelConfig, modelConfig } from './model/config.ts'
import { initialise } from './model/initialise.ts'
import { sliceOf, tensors } from './model/tensors.ts'
import { assemble } from './schedule/schedule.ts'
import { hyperParameters } from './train/learning-rate.ts'

const Order = z.object({
  spec: ScMoEJobSpec,
  rank: z.int().min(0),
  worldSize: z.int().min(1),
  computeThreads: z.int().min(1),
})
type Order = z.infer<typeof Order>

process.on('disconnect', () => process.exit())
process.once('message', order => void measure(Order.parse(order)).catch(fail))

function fail(error: unknown): void {
  process.send?.({ error: error instanceof Error ? error.message : String(error) }, () => process.exit(1))
}

async function measure({ spec, rank, worldSize, computeThreads }: Order): Promise<never> {
  const model = modelConfig(spec, worldSize)
  const { expertParallelSize } = model
  const engine = createEngine({ rank, worldSize, expertParallelSize, computeThreads, timeoutMilliseconds: 1000 })
  const programs = programsOf(model, rank)
  for (const { scheduled } of programs) engine.load(assemble(scheduled, model, rank))
  fill(engine, { model, rank, seed: spec.training.seed, counts: programs.flatMap(({ counts }) => counts) })
  for (;;) {
    const round = []
    for (const { scheduled } of programs) {
      const { start, end } = await engine.run(scheduled.name)
      const times = end.map((time, op) => time - (start[op] ?? 0))
      round.push({ name: scheduled.name, labels: scheduled.ops.map(({ label }) => label), times: [...times] })
    }
    process.send?.(round)
  }
}

/** The programs of one optimizer step. */
function programsOf(model: ModelConfig, rank: number) {
  const accumulating = [true, false].slice(0, Math.min(model.microBatches - 1, 2))
  const emitted = [...accumulating.map(first => emitMicroBatch(model, rank, first)), emitTrain(model, rank)]
  return emitted.map(each => ({ scheduled: alone(each), counts: countBuffers(each) }))
}

interface Contents {
  model: ModelConfig
  rank: number
  seed: number
  counts: readonly string[]
}

/**
 * Fills the buffers with a model before its first step, whose router spreads the tokens. The
 * learning rate is 0, so that the model stays as it is.
 */
function fill(engine: Engine, { model, rank, seed, counts }: Contents): void {
  for (const tensor of tensors(model)) {
    const slice = sliceOf(tensor, model, rank)
    engine.view(tensor.name).set(initialise(tensor, seed, slice))
  }
  const tokens = engine.view(BUFFER.tokens)
  tokens.forEach((_, i) => {
    tokens[i] = (Math.imul(i + 1, 0x9e3779b1) >>> 7) % model.vocabulary
  })
  engine.view(BUFFER.hyper).set(hyperParameters(0, { peak: 0, warmupSteps: 0, totalSteps: 1 }, model))
  engine.view(ONES).fill(1)
  const balanced = balancedCounts(model)
  for (const name of counts) engine.view(name).set(balanced)
}
