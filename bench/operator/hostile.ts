// The life of jobs in a quiet namespace, alone and while another namespace behaves badly. Turns of
// both take place in the same run, one after another.

import { setTimeout as sleep } from 'node:timers/promises'
import { pathOf } from '../../operator/objects/wire.ts'
import { inParallel } from './parallel.ts'
import { clear, send } from './phases.ts'
import { SlowWebhook } from './slow-webhook.ts'
import type { Operator } from './subjects.ts'
import { type Life, lifeOf, PHASES, type Phase, Watched } from './victim.ts'
import type { World } from './world.ts'

export const HOSTILE = ['refused', 'webhook', 'failing'] as const
export type Turn = 'alone' | (typeof HOSTILE)[number]

export type Sizes = {
  refused: number
  refusedWorkers: number
  webhook: number
  webhookSeconds: number
  failing: number
  /** Jobs of the quiet namespace that live at the same time. */
  lanes: number
  seconds: number
}
export type Lives = Record<Turn, Life[]>

type Place = { world: World; subject: Operator; sizes: Sizes }
/** Starts what is hostile, and returns what ends it. */
type Start = (place: Place, namespace: string) => Promise<() => Promise<void>>

const WORKER_ERROR = 70
const WORKERS = 2

const STARTS: Record<Turn, Start> = { alone: async () => async () => undefined, refused, webhook, failing }

/** The lives of the quiet jobs in one turn. The namespaces are empty afterwards. */
export async function turnOf(place: Place, turn: Turn, name: string): Promise<Life[]> {
  const { world, subject, sizes } = place
  const hostile = await world.namespace(`${name}-${turn}`)
  const quiet = await world.namespace(`${name}-${turn}-quiet`)
  const watched = new Watched(world, quiet)
  const end = await STARTS[turn](place, hostile)
  try {
    return await livesOf(place, watched, quiet)
  } finally {
    await end()
    watched.stop()
    for (const namespace of [hostile, quiet]) await clear({ world, subject }, namespace)
    await sleep(Math.min(3, sizes.seconds) * 1000)
  }
}

async function livesOf({ world, subject, sizes }: Place, watched: Watched, namespace: string): Promise<Life[]> {
  const lives: Life[] = []
  const end = performance.now() + sizes.seconds * 1000
  const lane = async (_: unknown, number: number) => {
    // A lane lives at least once, so that a turn in which nothing moves has a figure, too.
    for (let i = 0; i === 0 || performance.now() < end; i++)
      lives.push(
        await lifeOf({ world, subject, watched }, { namespace, name: `quiet-${number}-${i}`, workers: WORKERS }),
      )
  }
  await Promise.all(Array.from({ length: sizes.lanes }, lane))
  return lives
}

/** A quota admits no pods at all. */
async function refused({ world, subject, sizes }: Place, namespace: string): Promise<() => Promise<void>> {
  const path = `/api/v1/namespaces/${namespace}/resourcequotas`
  const hard = { pods: '0' }
  await world.kube.call({ method: 'POST', path, body: { metadata: { name: 'none' }, spec: { hard } } })
  // There is no controller that would count what is used.
  const status = { hard, used: hard }
  const contentType = 'application/merge-patch+json'
  await world.kube.call({ method: 'PATCH', path: `${path}/none/status`, body: { status }, contentType })
  await send({ world, subject }, { namespace, to: sizes.refused, workers: sizes.refusedWorkers })
  return async () => undefined
}

async function webhook({ world, subject, sizes }: Place, namespace: string): Promise<() => Promise<void>> {
  const hook = await SlowWebhook.start(world, namespace, () => sleep(sizes.webhookSeconds * 1000))
  await send({ world, subject }, { namespace, to: sizes.webhook, workers: WORKERS })
  return async () => hook.stop()
}

/** All gangs run and fail at once, and again whenever all of them run. */
async function failing({ world, subject, sizes }: Place, namespace: string): Promise<() => Promise<void>> {
  const stop = new AbortController()
  await send({ world, subject }, { namespace, to: sizes.failing, workers: 1 })
  await world.pods.count(namespace, sizes.failing)
  const old = new Set<string | undefined>()
  const fail = async () => {
    while (!stop.signal.aborted) {
      const fresh = world.pods
        .in(namespace)
        .filter(({ pod, readyAt }) => readyAt !== undefined && !old.has(pod.metadata.uid))
      if (fresh.length === sizes.failing) {
        for (const { pod } of fresh) old.add(pod.metadata.uid)
        await inParallel(fresh, async seen => world.pods.end(seen, WORKER_ERROR).catch(() => undefined))
      }
      await sleep(50)
    }
  }
  const loop = fail()
  return async () => {
    stop.abort()
    await loop
    await world.clear(pathOf('ScMoEJob', namespace))
  }
}

export type Row = {
  hostile: Turn
  phase: Phase
  samples: number
  p50: number
  p99: number
  ratio50: number
  ratio99: number
}

/** A row for each phase of each turn. Ratios are to the same phase alone. */
export function rowsOf(lives: Lives, quantile: (values: readonly number[], q: number) => number): Row[] {
  const turns: readonly Turn[] = ['alone', ...HOSTILE]
  return turns.flatMap(hostile =>
    PHASES.map(phase => {
      const [values, alone] = [lives[hostile].map(life => life[phase]), lives.alone.map(life => life[phase])]
      const [p50, p99] = [quantile(values, 0.5), quantile(values, 0.99)]
      const ratios = { ratio50: p50 / quantile(alone, 0.5), ratio99: p99 / quantile(alone, 0.99) }
      return { hostile, phase, samples: values.length, p50, p99, ...ratios }
    }),
  )
}
