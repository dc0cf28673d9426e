// The cluster of bench:operator: a real API server, and pods that this process drives to Running,
// because there is no kubelet.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { Kube } from '../../operator/api/kube.ts'
import { type Job, type KubeObject, pathOf } from '../../operator/objects/wire.ts'
import { type Cluster, up } from '../../tools/cluster/cluster.ts'
import { until } from './parallel.ts'
import { Pods } from './pods.ts'

export class World {
  readonly kube: Kube
  readonly kubeconfig: string
  readonly pods: Pods
  readonly #cluster: Cluster
  /** A folder for files of the measured programs. */
  readonly folder: string

  private constructor(cluster: Cluster, folder: string) {
    this.#cluster = cluster
    this.folder = folder
    this.kubeconfig = cluster.kubeconfig
    this.kube = new Kube(cluster.kubeconfig)
    this.pods = new Pods(this.kube)
  }

  static async start(): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), 'scmoe-bench-operator-'))
    const world = new World(await up({ mode: 'api', provider: 'embedded', stateDir: join(folder, 'c') }), folder)
    await world.install(readFileSync('crds/scmoejob.yaml', 'utf8'), pathOf('ScMoEJob'))
    return world
  }

  async stop(): Promise<void> {
    await this.pods.stop()
    await this.#cluster.down()
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Creates a CustomResourceDefinition and waits until its collection is served. */
  async install(crd: string, collection: string): Promise<void> {
    const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
    const body: KubeObject = parse(crd)
    await this.kube.call({ method: 'POST', path, body })
    await until(`${collection} to be served`, () =>
      this.kube.call({ method: 'GET', path: collection }).then(
        () => true,
        () => false,
      ),
    )
  }

  async namespace(name: string): Promise<string> {
    await this.kube.call({ method: 'POST', path: '/api/v1/namespaces', body: { metadata: { name } } })
    return name
  }

  async job(namespace: string, name: string): Promise<Job> {
    return this.kube.call({ method: 'GET', path: pathOf('ScMoEJob', namespace, name) })
  }

  /** Deletes all objects of these collections. */
  async clear(...collections: string[]): Promise<void> {
    for (const path of collections)
      await this.kube.call({
        method: 'DELETE',
        path,
        query: { propagationPolicy: 'Background' },
        timeoutMilliseconds: 120_000,
      })
  }
}
