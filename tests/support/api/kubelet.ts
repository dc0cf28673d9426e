// Stands in for scheduler and kubelet in tests without them: writes the status that a test wants
// its pods to have.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Progress } from '../../../crds/contract.ts'
import { ApiError, isCode } from '../../../operator/api/errors.ts'
import type { Kube } from '../../../operator/api/kube.ts'
import { type Pod, pathOf } from '../../../operator/objects/wire.ts'
import { recordOf } from '../operator-world.ts'
import { waitFor } from './operator.ts'

export type End = { exitCode: number; message?: string; reason?: string; at?: number }

export type KubeletOptions = {
  /** Whether new pods become ready by themselves. */
  autoReady?: boolean
  /** The address of a pod that becomes ready. */
  address?: (pod: Pod) => string | undefined
}

const seconds = (at: number) => new Date(at).toISOString().replace(/\.\d+Z/, 'Z')

export class Kubelet {
  readonly #kube: Kube
  readonly #stop = new AbortController()
  readonly #loop: Promise<void>
  /** Whether new pods become ready by themselves. */
  readonly #autoReady: boolean
  readonly #address: (pod: Pod) => string | undefined
  /** Namespaces whose pods do not stop when they are told to, as on a dead node. */
  readonly hanging = new Set<string | undefined>()

  constructor(kube: Kube, { autoReady = false, address = () => '127.0.0.1' }: KubeletOptions = {}) {
    this.#kube = kube
    this.#autoReady = autoReady
    this.#address = address
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#loop
  }

  /** Makes a pod ready. A pod without a node is bound first. */
  async ready(pod: Pod, address = this.#address(pod) ?? '127.0.0.1'): Promise<void> {
    if (pod.spec?.nodeName === undefined) await this.#bind(pod)
    const containerStatuses = [status(pod, { running: { startedAt: seconds(Date.now()) } }, true)]
    await this.#patch(pod, {
      phase: 'Running',
      podIP: address,
      podIPs: [{ ip: address }],
      conditions: [ready(true)],
      containerStatuses,
    })
  }

  /** Writes any status, as it is said. The pod has its node before. */
  async says(pod: Pod, status: object): Promise<void> {
    if (pod.spec?.nodeName === undefined) await this.#bind(pod)
    await this.#patch(pod, status)
  }

  async unready(pod: Pod): Promise<void> {
    const containerStatuses = [status(pod, { running: { startedAt: seconds(Date.now()) } }, false)]
    await this.#patch(pod, { conditions: [ready(false)], containerStatuses })
  }

  async waiting(pod: Pod, reason: string, message: string): Promise<void> {
    await this.#patch(pod, {
      phase: 'Pending',
      containerStatuses: [status(pod, { waiting: { reason, message } }, false)],
    })
  }

  /** Waits until the pod is bound, because binding it later would remove this condition. */
  async unschedulable(pod: Pod, message: string): Promise<void> {
    await waitFor('the pod to be bound', async () => {
      const { namespace, name } = pod.metadata
      const { spec } = await this.#kube.call<Pod>({ method: 'GET', path: pathOf('Pod', namespace, name) })
      return spec?.nodeName !== undefined
    })
    const conditions = [
      {
        type: 'PodScheduled',
        status: 'False',
        reason: 'Unschedulable',
        message,
        lastTransitionTime: seconds(Date.now()),
      },
    ]
    await this.#patch(pod, { phase: 'Pending', conditions })
  }

  /** A worker that ends well leaves the record of all its steps, unless `message` is another. */
  async end(pod: Pod, { exitCode, message, reason, at = Date.now() }: End): Promise<void> {
    const terminated = {
      exitCode,
      message: message ?? (exitCode === 0 ? recordOf(pod, new Date(at)) : undefined),
      reason: reason ?? (exitCode === 0 ? 'Completed' : 'Error'),
      finishedAt: seconds(at),
    }
    // Like a real kubelet, reports the end of the container a moment before the pod's phase.
    const containerStatuses = [status(pod, { terminated }, false)]
    await this.#patch(pod, { conditions: [ready(false)], containerStatuses })
    await sleep(150)
    await this.#patch(pod, { phase: exitCode === 0 ? 'Succeeded' : 'Failed' }).catch((error: unknown) => {
      if (!isCode(error, 404)) throw error
    })
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const { items } = await this.#kube
        .call<{ items: Pod[] }>({ method: 'GET', path: pathOf('Pod') })
        .catch(() => ({ items: [] as Pod[] }))
      await Promise.all(items.map(async pod => this.#look(pod).catch(ignored)))
      await sleep(50)
    }
  }

  async #look(pod: Pod): Promise<void> {
    const { namespace, name, uid, deletionTimestamp } = pod.metadata
    if (deletionTimestamp !== undefined) {
      const body = { gracePeriodSeconds: 0, preconditions: { uid } }
      if (!this.hanging.has(namespace))
        await this.#kube.call({ method: 'DELETE', path: pathOf('Pod', namespace, name), body })
    } else if (pod.spec?.nodeName === undefined) await this.#bind(pod)
    else if (this.#autoReady && pod.status?.phase === 'Pending') await this.ready(pod)
  }

  async #bind({ metadata: { namespace, name } }: Pod): Promise<void> {
    const target = { apiVersion: 'v1', kind: 'Node', name: 'node-1' }
    const body = { apiVersion: 'v1', kind: 'Binding', metadata: { name }, target }
    await this.#kube
      .call({ method: 'POST', path: `${pathOf('Pod', namespace, name)}/binding`, body })
      .catch((error: unknown) => {
        if (!isCode(error, 404, 409)) throw error
      })
  }

  async #patch({ metadata: { namespace, name } }: Pod, body: object): Promise<void> {
    const path = `${pathOf('Pod', namespace, name)}/status`
    await this.#kube.call({
      method: 'PATCH',
      path,
      body: { status: body },
      contentType: 'application/strategic-merge-patch+json',
    })
  }
}

/** Ignores an error. The pod may be gone or the server away, and the loop looks again soon. */
function ignored(error: unknown): void {
  const answered = error instanceof ApiError && error.code < 500
  if (answered && !isCode(error, 404, 409)) throw error
}

const ready = (holds: boolean) => ({
  type: 'Ready',
  status: holds ? 'True' : 'False',
  lastTransitionTime: seconds(Date.now()),
})

const status = (pod: Pod, state: object, isReady: boolean) => ({
  name: 'worker',
  image: 'scmoe-worker:test',
  imageID: '',
  ready: isReady,
  restartCount: 0,
  containerID: `containerd://${pod.metadata.uid}`,
  state,
})

export const progressOf = (jobUid: string, extra: Partial<Progress> = {}): Progress => ({
  jobUid,
  attempt: 1,
  rank: 0,
  step: 10,
  totalSteps: 100,
  observedTime: new Date().toISOString(),
  ...extra,
})
