// The bare client loop with which controllers are compared. It creates the pods that the operator
// would create for JOBS jobs and reads nothing. With `replace` it first deletes each existing gang.
// It sends its parent process the time at which it began.
//
//   node bench/operator/loop.ts KUBECONFIG NAMESPACE JOBS WORKERS create|replace

import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { Kube } from '../../operator/api/kube.ts'
import { pathOf } from '../../operator/objects/wire.ts'
import { pod } from '../../operator/objects/workers.ts'
import { inParallel } from './parallel.ts'

const [kubeconfig, namespace = '', jobs, workers, mode] = process.argv.slice(2)
const kube = new Kube(kubeconfig)
const spec = ScMoEJobSpec.parse({ training: { steps: 100 }, workers: { replicas: Number(workers) } })
const names = Array.from({ length: Number(jobs) }, (_, i) => `job-${i}`)
const ranks = Array.from({ length: Number(workers) }, (_, rank) => rank)

process.send?.(performance.timeOrigin + performance.now())
if (mode === 'replace') await inParallel(names, replace)
else
  await inParallel(
    names.flatMap(name => ranks.map(rank => ({ name, rank }))),
    create,
  )
process.disconnect()

async function create({ name, rank }: { name: string; rank: number }): Promise<void> {
  const uid = '00000000-0000-0000-0000-000000000000'
  const job = { metadata: { name, namespace, uid } }
  const body = pod(
    {
      job,
      name,
      namespace,
      uid,
      spec,
      workerImage: 'worker:1',
      gpuWorkerImage: 'worker:1',
      attempt: 1,
      scheduler: { provider: 'none' },
    },
    rank,
  )
  await kube.call({ method: 'POST', path: pathOf('Pod', namespace), query: { fieldManager: 'loop' }, body })
}

async function replace(name: string): Promise<void> {
  const remove = async (rank: number) =>
    kube.call({ method: 'DELETE', path: pathOf('Pod', namespace, `${name}-worker-${rank}`) })
  await Promise.all(ranks.map(remove))
  await Promise.all(ranks.map(async rank => create({ name, rank })))
}
