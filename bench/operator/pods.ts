// Scheduler and kubelet of a cluster without nodes: every new pod becomes Running and Ready as soon as it is seen, until it is told to end.

import { setTimeout as sleep } from 'node:timers/promises'
import { isCode } from '../../operator/errors.ts'
import type { Kube } from '../../operator/kube.ts'
import { type Pod, pathOf } from '../../operator/objects.ts'
import { until } from './world.ts'

/** When this process saw a pod come, and what it says of itself. */
export type Seen = { at: number; pod: Pod; address: string }

const PATCH = 'application/strategic-merge-patch+json'
const now = () => new Date().toISOString().replace(/\.\d+Z/, 'Z')

export class Pods {
  readonly #kube: Kube
  readonly #stop = new AbortController()
  readonly #watching: Promise<void>
  readonly #live = new Map<string, Seen>()
  readonly #byAddress = new Map<string, Pod>()
  readonly #counts = new Map<string, number>()
  #number = 0
  #open = false

  constructor(kube: Kube) {
    this.#kube = kube
    this.#watching = this.#watch()
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#watching
  }

  /** Pods that exist. */
  in(namespace: string): Seen[] {
    return [...this.#live.values()].filter(({ pod }) => pod.metadata.namespace === namespace)
  }

  /** Whose address that is: every pod has one of its own on the loopback. */
  at(address: string): Pod | undefined {
    return this.#byAddress.get(address)
  }

  async count(namespace: string, expected: number, seconds?: number): Promise<Seen[]> {
    await until('the watch of pods', () => this.#open)
    await until(`${expected} pods in ${namespace}`, () => this.#has(namespace) === expected, seconds).catch(
      (error: unknown) => {
        throw new Error(`there are ${this.#has(namespace)}`, { cause: error })
      },
    )
    return this.in(namespace)
  }

  async end({ pod }: Seen, exitCode: number, message?: string): Promise<void> {
    const terminated = { exitCode, message, reason: exitCode === 0 ? 'Completed' : 'Error', finishedAt: now() }
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

  async #watch(): Promise<void> {
    const request = { method: 'GET', path: pathOf('Pod'), query: { watch: true, timeoutSeconds: 3600 } } as const
    while (!this.#stop.signal.aborted) {
      try {
        const lines = this.#kube.lines<{ type: string; object: Pod }>(request, this.#stop.signal)
        this.#open = true
        for await (const { type, object } of lines) this.#see(type, object)
      } catch (error) {
        if (this.#stop.signal.aborted) return
        console.error('watch of pods', error)
        await sleep(500)
      }
    }
  }

  #see(type: string, pod: Pod): void {
    const { uid = '' } = pod.metadata
    const seen = this.#live.get(uid)
    if (type === 'DELETED') {
      this.#live.delete(uid)
      if (seen === undefined) return
      this.#add(pod, -1)
      this.#byAddress.delete(seen.address)
    } else if (seen === undefined) {
      const n = ++this.#number
      this.#add(pod, 1)
      const address = `127.${1 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`
      this.#live.set(uid, { at: performance.now(), pod, address })
      this.#byAddress.set(address, pod)
      void this.#run(pod, address)
    } else seen.pod = pod
  }

  async #run(pod: Pod, address: string): Promise<void> {
    const running = { running: { startedAt: now() } }
    await this.#patch(pod, {
      phase: 'Running',
      podIP: address,
      podIPs: [{ ip: address }],
      conditions: [condition('Ready', true)],
      containerStatuses: containers(pod, running, true),
    }).catch((error: unknown) => {
      if (!isCode(error, 404, 409) && !this.#stop.signal.aborted) console.error(error)
    })
  }

  async #patch({ metadata: { namespace, name, uid } }: Pod, status: object): Promise<void> {
    const path = `${pathOf('Pod', namespace, name)}/status`
    await this.#kube.call({ method: 'PATCH', path, body: { metadata: { uid }, status }, contentType: PATCH })
  }
}

const condition = (type: string, holds: boolean) => ({
  type,
  status: holds ? 'True' : 'False',
  lastTransitionTime: now(),
})

const containers = (pod: Pod, state: object, ready: boolean) => [
  {
    name: containerOf(pod),
    image: 'worker:1',
    imageID: '',
    ready,
    restartCount: 0,
    containerID: `containerd://${pod.metadata.uid}`,
    state,
  },
]

/** The operator's Pod is cut down to what it reads. */
/** The operator's Pod is cut down to what it reads. */
function containerOf({
  spec,
}: {
  spec?: { nodeName?: string | undefined; containers?: { name: string }[] } | undefined
}): string {
  return spec?.containers?.[0]?.name ?? 'worker'
}
