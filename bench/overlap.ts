// npm run bench:overlap: compares ScMoE with the shortcut schedule with top-2 experts in sequential
// and pipelined order and with the other kinds, at links of several speeds. It runs on two ranks of
// one compute thread each on this machine. bench/README.md explains the figures.
//
//   node bench/overlap.ts [--json FILE] [--quick] [--short] [--regimes 60,50,15]
//                         [--phases train,forward] [--runs N] [--hidden N] [--sequence N]
//                         [--sequences N] [--blocks N]

import { parseArgs } from 'node:util'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../worker/model/config.ts'
import { figuresOf, type Line } from './overlap/figures.ts'
import { learn, measurePhase, type Setting, type Subject } from './overlap/measure.ts'
import { MODEL_NAMES, MODELS, type ModelName, type Phase, PROPOSED } from './overlap/shape.ts'
import { fixed, machine, showFigures, table, writeJson } from './report.ts'
import type { Figure } from './turns/figures.ts'
import { sentenceOf, Watch } from './turns/watch.ts'
import { Model } from './world/model.ts'
import { obstacle } from './world/network.ts'
import { World } from './world/world.ts'

const RANKS = 2
const MICRO_BATCHES = 8
const EXPERTS = 8
/** Exit code if links or tools are missing: EX_UNAVAILABLE. */
const EXIT_IMPOSSIBLE = 69
const SHORT = { hidden: 256, sequence: 256, sequences: 8, runs: 3, trials: 5 }

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    short: { type: 'boolean', default: false },
    regimes: { type: 'string' },
    phases: { type: 'string' },
    runs: { type: 'string' },
    hidden: { type: 'string' },
    sequence: { type: 'string' },
    sequences: { type: 'string' },
    blocks: { type: 'string', default: '2' },
  },
})

const ALL = { regimes: '60,50,15', phases: 'train,forward', models: MODEL_NAMES }
/**
 * `sequences` are those of one rank in one micro-batch. `short` measures only the first figure, and
 * `quick` shows that everything works and measures nothing.
 */
const SIZES = options.quick
  ? { hidden: 32, sequence: 16, sequences: 2, runs: 1, trials: 2, ...ALL }
  : options.short
    ? { ...SHORT, regimes: '60', phases: 'train', models: ['Top2', PROPOSED] satisfies ModelName[] }
    : { hidden: 384, sequence: 256, sequences: 16, runs: 3, trials: 6, ...ALL }
const size = {
  hidden: Number(options.hidden ?? SIZES.hidden),
  sequence: Number(options.sequence ?? SIZES.sequence),
  sequences: Number(options.sequences ?? SIZES.sequences),
  blocks: Number(options.blocks),
}
const runs = Number(options.runs ?? SIZES.runs)
const regimes = (options.regimes ?? SIZES.regimes).split(',').map(Number)
const phases = (options.phases ?? SIZES.phases).split(',') as Phase[]

function configOf(name: ModelName): ModelConfig {
  const { hidden, sequence, sequences, blocks } = size
  const spec = ScMoEJobSpec.parse({
    model: {
      ...MODELS[name],
      blocks,
      hiddenSize: hidden,
      heads: Math.ceil(hidden / 64),
      feedForwardSize: 4 * hidden,
      experts: EXPERTS,
    },
    training: {
      steps: 1,
      sequenceLength: sequence,
      globalBatchSequences: RANKS * MICRO_BATCHES * sequences,
      microBatches: MICRO_BATCHES,
    },
    workers: { replicas: RANKS },
  })
  return modelConfig(spec, RANKS)
}

async function open(world: World, name: ModelName): Promise<Subject> {
  const { model, sequential } = await Model.open(name, configOf(name), world)
  const subject: Subject = { model, sequential, free: await model.loadFree(), expected: new Map() }
  await learn(subject)
  return subject
}

function show(lines: readonly Line[]): string {
  const head = [
    'model',
    'schedule',
    'tokens/s',
    'x Top2',
    'FLOP bound',
    'bound',
    'of bound',
    'hidden %',
    'comm of MoE %',
  ]
  const more = ['predicted/measured', 'skew %', 'sums exposed %', 'comm CPU %']
  return table(
    [...head, ...more],
    lines.map(line => [
      line.strategy === 'Auto' ? `${line.model}, Auto` : line.model,
      line.schedule,
      fixed(line.tokensPerSecond, 0),
      fixed(line.ratioToTop2, 3),
      fixed(line.flopBound, 3),
      fixed(line.boundToTop2, 3),
      fixed(line.ratioToBound, 3),
      fixed(line.hiddenPercent, 1),
      fixed(100 * line.commShareOfMoe, 1),
      fixed(line.predictedOverMeasured, 3),
      fixed(line.skewPercent, 1),
      fixed(line.exposedReducePercent, 1),
      fixed(line.commCpuPercent, 1),
    ]),
  )
}

const reason = obstacle()
if (reason !== undefined) {
  console.error(`bench:overlap cannot run here: ${reason}`)
  process.exit(EXIT_IMPOSSIBLE)
}

const started = performance.now()
const seconds = () => ((performance.now() - started) / 1000).toFixed(0).padStart(5)
const watch = new Watch()
using world = await World.start(RANKS)
const subjects = new Map<ModelName, Subject>()
for (const name of SIZES.models) subjects.set(name, await open(world, name))
const shape =
  `${RANKS} ranks x 1 thread, d=${size.hidden}, sequence ${size.sequence}, ${size.sequences} sequences a rank and micro-batch, ` +
  `${MICRO_BATCHES} micro-batches, ${size.blocks} blocks, ${EXPERTS} experts, f32`
console.log(`${machine()}\n${shape}`)

const setting: Setting = {
  world,
  subjects,
  rounds: runs,
  trials: SIZES.trials,
  watch,
  log: text => console.error(`${seconds()} s  ${text}`),
}
const result = {
  bench: 'overlap',
  machine: machine(),
  shape,
  disturbance: watch.disturbance,
  figures: [] as Figure[],
  links: [] as object[],
  rows: [] as Line[],
}
for (const regime of regimes) {
  for (const phase of phases) {
    const { trial, lines } = await measurePhase(setting, phase, regime)
    result.links.push({ regime, phase, mbit: trial.rate / 1e6, commShareOfMoe: trial.share })
    result.rows.push(...lines)
    result.figures.push(...figuresOf(lines))
    result.disturbance = watch.disturbance
    const share = `all-to-alls ${(100 * trial.share).toFixed(1)} % of the MoE layer of sequential Top2`
    console.log(`\n${regime} %, ${phase}: ${share} at ${(trial.rate / 1e6).toFixed(0)} Mbit/s\n${show(lines)}`)
    writeJson(options.json, result)
  }
}
console.log(`\n${showFigures(result.figures)}\n\n${sentenceOf(watch.disturbance)}`)
console.log(`\nlosses and gradient norms: equal on all ranks, and the same bits under every schedule of a model`)
