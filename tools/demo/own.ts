// How the demo watches what others take of the machine: the processes of its cluster are its own.

import type { Load } from '../../bench/turns/load.ts'
import { Watch } from '../../bench/turns/watch.ts'
import type { Cluster } from '../cluster/cluster.ts'
import { clusterId, readRecord } from '../cluster/state.ts'
import { identify, type ProcessIdentity, run } from '../process.ts'

const NOTHING: Load = { total: 0, busy: 0, stolen: 0, own: 0, kernel: 0 }

/** A cluster of the user may run anywhere, so nothing is measured beside it. */
export async function watchOf(cluster: Cluster, say: (line: string) => void): Promise<Watch> {
  if (cluster.provider !== 'existing') return new Watch({ roots: await processesOf(cluster) })
  say('this cluster is yours, so what others take of its machines is not measured')
  return new Watch({ read: () => NOTHING })
}

/** The first processes of the cluster, below which are all others. */
async function processesOf({ provider, stateDir }: Cluster): Promise<readonly ProcessIdentity[]> {
  if (provider === 'embedded') return readRecord(stateDir)?.processes ?? []
  const node = `${clusterId(stateDir)}-control-plane`
  const pid = Number(await run('docker', ['inspect', '--format', '{{.State.Pid}}', node]))
  return [identify(pid)]
}
