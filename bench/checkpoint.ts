// npm run bench:checkpoint: compares training steps beside the writing of a checkpoint with steps
// without one, once with a core that is free to write and once with none.
//
//   node bench/checkpoint.ts [--json FILE] [--quick] [--rounds N]
//
// Each run is a whole job of `scmoe run` with one compute thread per rank, which writes a
// checkpoint every few steps. Both kinds of steps alternate, so their medians come from the same
// run. Jobs with one and with two ranks take turns; every figure is the median over the rounds.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { API_VERSION, ENV, KIND } from '../crds/contract.ts'
import { median } from '../worker/median.ts'
import { fixed, machine, showFigures, table, writeJson } from './report.ts'
import { atMost, type Figure, medianOf } from './turns/figures.ts'
import { sentenceOf, Watch } from './turns/watch.ts'

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '3' },
  },
})
const ROOT = join(import.meta.dirname, '..')
const SHAPE = options.quick
  ? { hidden: 32, sequences: 4, sequence: 32, steps: 24, everySteps: 6 }
  : { hidden: 256, sequences: 8, sequence: 256, steps: 48, everySteps: 8 }
const rounds = options.quick ? 1 : Number(options.rounds)

const Summary = z.object({
  engine: z.string(),
  checkpoint: z.object({
    bytes: z.number(),
    snapshotMilliseconds: z.number(),
    writeMilliseconds: z.number(),
    stalledMilliseconds: z.number(),
    stepMilliseconds: z.number(),
    stepSlowdownPercent: z.number(),
    stepsBesideOne: z.number(),
  }),
})
type Summary = z.infer<typeof Summary>

const specOf = (replicas: number) => ({
  model: {
    blocks: 4,
    hiddenSize: SHAPE.hidden,
    heads: Math.ceil(SHAPE.hidden / 64),
    feedForwardSize: 4 * SHAPE.hidden,
    experts: 8,
  },
  training: {
    steps: SHAPE.steps,
    globalBatchSequences: SHAPE.sequences,
    sequenceLength: SHAPE.sequence,
    evaluation: { everySteps: SHAPE.steps, batches: 1 },
  },
  // One schedule for all steps, so that steps differ only by the write.
  overlap: { strategy: 'Sequential' },
  workers: { replicas },
  checkpoint: { volume: { emptyDir: {} }, everySteps: SHAPE.everySteps, keep: 1 },
})

let running: ChildProcess | undefined

/**
 * Trains a job and returns the summary of rank 0, which writes most: its share of the experts and
 * all that is not an expert.
 */
async function trained(replicas: number, folder: string): Promise<Summary> {
  const [file, output] = [join(folder, `${replicas}.json`), join(folder, `out-${replicas}`)]
  const job = { apiVersion: API_VERSION, kind: KIND, metadata: { name: 'checkpoint' }, spec: specOf(replicas) }
  writeFileSync(file, JSON.stringify(job))
  rmSync(output, { recursive: true, force: true })
  const child = spawn(process.execPath, [join(ROOT, 'cli/scmoe.ts'), 'run', file, '--output', output, '--json'], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, [ENV.computeThreads]: '1' },
  })
  running = child
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`scmoe run ended with ${code}`)
  return Summary.parse(JSON.parse(readFileSync(join(output, 'summary.json'), 'utf8')))
}

interface Row {
  ranks: number
  megabytes: number
  stepMilliseconds: number
  copyMilliseconds: number
  writeMilliseconds: number
  stalledMilliseconds: number
  /** stalledMilliseconds as a share of a step. */
  stalledPercent: number
  stepSlowdownPercent: number
  stepsBesideOne: number
  /**
   * The price of a checkpoint as a share of a step without one: the time in which training stands
   * still, and the time by which all steps beside the write take longer.
   */
  costPercent: number
}

function rowOf(ranks: number, runs: readonly Summary[]): Row {
  const of = (pick: (cost: Summary['checkpoint']) => number) => median(runs.map(({ checkpoint }) => pick(checkpoint)))
  const stalledPercent = of(cost => (100 * cost.stalledMilliseconds) / cost.stepMilliseconds)
  return {
    ranks,
    megabytes: of(cost => cost.bytes) / 1e6,
    stepMilliseconds: of(cost => cost.stepMilliseconds),
    copyMilliseconds: of(cost => cost.snapshotMilliseconds),
    writeMilliseconds: of(cost => cost.writeMilliseconds),
    stalledMilliseconds: of(cost => cost.stalledMilliseconds),
    stalledPercent,
    stepSlowdownPercent: of(cost => cost.stepSlowdownPercent),
    stepsBesideOne: of(cost => cost.stepsBesideOne),
    costPercent: 100 * median(runs.map(costInSteps)),
  }
}

const costInSteps = ({ checkpoint: cost }: Summary): number =>
  cost.stalledMilliseconds / cost.stepMilliseconds + (cost.stepSlowdownPercent / 100) * cost.stepsBesideOne

/** A checkpoint is to cost at most this part of a step. */
const AIM = atMost(0.1)

const figureOf = (ranks: number, runs: readonly Summary[]): Figure =>
  medianOf({ name: `cost of a checkpoint, ${ranks} ranks`, unit: 'steps', aim: AIM, samples: runs.map(costInSteps) })

// In this folder, because /tmp may be in memory and not on a disk.
mkdirSync(join(ROOT, 'build'), { recursive: true })
const folder = mkdtempSync(join(ROOT, 'build/bench-checkpoint-'))
const clear = () => rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    // The ranks of the run end with it.
    running?.kill('SIGKILL')
    clear()
    process.exit(1)
  })
}
try {
  const cores = availableParallelism()
  const sizes = cores > 2 ? [1, 2] : [1, cores]
  const runs = new Map<number, Summary[]>(sizes.map(ranks => [ranks, []]))
  const watch = new Watch()
  for (let round = 0; round < rounds; round++)
    for (const [ranks, list] of runs) list.push(await watch.turn(() => trained(ranks, folder)))
  const rows = [...runs].map(([ranks, list]) => rowOf(ranks, list))
  const engine = runs.get(1)?.[0]?.engine
  console.log(
    `${machine()}; ${engine}\nfour blocks of ${SHAPE.hidden}, 8 experts, ${SHAPE.sequences} sequences of ${SHAPE.sequence}; ${rounds} rounds\n`,
  )
  console.log(
    table(
      [
        'ranks',
        'MB',
        'step ms',
        'copy ms',
        'write ms',
        'stands still ms',
        'of a step',
        'slower beside it',
        'for steps',
        'cost in steps',
      ],
      rows.map(row => [
        row.ranks,
        fixed(row.megabytes, 1),
        fixed(row.stepMilliseconds, 1),
        fixed(row.copyMilliseconds, 1),
        fixed(row.writeMilliseconds, 0),
        fixed(row.stalledMilliseconds, 1),
        `${fixed(row.stalledPercent, 1)} %`,
        `${fixed(row.stepSlowdownPercent, 1)} %`,
        fixed(row.stepsBesideOne, 1),
        fixed(row.costPercent / 100, 2),
      ]),
    ),
  )
  const figures = [...runs].map(([ranks, list]) => figureOf(ranks, list))
  const { disturbance } = watch
  console.log(`\n${showFigures(figures)}\n\n${sentenceOf(disturbance)}`)
  const result = { bench: 'checkpoint', machine: machine(), engine, cores, shape: SHAPE, rounds }
  writeJson(options.json, { ...result, disturbance, figures, rows })
} finally {
  clear()
}
