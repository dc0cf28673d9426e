// npm run bench:exchange: compares the engine's all-to-all between two ranks with iperf3 on the
// same unlimited link. The two run in turns. bench/README.md says what the figures mean.
//
//   node bench/exchange.ts [--json FILE] [--quick] [--rounds N]

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { median } from '../worker/median.ts'
import type { Program } from '../worker/program/program.ts'
import { fixed, machine, showFigures, table, writeJson } from './report.ts'
import { type Figure, medianOf } from './turns/figures.ts'
import { sentenceOf, Watch } from './turns/watch.ts'
import { addressOf, obstacle, succeeds } from './world/network.ts'
import { World } from './world/world.ts'

const { values: options } = parseArgs({
  options: { json: { type: 'string' }, quick: { type: 'boolean', default: false }, rounds: { type: 'string' } },
})
/** The exit code if links or tools are missing; EX_UNAVAILABLE. */
const EXIT_IMPOSSIBLE = 69
const MIB = 2 ** 20
const DIM = 256
const ROW_BYTES = 4 * DIM
const ENGINE = 'exchange'
const rounds = Number(options.rounds ?? (options.quick ? 1 : 5))
const sizes = options.quick ? [MIB] : [MIB / 16, MIB / 4, MIB, 4 * MIB, 16 * MIB]
/** Bytes in one direction in one run. */
const PER_RUN = options.quick ? 4 * MIB : 256 * MIB

const repeatsOf = (bytes: number) => Math.max(1, Math.round(PER_RUN / bytes))

/**
 * A program of all-to-alls, one after another, in which each of two ranks sends `bytes` to the
 * other.
 */
function programOf(bytes: number, rank: number): Program {
  const rows = bytes / ROW_BYTES
  const group = { experts: 2, capacity: rows, rank, expertParallelSize: 2, chunk: 0, chunks: 1 }
  const attrs = { direction: 'dispatch', dim: DIM, ...group }
  const buffers: Program['buffers'] = [
    { name: 'counts', dtype: 'i32', elements: 4, arena: 'persistent', offset: 0 },
    { name: 'rows', dtype: 'f32', elements: rows * DIM, arena: 'transient', offset: 0 },
    { name: 'out', dtype: 'f32', elements: rows * DIM, arena: 'transient', offset: bytes },
  ]
  const ops = Array.from({ length: repeatsOf(bytes) }, (_, i): Program['ops'][number] => {
    const label = `exchange${i}`
    return { op: 'all_to_all', label, queue: 'comm', inputs: [1, 0], outputs: [2], attrs, waits: [] }
  })
  const shape = { rank, worldSize: 2, expertParallelSize: 2, persistentBytes: 64, transientBytes: 2 * bytes }
  return { version: 1, name: `${bytes}`, ...shape, buffers, ops }
}

interface Sample {
  /** Bytes per second in one direction while both are in use. */
  rate: number
  /** The processor time of the communication thread divided by the time of the transfers. */
  cpu: number
}

async function exchange(world: World, bytes: number): Promise<Sample> {
  const results = await world.each(rank => rank.call('run', ENGINE, [`${bytes}`]))
  const samples = results.map(({ runs: [times] }) => {
    const took = ((times?.end.at(-1) ?? 0) - (times?.start[0] ?? 0)) / 1e6
    const cpu = (times?.cpu?.reduce((sum, time) => sum + time, 0) ?? 0) / 1e6
    return { rate: (bytes * repeatsOf(bytes)) / took, cpu: cpu / took }
  })
  const mean = (value: (sample: Sample) => number) => samples.reduce((sum, s) => sum + value(s), 0) / samples.length
  return { rate: mean(sample => sample.rate), cpu: mean(sample => sample.cpu) }
}

interface Iperf {
  end: { sum_received: { bits_per_second: number }; sum_received_bidir_reverse: { bits_per_second: number } }
}

