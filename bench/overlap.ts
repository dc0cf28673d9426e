// npm run bench:overlap: compares ScMoE with the shortcut schedule with top-2 experts in sequential
// and pipelined order and with the other kinds, at links of several speeds. It runs on two ranks of
// one compute thread each on this machine. bench/README.md explains the figures.
//
//   node bench/overlap.ts [--json FILE] [--quick] [--regimes 60,50,15]
//                         [--phases train,forward] [--runs N] [--hidden N] [--sequence N]
//                         [--sequences N] [--blocks N]

import { parseArgs } from 'node:util'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../worker/model/config.ts'
import { type Line, type Verdict, verdicts } from './overlap/figures.ts'
import { learn, measurePhase, type Setting, type Subject } from './overlap/measure.ts'
import { MODEL_NAMES, MODELS, type ModelName, type Phase } from './overlap/shape.ts'
import { fixed, machine, table, writeJson } from './report.ts'
import { Model } from './world/model.ts'
import { obstacle } from './world/network.ts'
import { World } from './world/world.ts'

const RANKS = 2
const MICRO_BATCHES = 8
const EXPERTS = 8
/** Exit code if links or tools are missing: EX_UNAVAILABLE. */
const EXIT_IMPOSSIBLE = 69

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    regimes: { type: 'string', default: '60,50,15' },
    phases: { type: 'string', default: 'train,forward' },
    runs: { type: 'string' },
    hidden: { type: 'string' },
    sequence: { type: 'string' },
    sequences: { type: 'string' },
    blocks: { type: 'string', default: '2' },
  },
})

/** `sequences` are those of one rank in one micro-batch. */
const SIZES = options.quick
  ? { hidden: 32, sequence: 16, sequences: 2, runs: 1, trials: 2 }
  : { hidden: 384, sequence: 256, sequences: 16, runs: 3, trials: 6 }
const size = {
  hidden: Number(options.hidden ?? SIZES.hidden),
  sequence: Number(options.sequence ?? SIZES.sequence),
  sequences: Number(options.sequences ?? SIZES.sequences),
  blocks: Number(options.blocks),
}
const runs = Number(options.runs ?? SIZES.runs)
const regimes = options.regimes.split(',').map(Number)
const phases = options.phases.split(',') as Phase[]

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

const showVerdicts = (list: readonly Verdict[]) =>
  table(
    ['regime', 'phase', 'ScMoE Pos-2, Auto', 'figure', 'target', ''],
    list.map(({ regime, phase, what, figure, target, met }) => [
      `${regime} %`,
      phase,
      what,
      fixed(figure, 3),
      target,
      met ? 'met' : 'MISSED',
    ]),
  )

const reason = obstacle()
if (reason !== undefined) {
  console.error(`bench:overlap cannot run here: ${reason}`)
  process.exit(EXIT_IMPOSSIBLE)
}

const started = performance.now()
const seconds = () => ((performance.now() - started) / 1000).toFixed(0).padStart(5)
using world = await World.start(RANKS)
const subjects = new Map<ModelName, Subject>()
for (const name of MODEL_NAMES) subjects.set(name, await open(world, name))
const shape =
  `${RANKS} ranks x 1 thread, d=${size.hidden}, sequence ${size.sequence}, ${size.sequences} sequences a rank and micro-batch, ` +
  `${MICRO_BATCHES} micro-batches, ${size.blocks} blocks, ${EXPERTS} experts, f32`
console.log(`${machine()}\n${shape}`)

const setting: Setting = {
  world,
  subjects,
  rounds: runs,
  trials: SIZES.trials,
  log: text => console.error(`${seconds()} s  ${text}`),
}
const result = {
  bench: 'overlap',
  machine: machine(),
  shape,
  links: [] as object[],
  rows: [] as Line[],
  targets: [] as Verdict[],
}
for (const regime of regimes) {
  for (const phase of phases) {
    const { trial, lines } = await measurePhase(setting, phase, regime)
    result.links.push({ regime, phase, mbit: trial.rate / 1e6, commShareOfMoe: trial.share })
    result.rows.push(...lines)
    result.targets.push(...verdicts(lines))
    const share = `all-to-alls ${(100 * trial.share).toFixed(1)} % of the MoE layer of sequential Top2`
    console.log(`\n${regime} %, ${phase}: ${share} at ${(trial.rate / 1e6).toFixed(0)} Mbit/s\n${show(lines)}`)
    writeJson(options.json, result)
  }
}
console.log(`\n${showVerdicts(result.targets)}`)
console.log(`\nlosses and gradient norms: equal on all ranks, and the same bits under every schedule of a model`)
