// A cluster made of plain data: one job, its pods and a clock. It carries out plans on itself, and
// acts as scheduler and kubelet.

import { API_VERSION, KIND, LABEL } from '../../crds/contract.ts'
import { ScMoEJobStatus } from '../../crds/status.ts'
import type { ProviderName } from '../../operator/objects/providers.ts'
import type { Job, KubeObject, Pod } from '../../operator/objects/wire.ts'
import { describe, type Plan, plan } from '../../operator/plan/plan.ts'
import { reportOf } from '../../operator/plan/report.ts'
import type { LastAnswer, Settings } from '../../operator/plan/view.ts'

export const T0 = Date.parse('2026-01-01T00:00:00Z')
export type End = { exitCode: number; message?: string; reason?: string; after?: number }

export class World {
  now = T0
  readonly job: Job & { spec: Record<string, unknown>; status?: ScMoEJobStatus }
  readonly pods = new Map<string, Pod>()
  /** The last known state of pods that are gone, by name. */
  readonly gonePods = new Map<string, Pod>()
  /** Pods as the operator sent them, by name. */
  readonly made = new Map<string, KubeObject & { readonly [key: string]: unknown }>()
  settings: Settings
  /** Objects of the scheduling provider. */
  groups: KubeObject[] = []
  service: KubeObject | undefined
  budget: KubeObject | undefined
  networkPolicy: KubeObject | undefined
  lastAnswer: LastAnswer | undefined
  /** The words of events, by the pod's uid. */
  readonly podWords = new Map<string, string>()
  /** Number of pods that the nodes have room for. */
  room = Number.POSITIVE_INFINITY
  #pods = 0

  constructor(spec: Record<string, unknown> = {}, provider: ProviderName = 'none') {
    this.settings = { workerImage: 'worker:1', gpuWorkerImage: 'worker-gpu:1', scheduler: { provider } }
    const workers = { replicas: 2 }
    const metadata = { name: 'gpt', namespace: 'ns', uid: 'uid-1', generation: 1 }
    this.job = { apiVersion: API_VERSION, kind: KIND, metadata, spec: { training: { steps: 100 }, workers, ...spec } }
  }

  get status(): ScMoEJobStatus {
    return ScMoEJobStatus.parse(this.job.status ?? {})
  }

  plan(): Plan {
    const { job, service, budget, networkPolicy, groups, lastAnswer, podWords, settings } = this
    const [pods, gonePods] = [[...this.pods.values()], [...this.gonePods.values()]]
    const objects = { job, pods, gonePods, service, budget, networkPolicy, groups }
    return plan({ ...objects, lastAnswer, podWords, watchedSince: T0, ...settings }, this.now)
  }

  /**
   * Makes a plan and carries it out. An operator that dies early does only so many `actions`, and
   * does not `write` the status.
   */
  step({ actions = Number.POSITIVE_INFINITY, write = true } = {}): Plan {
    const wanted = this.plan()
    for (const action of wanted.actions.slice(0, actions)) {
      if (action.kind === 'deleteWorkload')
        this.groups = this.groups.filter(({ metadata: { uid } }) => uid !== action.workload.metadata.uid)
      else if (action.kind === 'deleteJob') this.job.metadata.deletionTimestamp = new Date(this.now).toISOString()
      else if (action.kind === 'delete' && action.force) this.vanish(action.pod.metadata.name)
      else if (action.kind === 'delete') this.#stop(action.pod.metadata.name)
      else if (action.object.kind === 'Service') this.service = action.object
      else if (action.object.kind === 'PodDisruptionBudget') this.budget = action.object
      else if (action.object.kind === 'NetworkPolicy') this.networkPolicy = action.object
      // The operator never sees a Secret again.
      else if (action.object.kind === 'Secret') continue
      else if (action.object.kind === 'Pod') this.#create(action.object)
      else
        this.groups = [
          ...this.groups.filter(({ metadata: { name } }) => name !== action.object.metadata.name),
          action.object,
        ]
    }
    if (!write) return wanted
    const { progress, throughput, lastCheckpoint } = this.status
    const reported = wanted.report ?? JSON.parse(JSON.stringify({ progress, throughput, lastCheckpoint }))
    const controlled = wanted.status ?? this.status
    this.job.status = ScMoEJobStatus.parse(JSON.parse(JSON.stringify({ ...controlled, ...reported })))
    return wanted
  }

