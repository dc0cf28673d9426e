// One training step on one thread, as a share of what the machine's matrix product reaches in the same run.
//
//   node bench/step.ts [--json FILE] [--runs N]
//
// Work counted: matrix products and attention of forward and backward, 2 * rows * in * out each (attention: half of the scores are masked),
// for the rows really routed. Time counted: all ops of forward and backward, so everything that is not a product lowers the share.
// Peak: fastest of many products of 1024 x 1024 by 1024 x 1024 on the same engine. Runs of both alternate, and of the product and of
// every op the fastest run is taken: other load on the machine makes either slower, never faster.

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { createEngine, type Engine } from '../worker/engine.ts'
import { elementsOf, initialise, type ModelConfig, modelConfig, sliceOf, tensors } from '../worker/model.ts'
import { BUFFER, emitTrain } from '../worker/program/emit.ts'
import type { Emitted, Program } from '../worker/program/program.ts'
import { assemble, durations, schedule } from '../worker/schedule/schedule.ts'

const { values: options } = parseArgs({ options: { json: { type: 'string' }, runs: { type: 'string', default: '5' } } })
const PEAK = { rows: 1024, in: 1024, out: 1024 }
const PRODUCTS_PER_RUN = 30
const ALONE = { rank: 0, worldSize: 1, expertParallelSize: 1, computeThreads: 1, timeoutMilliseconds: 60_000 }
const PRODUCTS = /linear|attention/

const config = modelConfig(
  ScMoEJobSpec.parse({
    model: { kind: 'ScMoE', blocks: 4, hiddenSize: 512, heads: 8, feedForwardSize: 2048, experts: 8 },
    training: { steps: 1, sequenceLength: 512, globalBatchSequences: 2 },
  }),
  1,
)

/** One product y = x w^T + b, every buffer in its own place. */
function peakProgram(): Program {
  const sizes = { x: PEAK.rows * PEAK.in, w: PEAK.in * PEAK.out, b: PEAK.out, y: PEAK.rows * PEAK.out }
  const buffers = Object.entries(sizes).map(
    ([name, elements]) => ({ name, elements, dtype: 'f32', arena: 'persistent' }) as const,
  )
  const segment = { pair: -1, phase: 'forward', part: 'other' } as const
  const op = {
    op: 'linear',
    label: 'product',
    queue: 'compute',
    inputs: ['x', 'w', 'b'],
    outputs: ['y'],
    attrs: PEAK,
  } as const
  const ops = [{ ...op, inputs: [...op.inputs], outputs: [...op.outputs], segment, cost: 0, waits: [] }]
  return assemble({ name: 'peak', buffers, ops }, config, 0)
}

function fill(engine: Engine, model: ModelConfig): void {
  for (const tensor of tensors(model)) engine.view(tensor.name).set(initialise(tensor, 1, sliceOf(tensor, model, 0)))
  engine
    .view(BUFFER.tokens)
    .set(Int32Array.from({ length: model.batch * (model.sequence + 1) }, (_, i) => (i * 31) % 256))
  engine.view(BUFFER.hyper).set([0, 1, 1, 0])
}

interface Part {
  op: string
  milliseconds: number
  gigaflopsPerSecond: number | undefined
}

function parts(emitted: Emitted, microseconds: Float64Array): Part[] {
  const byOp = new Map<string, { time: number; work: number }>()
  for (const [index, op] of emitted.ops.entries()) {
    if (op.queue !== 'compute' || op.segment.phase === 'update' || op.op === 'zero') continue
    const sum = byOp.get(op.op) ?? { time: 0, work: 0 }
    sum.time += microseconds[index] ?? 0
    sum.work += PRODUCTS.test(op.op) ? op.cost : 0
    byOp.set(op.op, sum)
  }
  return [...byOp]
    .map(([op, { time, work }]) => ({
      op,
      milliseconds: time / 1e3,
      gigaflopsPerSecond: work > 0 ? work / time / 1e3 : undefined,
    }))
    .toSorted((a, b) => b.milliseconds - a.milliseconds)
}

const emitted = emitTrain(config, 0)
const scheduled = schedule(emitted, { strategy: 'Sequential' })
const [engine, peakEngine] = [createEngine(ALONE), createEngine(ALONE)]
engine.load(assemble(scheduled, config, 0))
fill(engine, config)
peakEngine.load(peakProgram())
for (const name of ['x', 'w']) peakEngine.view(name).fill(0.5)

let peak = 0
const fastest = new Float64Array(emitted.ops.length).fill(Number.POSITIVE_INFINITY)
for (let run = 0; run < Number(options.runs); run++) {
  for (let repeat = 0; repeat < PRODUCTS_PER_RUN; repeat++) {
    const { start, end } = await peakEngine.run('peak')
    peak = Math.max(peak, (2 * elementsOf(Object.values(PEAK))) / ((end[0] ?? 0) - (start[0] ?? 0)) / 1e3)
  }
  const times = durations(emitted, scheduled, await engine.run('train'))
  for (const [op, time] of times.entries()) fastest[op] = Math.min(fastest[op] ?? time, time)
}
const best = parts(emitted, fastest)
const milliseconds = best.reduce((sum, part) => sum + part.milliseconds, 0)
const loss = engine.view(BUFFER.loss)[0] ?? Number.NaN
const work = best.reduce(
  (sum, { milliseconds: time, gigaflopsPerSecond = 0 }) => sum + (gigaflopsPerSecond * time) / 1e3,
  0,
)
const gigaflopsPerSecond = (work / milliseconds) * 1e3
const result = {
  bench: 'step',
  machine: cpus()[0]?.model ?? 'unknown',
  engine: engine.description,
  shape: 'd=512, T=512, 2 sequences, 4 blocks, 8 experts, top-1, f32, 1 thread',
  milliseconds,
  gigaflopsPerSecond,
  peakGigaflopsPerSecond: peak,
  shareOfPeak: gigaflopsPerSecond / peak,
  /** Untrained on 256 byte values: ln 256 = 5.545. */
  loss,
  right: Math.abs(loss - Math.log(256)) < 0.2,
  parts: best,
}
engine.close()
peakEngine.close()

console.log(`${result.machine}; ${result.engine}\n${result.shape}\n`)
for (const part of best)
  console.log(
    `${part.op.padEnd(24)}${part.milliseconds.toFixed(1).padStart(8)} ms${(part.gigaflopsPerSecond?.toFixed(0) ?? '').padStart(7)} GF/s`,
  )
console.log(
  `\nforward + backward ${milliseconds.toFixed(0)} ms, ${gigaflopsPerSecond.toFixed(1)} GF/s of ${peak.toFixed(1)}: ` +
    `${(100 * result.shareOfPeak).toFixed(1)} % of the peak; loss ${loss.toFixed(3)} (${result.right ? 'right' : 'WRONG'})`,
)
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(result, undefined, 2)}\n`)
if (!result.right) process.exitCode = 1
