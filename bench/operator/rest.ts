// The measurements of bench:operator for the operator alone: writes, processor time at rest, and
// take-over by a standby.

import { createServer, type Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { LABEL, type Progress } from '../../crds/contract.ts'
import { readStatus } from '../../operator/plan/view.ts'
import { inParallel, until } from './parallel.ts'
import type { Gang, Operator } from './subjects.ts'
import type { World } from './world.ts'

/** Answers the operator's requests for progress in the place of rank 0 of every job. */
export class Workers {
  readonly #server: Server
  /** Whether every answer reports another step. */
  moving = false
  answers = 0
  #step = 1

  constructor(world: World) {
    this.#server = createServer(({ socket }, response) => {
      const pod = world.pods.at((socket.localAddress ?? '').replace('::ffff:', ''))
      this.answers++
      if (this.moving) this.#step++
      if (pod === undefined) {
        response.writeHead(404).end()
        return
      }
      const record: Progress = {
        jobUid: pod.metadata.labels?.[LABEL.jobUid] ?? '',
        attempt: Number(pod.metadata.labels?.[LABEL.attempt]),
        rank: 0,
        step: this.#step,
        totalSteps: 100_000_000,
        lossMilli: 2500,
        tokensPerSecond: 400_000,
        stepTimeMilliseconds: 250,
        communicationMilliseconds: 80,
        overlapPercent: 97,
        schedule: 'shortcut K=3, 1 chunk',
        observedTime: this.moving ? new Date().toISOString() : '2026-01-01T00:00:00Z',
      }
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(record))
    })
  }

  async listen(): Promise<number> {
    await new Promise<void>(resolve => this.#server.listen(0, '0.0.0.0', resolve))
    const address = this.#server.address()
    return typeof address === 'object' ? (address?.port ?? 0) : 0
  }

  stop(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

/** The number of requests of the operator that are not reads. */
export async function writes(metricsPort: number): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
  const lines = text
    .split('\n')
    .filter(line => line.startsWith('rest_client_requests_total{') && !line.includes('method="GET"'))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

/** Writes per job, from its creation to Complete. */
export async function writesPerJob(
  world: World,
  { operator, metricsPort, gangs }: { operator: Operator; metricsPort: number; gangs: readonly Gang[] },
): Promise<number> {
  const before = await writes(metricsPort)
  const namespace = gangs[0]?.namespace ?? ''
  const inState = async (state: string) => {
    const jobs = await Promise.all(gangs.map(async gang => world.job(namespace, gang.name)))
    return jobs.every(job => readStatus(job).state === state)
  }
  await inParallel(gangs, async gang => world.kube.call({ method: 'POST', ...operator.request(gang) }))
  await until('all jobs to run', () => inState('Running'))
  await inParallel(world.pods.in(namespace), async seen => world.pods.end(seen, 0, lastWords(seen.pod)))
  await until('all jobs to be complete', () => inState('Complete'))
  await sleep(1000)
  return ((await writes(metricsPort)) - before) / gangs.length
}

/** The termination message of a worker that did all its steps. */
export function lastWords({
  metadata: { labels = {} },
}: {
  metadata: { labels?: Record<string, string> | undefined }
}): string {
  const { [LABEL.jobUid]: jobUid, [LABEL.attempt]: attempt, [LABEL.rank]: rank } = labels
  const progress = {
    jobUid,
    attempt: Number(attempt),
    rank: Number(rank),
    step: 100,
    totalSteps: 100,
    observedTime: new Date().toISOString(),
  }
  return JSON.stringify({ progress })
}

/** The percentage of one core that the operator uses in so many seconds. */
export async function processorPercent(operator: Operator, seconds: number): Promise<number> {
  const before = operator.program.processorSeconds()
  const start = performance.now()
  await sleep(seconds * 1000)
  const spent = operator.program.processorSeconds() - before
  return (100 * spent) / ((performance.now() - start) / 1000)
}

/** Seconds from the signal to the leader until the standby has created the pods of a new job. */
export async function takeover(
  world: World,
  { leader, standby, gang, signal }: { leader: Operator; standby: Operator; gang: Gang; signal: 'SIGKILL' | 'SIGTERM' },
): Promise<number> {
  await leader.start()
  await until('a leader', () => leader.program.text().includes('"leads"'))
  await standby.start()
  await sleep(2500)
  const start = performance.now()
  const ending = leader.program.stop(signal)
  await world.kube.call({ method: 'POST', ...standby.request(gang) })
  const pods = await world.pods.count(gang.namespace, gang.workers)
  await ending
  await standby.stop()
  return (Math.max(...pods.map(({ at }) => at)) - start) / 1000
}
