// npm run docs:lanes: draws docs/lanes.svg, which shows the compute and communication queues of one
// rank in the forward pass of one MoE unit. Above are top-2 experts in sequential order, below
// ScMoE with the shortcut, both measured and at the same scale.
//
//   node tools/docs/lanes.ts [--rate MBIT] [--steps N] [--runs N] [--output FILE]
//   node tools/docs/lanes.ts --sequential FOLDER --shortcut FOLDER [--output FILE]
//
// --unit and --phase (forward or backward) choose another part of the step.
//
// Without folders, both examples are trained first, on two ranks whose connection is limited to
// --rate in each direction, --runs times in turns. The run whose unit took the median time is
// drawn. That needs root, for a network namespace. With folders, the traces that two earlier runs
// of `scmoe run` left there are drawn.

import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { bucket, IN_NEW_NETWORK, obstacle } from '../../bench/world/network.ts'
import { ENV } from '../../crds/contract.ts'
import { drawLanes, type Panel } from './lanes-drawing.ts'
import { lanesOf, PHASES, type Phase } from './lanes-trace.ts'

const ROOT = join(import.meta.dirname, '../..')
const RANKS = 2
const RUNS = [
  { name: 'sequential', title: 'Top-2 experts', example: 'examples/02-overlap-sequential.yaml' },
  { name: 'shortcut', title: 'ScMoE', example: 'examples/03-overlap-shortcut.yaml' },
] as const

const Summary = z.looseObject({ schedule: z.string() })

function main(): void {
  const { values } = parseArgs({
    options: {
      sequential: { type: 'string' },
      shortcut: { type: 'string' },
      rate: { type: 'string', default: '500' },
      steps: { type: 'string', default: '32' },
      runs: { type: 'string', default: '5' },
      unit: { type: 'string', default: '1' },
      phase: { type: 'string', default: 'forward' },
      output: { type: 'string', default: join(ROOT, 'docs/lanes.svg') },
    },
  })
  if ((values.sequential === undefined) !== (values.shortcut === undefined))
    throw new Error('give both --sequential and --shortcut, or neither of them')
  const limits = { mbit: Number(values.rate), steps: values.steps }
  const part = { unit: Number(values.unit), phase: phaseNamed(values.phase) }
  const rounds = values.sequential === undefined ? Array.from({ length: Number(values.runs) }, (_, run) => run) : [0]
  const drawn = rounds.map(run =>
    RUNS.map(({ name, title, example }): Panel => {
      const folder = values[name] ?? train(example, join(ROOT, `build/lanes/${name}-${run}`), limits)
      const { schedule } = Summary.parse(JSON.parse(readFileSync(join(folder, 'summary.json'), 'utf8')))
      const trace = readFileSync(join(folder, 'trace-rank0.json'), 'utf8')
      return { title: `${title}, ${schedule}`, lanes: lanesOf(trace, part) }
    }),
  )
  const panels = RUNS.flatMap((_, index) => {
    const byDuration = drawn.flatMap(run => run[index] ?? []).toSorted((a, b) => a.lanes.duration - b.lanes.duration)
    return byDuration[Math.floor(byDuration.length / 2)] ?? []
  })
  writeFileSync(values.output, drawLanes(panels, `One MoE unit, ${part.phase} pass, measured on rank 0`))
  console.log(
    `${values.output}: ${panels.map(({ lanes }) => `${(lanes.duration / 1000).toFixed(0)} ms`).join(' and ')}`,
  )
}

function phaseNamed(text: string): Phase {
  const found = PHASES.find(phase => phase === text)
  if (found === undefined) throw new Error(`--phase is '${text}', but must be one of ${PHASES.join(', ')}`)
  return found
}

/**
 * Trains an example on this machine and returns its output folder. The ranks share one loopback
 * interface, which therefore carries `mbit` for each of them.
 */
function train(example: string, folder: string, { mbit, steps }: { mbit: number; steps: string }): string {
  const reason = obstacle()
  if (reason !== undefined) throw new Error(`the connection of the ranks cannot be limited: ${reason}`)
  rmSync(folder, { recursive: true, force: true })
  const limit = ['tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'tbf', ...bucket(RANKS * mbit * 1e6)].join(' ')
  const script = `ip link set dev lo up && ${limit} && exec "$@"`
  const words = ['run', join(ROOT, example), '--output', folder, '--steps', steps]
  const scmoe = [process.execPath, join(ROOT, 'cli/scmoe.ts'), ...words]
  const [command, ...rest] = [...IN_NEW_NETWORK, 'sh', '-c', script, 'sh', ...scmoe]
  execFileSync(command, rest, { stdio: 'inherit', env: { ...process.env, [ENV.computeThreads]: '1' } })
  return folder
}

try {
  main()
} catch (error) {
  console.error(`docs:lanes: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
