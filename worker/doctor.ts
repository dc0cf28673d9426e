// The process that `scmoe doctor` starts, to find what a worker would find on this machine. It
// takes one order over its channel, answers once and ends.

import { availableParallelism, networkInterfaces } from 'node:os'
import { z } from 'zod'
import type { BackendName } from '../crds/ranks.ts'
import { createEngine, inspectHardware } from './engine.ts'
import type { Program } from './program/program.ts'
import { defaultThreads } from './threads.ts'

const Order = z.object({
  backend: z.enum(['cpu', 'cuda']).optional(),
  rank: z.int().min(0),
  peers: z.array(z.object({ host: z.string(), port: z.int().min(1).max(65_535) })),
})
type Order = z.infer<typeof Order>

process.on('disconnect', () => process.exit())
process.once('message', order => void examine(Order.parse(order)).then(answer, fail))

const answer = (found: unknown) => process.send?.({ found }, () => process.exit())
const fail = (error: unknown) =>
  process.send?.({ error: error instanceof Error ? error.message : String(error) }, () => process.exit(1))

async function examine(order: Order) {
  const hardware = inspectHardware()
  const usable = hardware.devices.length > 0 && hardware.library.missing === ''
  const backend = order.backend ?? (usable ? 'cuda' : 'cpu')
  const interfaces = Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    (addresses ?? []).filter(({ internal }) => !internal).map(({ address }) => ({ name, address })),
  )
  const nccl = Object.entries(process.env).filter(([name]) => name.startsWith('NCCL_'))
  return {
    ...hardware,
    backend,
    threads: defaultThreads(),
    processors: availableParallelism(),
    availableBytes: process.availableMemory(),
    interfaces,
    ncclEnvironment: Object.fromEntries(nccl),
    problem: backend === 'cuda' ? problemOf(hardware, order.peers.length) : '',
    link: order.peers.length > 1 ? await measureLink(order, backend) : undefined,
  }
}

/** Why a worker could not run on GPUs here; empty if it could. A rank alone does not need NCCL. */
function problemOf({ driver, library, nccl, devices }: ReturnType<typeof inspectHardware>, ranks: number): string {
  const missing = driver.missing || library.missing || (ranks > 1 || devices.length > 1 ? nccl.missing : '')
  return missing || (devices.length === 0 ? 'there is no GPU' : '')
}

const FLOATS = 8 * 2 ** 20
const ROUNDS = 5

/**
 * Measures how fast a large buffer is summed over all ranks, as gradients are. Each of n ranks
 * sends and receives 2 (n - 1) / n of the buffer.
 */
async function measureLink({ rank, peers }: Order, backend: BackendName) {
  const worldSize = peers.length
  const size = { rank, worldSize, expertParallelSize: 1, computeThreads: 1 }
  const engine = createEngine({ ...size, backend, device: { graphs: false }, timeoutMilliseconds: 60_000 })
  const begun = performance.now()
  await engine.listen(peers[rank]?.port)
  await engine.connect(peers, 'scmoe doctor')
  const connectMilliseconds = performance.now() - begun
  engine.load(sum(rank, worldSize))
  const seconds: number[] = []
  for (let round = 0; round <= ROUNDS; round++) {
    const { start, ready, end } = await engine.run('sum')
    seconds.push(((end[0] ?? 0) - Math.max(ready[0] ?? 0, start[0] ?? 0)) / 1e6)
  }
  const latencies: number[] = []
  for (let round = 0; round <= 4 * ROUNDS; round++) {
    const started = performance.now()
    await engine.allReduce(Float64Array.of(1))
    latencies.push(performance.now() - started)
  }
  engine.close()
  const bytes = (2 * (worldSize - 1) * 4 * FLOATS) / worldSize
  return {
    ranks: worldSize,
    backend,
    connectMilliseconds,
    bytesPerSecond: bytes / Math.min(...seconds.slice(1)),
    latencyMicroseconds: 1000 * Math.min(...latencies),
  }
}

function sum(rank: number, worldSize: number): Program {
  const place = { rank, worldSize, expertParallelSize: 1, persistentBytes: 4 * FLOATS, transientBytes: 0 }
  return {
    version: 1,
    name: 'sum',
    ...place,
    buffers: [{ name: 'x', dtype: 'f32', elements: FLOATS, arena: 'persistent', offset: 0 }],
    ops: [
      {
        op: 'all_reduce',
        label: 'sum',
        queue: 'comm',
        inputs: [0],
        outputs: [0],
        attrs: { group: 'world' },
        waits: [],
      },
    ],
  }
}