/** Bytes per second in one direction while iperf3 uses both. */
async function iperf(world: World): Promise<number> {
  const listen = [...world.inside(0), 'iperf3', '--server', '--one-off']
  const server = spawn(listen[0] ?? '', listen.slice(1), { stdio: 'ignore' })
  const ended = once(server, 'exit')
  try {
    await sleep(300)
    const seconds = options.quick ? '1' : '3'
    const ask = [...world.inside(1), 'iperf3', '--client', addressOf(0), '--bidir', '--json', '--time', seconds]
    const text = execFileSync(ask[0] ?? '', ask.slice(1), { encoding: 'utf8' })
    const { end } = JSON.parse(text) as Iperf
    return (end.sum_received.bits_per_second + end.sum_received_bidir_reverse.bits_per_second) / 2 / 8
  } finally {
    server.kill()
    await ended
  }
}

/** iperf3 and the exchanges of every size, once. */
async function turn(world: World): Promise<{ reference: number; measured: Map<number, Sample> }> {
  const reference = hasIperf ? await iperf(world) : Number.NaN
  const measured = new Map<number, Sample>()
  for (const bytes of sizes) measured.set(bytes, await exchange(world, bytes))
  return { reference, measured }
}

const reason = obstacle()
if (reason !== undefined) {
  console.error(`bench:exchange cannot run here: ${reason}`)
  process.exit(EXIT_IMPOSSIBLE)
}
const hasIperf = succeeds(['iperf3', '--version'])
if (!hasIperf)
  console.error('iperf3 is missing, so there is nothing to compare with; install it: apt-get install --yes iperf3')

using world = await World.start(2)
await world.open(ENGINE)
await world.each((rank, index) => {
  const programs = sizes.map(bytes => programOf(bytes, index))
  return rank.call('load', ENGINE, programs)
})
// Each rank sends only to the expert of the other rank.
const most = Math.max(...sizes) / ROW_BYTES
await world.each(rank => rank.call('write', ENGINE, 'counts', [0, most, most, 0]))

const samples = new Map(sizes.map(bytes => [bytes, [] as (Sample & { ofIperf: number })[]]))
const iperfs: number[] = []
for (const bytes of sizes) await exchange(world, bytes)
const watch = new Watch()
for (let round = 0; round < rounds; round++) {
  const { reference, measured } = await watch.turn(() => turn(world))
  iperfs.push(reference)
  for (const [bytes, sample] of measured) samples.get(bytes)?.push({ ...sample, ofIperf: sample.rate / reference })
}

const rows = [...samples].map(([bytes, list]) => ({
  bytes,
  megabytesPerSecond: median(list.map(({ rate }) => rate)) / 1e6,
  ratioToIperf: hasIperf ? median(list.map(({ ofIperf }) => ofIperf)) : null,
  commCpuPercent: 100 * median(list.map(({ cpu }) => cpu)),
}))
const figures = [...samples].flatMap(([bytes, list]): Figure[] => [
  medianOf({ name: `${bytes} bytes a direction`, unit: 'MB/s', samples: list.map(({ rate }) => rate / 1e6) }),
  ...(hasIperf
    ? [medianOf({ name: `${bytes} bytes, of iperf3`, unit: 'x', samples: list.map(({ ofIperf }) => ofIperf) })]
    : []),
])
const head = ['bytes a direction', 'MB/s a direction', 'of iperf3', 'processor %']
const shown = rows.map(row => [
  row.bytes,
  fixed(row.megabytesPerSecond, 0),
  fixed(row.ratioToIperf, 2),
  fixed(row.commCpuPercent, 0),
])
console.log(
  `${machine()}\ntwo ranks, veth without limit, both directions at once, ${rounds} rounds in turns with iperf3 --bidir\n`,
)
console.log(table(head, shown))
if (hasIperf) console.log(`\niperf3: ${(median(iperfs) / 1e6).toFixed(0)} MB/s a direction`)
console.log(`\n${showFigures(figures)}\n\n${sentenceOf(watch.disturbance)}`)
writeJson(options.json, {
  bench: 'exchange',
  machine: machine(),
  disturbance: watch.disturbance,
  figures,
  iperfMegabytesPerSecond: hasIperf ? median(iperfs) / 1e6 : null,
  rows,
})