  /** Steps until nothing is left to do at this time. Returns the sentences of all plans. */
  settle(): string[] {
    const done: string[] = []
    for (let i = 0; i < 20; i++) {
      const wanted = this.step()
      if (wanted.actions.length === 0 && wanted.status === undefined && wanted.report === undefined) return done
      done.push(...describe(wanted))
    }
    throw new Error(`does not settle: ${done.slice(-10).join('; ')}`)
  }

  /** Settles, and returns the sentences except for those that say when to look again. */
  changes(): string[] {
    return this.settle().filter(sentence => !sentence.startsWith('look again at'))
  }

  /** Rank 0 of this attempt reports its step, and the operator writes it into the status. */
  answers(step: number): void {
    const { attempt = 1, workers } = this.status
    this.lastAnswer = { attempt, step, at: this.now }
    const observedTime = new Date(this.now).toISOString()
    const record = {
      jobUid: 'uid-1',
      attempt,
      rank: 0,
      step,
      totalSteps: 100,
      estimatedRemainingSeconds: 100 - step,
      observedTime,
    }
    const report = reportOf(record, { status: this.status, ranks: workers?.desired ?? 1, now: this.now })
    this.job.status = { ...this.status, ...report }
  }

  ready(name: string): void {
    this.#readiness(name, 'True')
  }

  /** The pod's readiness probe fails: the process exists, but does not answer. */
  unready(name: string): void {
    this.#readiness(name, 'False')
  }

  /** A worker that ends well leaves the record of all its steps, unless `message` is another. */
  end(name: string, { exitCode, message: said, reason = 'Error', after = 0 }: End): void {
    const message = said ?? (exitCode === 0 ? recordOf(this.#pod(name), new Date(this.now)) : undefined)
    const finishedAt = new Date(this.now + after).toISOString()
    const terminated = { exitCode, reason, finishedAt, ...(message === undefined ? {} : { message }) }
    const containerStatuses = [{ name: 'worker', image: 'worker:1', state: { terminated } }]
    const pod = this.#pod(name)
    const conditions = pod.status?.conditions?.filter(({ type }) => type !== 'Ready')
    pod.status = { phase: exitCode === 0 ? 'Succeeded' : 'Failed', conditions, containerStatuses }
  }

  waiting(name: string, reason: string, message = ''): void {
    const pod = this.#pod(name)
    pod.status = {
      phase: 'Pending',
      conditions: pod.status?.conditions?.filter(({ type }) => type !== 'Ready'),
      containerStatuses: [{ name: 'worker', image: 'worker:1', state: { waiting: { reason, message } } }],
    }
  }

  unschedulable(name: string, message: string): void {
    const pod = this.#pod(name)
    pod.spec = {}
    pod.status = {
      phase: 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message }],
    }
  }

  /** An admission plugin or webhook holds the pod back. */
  gated(name: string): void {
    const message = 'Scheduling is blocked due to non-empty scheduling gates'
    const condition = { type: 'PodScheduled', status: 'False', reason: 'SchedulingGated', message }
    this.#pod(name).status = { phase: 'Pending', conditions: [condition] }
  }

  /** Somebody else deletes the pod, which is then told to stop. */
  remove(name: string, condition?: { reason: string; message: string }): void {
    const pod = this.#pod(name)
    if (condition !== undefined)
      pod.status = { ...pod.status, conditions: [{ type: 'DisruptionTarget', status: 'True', ...condition }] }
    this.#stop(name)
  }

