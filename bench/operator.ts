// npm run bench:operator: compares the operator with a bare client loop and with JobSet on the same
// real API server, whose pods this process drives to Running. It measures how fast gangs are
// created and replaced after a failure; the memory, writes and processor time of the operator; and
// the time until a standby takes over. bench/README.md explains the figures.
//
//   node bench/operator.ts [--json FILE] [--quick] [--rounds N] [--without-jobset] [--rates]
//   node bench/operator.ts --hostile [--json FILE] [--quick] [--rounds N]

import { parseArgs } from 'node:util'
import { pathOf } from '../operator/objects/wire.ts'
import { freePort } from '../tools/free-port.ts'
import { median } from '../worker/median.ts'
import { HOSTILE, type Lives, rowsOf, type Sizes, type Turn, turnOf } from './operator/hostile.ts'
import { type Burst, burst, clear, loop, memory, quantile, type Recovery, recovery, send } from './operator/phases.ts'
import { processorPercent, takeover, Workers, writes, writesPerJob } from './operator/rest.ts'
import { JobSet, Operator, type Subject } from './operator/subjects.ts'
import { World } from './operator/world.ts'
import { fixed, machine, table, writeJson } from './report.ts'

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    rates: { type: 'boolean', default: false },
    hostile: { type: 'boolean', default: false },
    'without-jobset': { type: 'boolean', default: false },
  },
})
const size = options.quick
  ? {
      jobs: 6,
      failing: 3,
      workers: 2,
      sizes: [0, 2, 4, 6],
      seconds: 5,
      calm: 2,
      settle: 2,
      memory: 0.2,
      lease: 3,
      lives: 2,
      interval: 5,
    }
  : {
      jobs: 500,
      failing: 200,
      workers: 4,
      sizes: [0, 100, 500, 1000],
      seconds: 60,
      calm: 10,
      settle: 20,
      memory: 3,
      lease: 15,
      lives: 20,
      interval: 15,
    }
const rounds = Number(options.rounds ?? (options.quick ? 1 : 3))
const { workers } = size

type Measured = { burst: Burst; recovery: Recovery }
type Rows = { rows: Measured[]; rssMiB: Record<string, number> }

/** One burst and one recovery with a controller that was just started. */
async function round(world: World, subject: Subject, namespace: string): Promise<Measured> {
  await world.namespace(namespace)
  await subject.start()
  const made = await burst({ world, subject }, { namespace, to: size.jobs, workers })
  await pause(size.calm)
  const again = await recovery({ world, subject }, { namespace, failing: size.failing, workers })
  await clear({ world, subject }, namespace)
  await subject.stop()
  return { burst: made, recovery: again }
}

type Bare = { create: number; beside: number; replace: number }

/**
 * The loop alone, then the loop while jobs are sent that no operator handles. The second is the
 * speed of an operator that costs nothing.
 */
async function bare(world: World, operator: Operator, namespace: string): Promise<Bare> {
  await world.namespace(namespace)
  await world.namespace(`${namespace}-jobs`)
  const pods = { jobs: size.jobs, workers, mode: 'create' } as const
  const create = await loop(world, { namespace, ...pods })
  const sending = send({ world, subject: operator }, { namespace: `${namespace}-jobs`, to: size.jobs, workers })
  const beside = await loop(world, { namespace: `${namespace}-jobs`, ...pods })
  await sending
  await clear({ world, subject: operator }, `${namespace}-jobs`)
  const replace = await loop(world, { namespace, jobs: size.failing, workers, mode: 'replace' })
  await world.clear(pathOf('Pod', namespace))
  await world.pods.count(namespace, 0)
  return { create, beside, replace }
}

/** Measures writes per job first, then memory, idle writes and processor time with running jobs. */
async function atRest(world: World, operator: Operator, metricsPort: number, reporting: Workers) {
  await operator.start()
  const namespace = await world.namespace('lives')
  const gangs = Array.from({ length: size.lives }, (_, i) => ({ namespace, name: `life-${i}`, workers }))
  const perJob = await writesPerJob(world, { operator, metricsPort, gangs })
  await clear({ world, subject: operator }, namespace)
  await operator.stop()
  await operator.start()
  const rest = await world.namespace('rest')
  const rssMiB = await memory(
    { world, subject: operator },
    { namespace: rest, sizes: size.sizes, workers, settle: size.memory },
  )
  await pause(size.settle)
  const before = await writes(metricsPort)
  await pause(size.seconds / 3)
  const idleWritesPerHour = ((await writes(metricsPort)) - before) * (3600 / (size.seconds / 3))
  reporting.moving = true
  await pause(size.settle)
  const answers = reporting.answers
  const restCpuPercent = await processorPercent(operator, size.seconds)
  const scrapesPerSecond = (reporting.answers - answers) / size.seconds
  reporting.moving = false
  const loaded = Math.round(operator.mebibytes())
  await clear({ world, subject: operator }, rest)
  await operator.stop()
  return { perJob, rssMiB, idleWritesPerHour, restCpuPercent, scrapesPerSecond, loaded }
}

