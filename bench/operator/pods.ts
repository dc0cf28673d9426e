// Replaces scheduler and kubelet in a cluster without nodes: every new pod becomes Running and
// Ready as soon as it is seen, and ends when `end` is called.

import { isCode } from '../../operator/api/errors.ts'
import type { Kube } from '../../operator/api/kube.ts'
import { Reflector } from '../../operator/api/reflector.ts'
import { type Pod, pathOf } from '../../operator/objects/wire.ts'
import { until } from './parallel.ts'

/**
 * A pod, the time at which this process saw it first, its address, and the time at which the server
 * had it as ready.
 */
export type Seen = { at: number; pod: Pod; address: string; readyAt?: number }

const PATCH = 'application/strategic-merge-patch+json'
const timestamp = () => new Date().toISOString().replace(/\.\d+Z/, 'Z')

export class Pods {
  readonly #kube: Kube
  readonly #stop = new AbortController()
  readonly #watching: Promise<void>
  readonly #reflector: Reflector<Pod>
  readonly #live = new Map<string, Seen>()
  readonly #byAddress = new Map<string, Pod>()
  readonly #counts = new Map<string, number>()
  #number = 0

  constructor(kube: Kube) {
    this.#kube = kube
    const onProblem = (problem: string) => console.error(problem)
    const onChange = (now: Pod | undefined, before: Pod | undefined) => this.#see(now, before)
    this.#reflector = new Reflector<Pod>({ kube, path: pathOf('Pod'), onChange, onProblem, trim })
    this.#watching = this.#reflector.run(this.#stop.signal)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#watching
  }

  /** The pods that exist in a namespace. */
  in(namespace: string): Seen[] {
    return [...this.#live.values()].filter(({ pod }) => pod.metadata.namespace === namespace)
  }

  /** The pod with this address; every pod has its own loopback address. */
  at(address: string): Pod | undefined {
    return this.#byAddress.get(address)
  }

  async count(namespace: string, expected: number, seconds?: number): Promise<Seen[]> {
    await until('the watch of pods', () => this.#reflector.synced)
    await until(`${expected} pods in ${namespace}`, () => this.#has(namespace) === expected, seconds).catch(
      (error: unknown) => {
        throw new Error(`there are ${this.#has(namespace)}`, { cause: error })
      },
    )
    return this.in(namespace)
  }

  async end({ pod }: Seen, exitCode: number, message?: string): Promise<void> {
    const terminated = { exitCode, message, reason: exitCode === 0 ? 'Completed' : 'Error', finishedAt: timestamp() }
    await this.#patch(pod, {
      phase: exitCode === 0 ? 'Succeeded' : 'Failed',
      conditions: [condition('Ready', false)],
      containerStatuses: containers(pod, { terminated }, false),
    })
  }

  #has(namespace: string): number {
    return this.#counts.get(namespace) ?? 0
  }

  #add({ metadata: { namespace = '' } }: Pod, by: number): void {
    this.#counts.set(namespace, this.#has(namespace) + by)
  }

  #see(pod: Pod | undefined, before: Pod | undefined): void {
    if (pod === undefined) {
      const seen = this.#live.get(before?.metadata.uid ?? '')
      if (seen === undefined) return
      this.#live.delete(seen.pod.metadata.uid ?? '')
      this.#add(seen.pod, -1)
      this.#byAddress.delete(seen.address)
    } else if (before === undefined) {
      const n = ++this.#number
      this.#add(pod, 1)
      const address = `127.${1 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`
      const seen: Seen = { at: performance.now(), pod, address }
      this.#live.set(pod.metadata.uid ?? '', seen)
      this.#byAddress.set(address, pod)
      void this.#run(seen)
    }
  }

  async #run(seen: Seen): Promise<void> {
    const { pod, address } = seen
    const running = { running: { startedAt: timestamp() } }
    await this.#patch(pod, {
      phase: 'Running',
      podIP: address,
      podIPs: [{ ip: address }],
      conditions: [condition('Ready', true)],
      containerStatuses: containers(pod, running, true),
    }).catch((error: unknown) => {
      if (!isCode(error, 404, 409) && !this.#stop.signal.aborted) console.error(error)
    })
    seen.readyAt = performance.now()
  }

  async #patch({ metadata: { namespace, name, uid } }: Pod, status: object): Promise<void> {
    const path = `${pathOf('Pod', namespace, name)}/status`
    await this.#kube.call({ method: 'PATCH', path, body: { metadata: { uid }, status }, contentType: PATCH })
  }
}

/** Only names and labels are read. The container's name is kept in the place of its status. */
const trim = ({ metadata, spec }: Pod & { spec?: { containers?: { name: string }[] } | undefined }): Pod => {
  const { name, namespace, uid, resourceVersion, labels } = metadata
  return {
    metadata: { name, namespace, uid, resourceVersion, labels },
    status: { containerStatuses: [{ name: spec?.containers?.[0]?.name ?? '' }] },
  }
}

const condition = (type: string, holds: boolean) => ({
  type,
  status: holds ? 'True' : 'False',
  lastTransitionTime: timestamp(),
})

const containers = (pod: Pod, state: object, ready: boolean) => [
  {
    name: pod.status?.containerStatuses?.[0]?.name,
    image: 'worker:1',
    imageID: '',
    ready,
    restartCount: 0,
    containerID: `containerd://${pod.metadata.uid}`,
    state,
  },
]