  /** The kubelet has ended all pods that were told to stop. */
  gone(): void {
    for (const [name, { metadata }] of this.pods) if (metadata.deletionTimestamp !== undefined) this.vanish(name)
  }

  /** The pod does not exist any more. */
  vanish(name: string): void {
    this.gonePods.set(name, this.#pod(name))
    this.pods.delete(name)
  }

  wait(seconds: number): void {
    this.now += seconds * 1000
  }

  edit(spec: Record<string, unknown>): void {
    Object.assign(this.job.spec, spec)
    this.job.metadata.generation = (this.job.metadata.generation ?? 0) + 1
  }

  #create(object: KubeObject): void {
    const { name } = object.metadata
    if (this.pods.has(name)) throw new Error(`pod ${name} exists`)
    this.made.set(name, { ...object })
    this.gonePods.delete(name)
    const stored: Pod = structuredClone(object)
    this.pods.set(name, {
      ...stored,
      metadata: {
        ...stored.metadata,
        uid: `pod-${++this.#pods}`,
        creationTimestamp: new Date(this.now).toISOString(),
      },
      spec: {},
      status: { phase: 'Pending' },
    })
    this.schedule()
  }

  /** Gives nodes to as many pods as there is room for, in the order of their creation. */
  schedule(): void {
    const placed = () => [...this.pods.values()].filter(({ spec }) => spec?.nodeName !== undefined).length
    for (const [name, pod] of this.pods) {
      if (pod.spec?.nodeName !== undefined) continue
      if (placed() >= this.room) this.unschedulable(name, '0/1 nodes are available')
      else {
        pod.spec = { nodeName: 'node-1' }
        pod.status = { phase: 'Pending', conditions: [{ type: 'PodScheduled', status: 'True', ...this.#since() }] }
      }
    }
  }

  #since() {
    return { lastTransitionTime: new Date(this.now).toISOString() }
  }

  #readiness(name: string, status: 'True' | 'False'): void {
    const pod = this.#pod(name)
    const others = pod.status?.conditions?.filter(({ type }) => type !== 'Ready') ?? []
    const conditions = [...others, { type: 'Ready', status, ...this.#since() }]
    const state = { running: {} }
    const containerStatuses = [{ name: 'worker', image: 'worker:1', ready: status === 'True', state }]
    pod.status = { phase: 'Running', podIP: '10.0.0.1', conditions, containerStatuses }
  }

  #stop(name: string): void {
    const pod = this.#pod(name)
    pod.metadata = {
      ...pod.metadata,
      deletionTimestamp: new Date(this.now + 60_000).toISOString(),
      deletionGracePeriodSeconds: 60,
    }
  }

  #pod(name: string): Pod {
    const pod = this.pods.get(name)
    if (pod === undefined) throw new Error(`no pod ${name}`)
    return pod
  }
}

/** The termination message of a worker that did all steps that its pod was created for. */
export function recordOf({ metadata: { labels = {} } }: Pod, now: Date): string {
  const steps = Number(labels[LABEL.steps])
  const place = {
    jobUid: labels[LABEL.jobUid],
    attempt: Number(labels[LABEL.attempt]),
    rank: Number(labels[LABEL.rank]),
  }
  return JSON.stringify({ progress: { ...place, step: steps, totalSteps: steps, observedTime: now.toISOString() } })
}

export const attemptOf = (pod: Pod): number => Number(pod.metadata.labels?.[LABEL.attempt])
export const failure = (rank: number, reason: string, message: string): string =>
  JSON.stringify({ failure: { rank, reason, message } })

export const maxRestarts = (n: number) => ({
  failurePolicy: { maxRestarts: n, backoff: { initialSeconds: 10, maxSeconds: 25 } },
})

export function runningWorld(spec: Record<string, unknown> = maxRestarts(3)): World {
  const world = new World(spec)
  world.settle()
  for (const name of world.pods.keys()) world.ready(name)
  world.settle()
  return world
}