async function takeovers(world: World) {
  const flags = ['--metrics-port=0', '--leader-elect', `--lease-seconds=${size.lease}`]
  const seconds = async (signal: 'SIGKILL' | 'SIGTERM') => {
    const namespace = await world.namespace(`takeover-${signal.toLowerCase()}`)
    const own = [...flags, `--leader-election-namespace=${namespace}`]
    const [leader, standby] = [
      new Operator(world, { flags: [...own, '--identity=a'], interval: size.interval }),
      new Operator(world, { flags: [...own, '--identity=b'], interval: size.interval }),
    ]
    return takeover(world, { leader, standby, gang: { namespace, name: 'job', workers }, signal })
  }
  return { kill: await seconds('SIGKILL'), graceful: await seconds('SIGTERM') }
}

async function jobsetRows(world: World): Promise<Rows> {
  const subject = new JobSet(world, [await freePort(), await freePort(), await freePort()])
  await subject.install()
  const rows = [await round(world, subject, 'jobset')]
  await subject.start()
  const rssMiB = await memory(
    { world, subject },
    { namespace: await world.namespace('jobset-rest'), sizes: size.sizes, workers, settle: size.memory },
  )
  await subject.stop()
  return { rows, rssMiB }
}

const pause = async (seconds: number) => new Promise(resolve => setTimeout(resolve, seconds * 1000))

const HOSTILE_SIZES: Sizes = options.quick
  ? { refused: 6, refusedWorkers: 2, webhook: 4, webhookSeconds: 1, failing: 6, lanes: 1, seconds: 1 }
  : { refused: 120, refusedWorkers: 8, webhook: 40, webhookSeconds: 10, failing: 1000, lanes: 4, seconds: 20 }

/** Turns in which a namespace is alone and in which another one is hostile, round by round. */
async function hostile(world: World, flags: readonly string[]): Promise<void> {
  const operator = new Operator(world, { flags, interval: 5 })
  const lives: Lives = { alone: [], refused: [], webhook: [], failing: [] }
  await operator.start()
  for (let i = 0; i < rounds; i++) {
    for (const turn of ['alone', ...HOSTILE] satisfies Turn[]) {
      lives[turn].push(...(await turnOf({ world, subject: operator, sizes: HOSTILE_SIZES }, turn, `r${i}`)))
      console.error(`round ${i + 1}, ${turn}: ${lives[turn].length} lives`)
    }
  }
  await operator.stop()
  const rows = rowsOf(lives, quantile)
  console.log(`${machine()}; ${JSON.stringify(HOSTILE_SIZES)}, ${rounds} rounds\n`)
  const head = ['hostile', 'phase', 'lives', 'p50 ms', 'p99 ms', 'x alone (p50)', 'x alone (p99)']
  const cells = rows.map(row => [
    row.hostile,
    row.phase,
    row.samples,
    fixed(row.p50, 0),
    fixed(row.p99, 0),
    fixed(row.ratio50, 2),
    fixed(row.ratio99, 2),
  ])
  console.log(table(head, cells))
  writeJson(options.json, { bench: 'operator-hostile', machine: machine(), ...HOSTILE_SIZES, rounds, rows })
}

async function main(): Promise<void> {
  const world = await World.start()
  const reporting = new Workers(world)
  try {
    const metricsPort = await freePort()
    const flags = [`--metrics-port=${metricsPort}`, `--progress-port=${await reporting.listen()}`]
    if (options.hostile) return await hostile(world, flags)
    const operator = new Operator(world, { flags, interval: size.interval })
    const loops: Bare[] = []
    const rows: Measured[] = []
    for (let i = 0; i < rounds; i++) {
      loops.push(await bare(world, operator, `loop-${i}`))
      rows.push(await round(world, operator, `scmoe-${i}`))
      console.error(JSON.stringify([loops.at(-1), rows.at(-1)]))
    }
    if (options.rates) {
      showRates(loops, { rows, rssMiB: {} }, undefined)
      writeJson(options.json, { bench: 'operator', machine: machine(), ...ratesOf(rows) })
      return
    }
    const rest = await atRest(world, operator, metricsPort, reporting)
    console.error(JSON.stringify(rest))
    const takeoverSeconds = await takeovers(world)
    const jobset = options['without-jobset'] ? undefined : await jobsetRows(world)
    report({ loops, own: { rows, rssMiB: rest.rssMiB }, jobset, rest, takeoverSeconds })
  } finally {
    reporting.stop()
    await world.stop()
  }
}

const ratesOf = (rows: readonly Measured[]) => ({
  podsPerSecond: median(rows.map(row => row.burst.podsPerSecond)),
  recoveryPodsPerSecond: median(rows.map(row => row.recovery.podsPerSecond)),
})

type Results = {
  loops: Bare[]
  own: Rows
  jobset: Rows | undefined
  rest: Awaited<ReturnType<typeof atRest>>
  takeoverSeconds: { kill: number; graceful: number }
}

function showRates(loops: Bare[], own: Rows, jobset: Rows | undefined): void {
  const create = median(loops.map(each => each.create))
  const replace = median(loops.map(each => each.replace))
  const beside = median(loops.map(each => each.beside))
  const line = (name: string, { rows, rssMiB }: Rows) => {
    const rate = median(rows.map(row => row.burst.podsPerSecond))
    const again = median(rows.map(row => row.recovery.podsPerSecond))
    return [
      name,
      fixed(rate, 0),
      fixed(rate / create, 2),
      fixed(median(rows.map(row => row.burst.createToLastPodMs.p50)), 0),
      fixed(median(rows.map(row => row.burst.createToLastPodMs.p99)), 0),
      fixed(again, 0),
      fixed(again / create, 2),
      fixed(median(rows.map(row => row.recovery.seconds)), 1),
      size.sizes.map(each => rssMiB[each]).join(' / '),
    ]
  }
  const bareLine = [
    'bare loop',
    fixed(create, 0),
    '1.00',
    null,
    null,
    fixed(replace, 0),
    fixed(replace / create, 2),
    null,
    null,
  ]
  const besideLine = [
    'loop beside the jobs',
    fixed(beside, 0),
    fixed(beside / create, 2),
    null,
    null,
    null,
    null,
    null,
    null,
  ]
  const head = [
    '',
    'pods/s',
    'x loop',
    'p50 ms',
    'p99 ms',
    'recovery pods/s',
    'x loop',
    'recovery s',
    `MiB at ${size.sizes.join(' / ')}`,
  ]
  console.log(`${machine()}; ${size.jobs} jobs x ${workers} workers, ${size.failing} gangs fail, ${rounds} rounds\n`)
  console.log(
    table(head, [bareLine, besideLine, line('scmoe', own), ...(jobset === undefined ? [] : [line('jobset', jobset)])]),
  )
}

function report({ loops, own, jobset, rest, takeoverSeconds }: Results): void {
  showRates(loops, own, jobset)
  console.log(
    `\nwrites per job ${fixed(rest.perJob, 1)}, per idle hour ${rest.idleWritesPerHour}; take-over after kill ${fixed(takeoverSeconds.kill, 1)} s, ` +
      `graceful ${fixed(takeoverSeconds.graceful, 1)} s\n${size.sizes.at(-1)} running jobs asked ${fixed(rest.scrapesPerSecond, 1)} times/s, each answer new: ` +
      `${fixed(rest.restCpuPercent, 1)} % of one core, ${rest.loaded} MiB`,
  )
  const rows = own.rows
  writeJson(options.json, {
    bench: 'operator',
    machine: machine(),
    jobs: size.jobs,
    workersPerJob: workers,
    ...ratesOf(rows),
    baselinePodsPerSecond: median(loops.map(each => each.create)),
    createToLastPodMs: {
      p50: median(rows.map(row => row.burst.createToLastPodMs.p50)),
      p99: median(rows.map(row => row.burst.createToLastPodMs.p99)),
    },
    rssMiB: own.rssMiB,
    writesPerJob: rest.perJob,
    idleWritesPerHour: rest.idleWritesPerHour,
    takeoverSeconds,
    restCpuPercent: rest.restCpuPercent,
  })
}

await main()
