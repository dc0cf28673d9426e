import { describe, expect, it } from 'vitest'
import { ENV, LABEL, OUTPUT_DIRECTORY, PORT } from '../../../crds/contract.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { budget, pod, service } from '../../../operator/objects/workers.ts'

type Container = {
  name: string
  image?: string
  env: { name: string; value?: string; valueFrom?: object }[]
  volumeMounts: { name: string; mountPath: string; subPath?: string }[]
  [key: string]: unknown
}
type PodSpec = { containers: Container[]; volumes: { name: string }[]; securityContext: object; [key: string]: unknown }

const subject = (spec: object = {}) => ({
  name: 'gpt',
  namespace: 'ns',
  uid: 'uid-1',
  attempt: 2,
  workerImage: 'worker:1',
  gpuWorkerImage: 'worker-gpu:1',
  scheduler: { provider: 'none' as const },
  job: { metadata: { name: 'gpt' } },
  spec: ScMoEJobSpec.parse({ training: { steps: 10 }, workers: { replicas: 4 }, ...spec }),
})
const specOf = (spec: object = {}, rank = 3): PodSpec => {
  const made: unknown = pod(subject(spec), rank)['spec']
  return made as PodSpec
}
const worker = (spec: object = {}): Container => {
  const found = specOf(spec).containers.find(({ name }) => name === 'worker')
  if (found === undefined) throw new Error('no worker')
  return found
}
const template = (container: object, spec: object = {}) => ({
  workers: { replicas: 4, template: { spec: { ...spec, containers: [{ name: 'worker', ...container }] } } },
})
const env = (container: Container) =>
  Object.fromEntries(container.env.map(({ name, value, valueFrom }) => [name, value ?? valueFrom]))

describe('a worker pod', () => {
  it('has a stable name in DNS, labels for its attempt and an owner', () => {
    const made = pod(subject(), 3)
    expect(made.metadata).toMatchObject({
      name: 'gpt-worker-3',
      namespace: 'ns',
      labels: {
        [LABEL.jobName]: 'gpt',
        [LABEL.jobUid]: 'uid-1',
        [LABEL.attempt]: '2',
        [LABEL.rank]: '3',
      },
      ownerReferences: [{ kind: 'ScMoEJob', name: 'gpt', uid: 'uid-1', controller: true }],
    })
    expect(specOf()).toMatchObject({
      hostname: 'gpt-worker-3',
      subdomain: 'gpt',
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 60,
    })
  })

  it('is told who it is and what to do, without the pod template', () => {
    const container = worker(template({}))
    expect(env(container)).toMatchObject({
      [ENV.jobName]: 'gpt',
      [ENV.jobUid]: 'uid-1',
      [ENV.attempt]: '2',
      [ENV.rank]: '3',
      [ENV.worldSize]: '4',
      [ENV.rendezvous]: 'gpt-worker-0.gpt.ns.svc:29500',
      [ENV.httpPort]: String(PORT.http),
      [ENV.secret]: { secretKeyRef: { name: 'gpt-uid-1', key: 'secret' } },
    })
    const spec: unknown = JSON.parse(container.env.find(({ name }) => name === ENV.spec)?.value ?? '')
    expect(spec).toEqual(ScMoEJobSpec.parse({ training: { steps: 10 }, workers: { replicas: 4 } }))
  })

  it('passes the restricted Pod Security level', () => {
    expect(specOf().securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    })
    expect(specOf()).toMatchObject({ automountServiceAccountToken: false })
    expect(worker()['securityContext']).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    })
  })

  it('takes from the template whatever that sets, and keeps its other containers', () => {
    const spec = {
      nodeSelector: { gpu: 'h100' },
      terminationGracePeriodSeconds: 5,
      restartPolicy: 'Always',
      securityContext: { runAsUser: 1000 },
      initContainers: [{ name: 'fetch', image: 'fetch:1' }],
    }
    const given = template(
      { image: 'mine:1', resources: { limits: { memory: '1Gi' } }, securityContext: { readOnlyRootFilesystem: false } },
      spec,
    )
    given.workers.template.spec.containers.push({ name: 'sidecar' })
    const made = specOf(given)
    expect(made).toMatchObject({
      nodeSelector: { gpu: 'h100' },
      terminationGracePeriodSeconds: 5,
      restartPolicy: 'Never',
    })
    expect(made.securityContext).toMatchObject({ runAsUser: 1000, runAsNonRoot: true })
    expect(made['initContainers']).toEqual([
      { name: 'fetch', image: 'fetch:1', terminationMessagePolicy: 'FallbackToLogsOnError' },
    ])
    expect(made.containers.map(({ name }) => name)).toEqual(['worker', 'sidecar'])
    expect(worker(given)).toMatchObject({ image: 'mine:1', resources: { limits: { memory: '1Gi' } } })
    expect(worker(given)['securityContext']).toMatchObject({
      readOnlyRootFilesystem: false,
      allowPrivilegeEscalation: false,
    })
  })

  it('lets the template add variables and tune, but not change who it is', () => {
    const given = [
      { name: ENV.rank, value: '0' },
      { name: ENV.computeThreads, value: '7' },
      { name: 'HF_TOKEN', value: 'x' },
    ]
    const variables = env(worker(template({ env: given, resources: { limits: { cpu: '2' } } })))
    expect(variables).toMatchObject({ [ENV.rank]: '3', [ENV.computeThreads]: '7', HF_TOKEN: 'x' })
  })

  it('computes with as many threads as its CPU limit allows', () => {
    const variables = env(worker(template({ resources: { limits: { cpu: '1500m' } } })))
    expect(variables[ENV.computeThreads]).toEqual({
      resourceFieldRef: { containerName: 'worker', resource: 'limits.cpu', divisor: '1' },
    })
    expect(env(worker())).not.toHaveProperty(ENV.computeThreads)
  })

  it('mounts the checkpoint volume under the name of its job, and only where there is one', () => {
    const checkpoint = { volume: { persistentVolumeClaim: { claimName: 'c' } } }
    expect(specOf({ checkpoint }).volumes).toContainEqual({
      name: 'scmoe-output',
      persistentVolumeClaim: { claimName: 'c' },
    })
    expect(worker({ checkpoint }).volumeMounts).toContainEqual({
      name: 'scmoe-output',
      mountPath: OUTPUT_DIRECTORY,
      subPath: 'ns/gpt',
    })
    expect(env(worker({ checkpoint }))).toMatchObject({ [ENV.outputDirectory]: OUTPUT_DIRECTORY })
    expect(worker().volumeMounts).toEqual([{ name: 'scmoe-tmp', mountPath: '/tmp' }])
    expect(env(worker())).not.toHaveProperty(ENV.outputDirectory)
  })
})

describe('a worker pod with GPUs', () => {
  const gpus = (change: object = {}, container: object = {}, spec: object = {}) => ({
    workers: {
      replicas: 4,
      gpusPerWorker: 8,
      template: { spec: { ...spec, containers: [{ name: 'worker', ...container }] } },
      ...change,
    },
    training: { steps: 10, globalBatchSequences: 32 },
  })

  it('asks for them under their name, and takes the image for GPUs', () => {
    expect(worker(gpus())).toMatchObject({ image: 'worker-gpu:1', resources: { limits: { 'nvidia.com/gpu': '8' } } })
    const amd = worker(gpus({ gpuResourceName: 'amd.com/gpu', gpusPerWorker: 1 }))
    expect(amd['resources']).toEqual({ limits: { 'amd.com/gpu': '1' } })
    expect(worker()).not.toHaveProperty('resources')
  })

  it('keeps the other resources of the template, but not its own number of GPUs', () => {
    const resources = {
      limits: { memory: '1Gi', 'nvidia.com/gpu': '1' },
      requests: { cpu: '8', 'nvidia.com/gpu': '1' },
    }
    expect(worker(gpus({}, { resources }))['resources']).toEqual({
      limits: { memory: '1Gi', 'nvidia.com/gpu': '8' },
      requests: { cpu: '8' },
    })
  })

  it('has one rank for each, of all ranks in a row', () => {
    const made = pod(subject(gpus()), 3)
    expect(made.metadata).toMatchObject({ name: 'gpt-worker-3', labels: { [LABEL.rank]: '24' } })
    expect(env(worker(gpus()))).toMatchObject({
      [ENV.rank]: '24',
      [ENV.worldSize]: '32',
      [ENV.localWorldSize]: '8',
      [ENV.backend]: 'cuda',
    })
    expect(env(worker())).toMatchObject({ [ENV.localWorldSize]: '1', [ENV.backend]: 'cpu' })
    const ports: unknown = worker(gpus())['ports']
    expect(ports).toContainEqual({ name: 'http', containerPort: PORT.http, protocol: 'TCP' })
    expect(ports).toContainEqual({ name: 'http-7', containerPort: 8087, protocol: 'TCP' })
  })

  it('has memory to share between several of them, unless the template brings its own', () => {
    expect(specOf(gpus()).volumes).toContainEqual({ name: 'scmoe-shm', emptyDir: { medium: 'Memory' } })
    expect(worker(gpus()).volumeMounts).toContainEqual({ name: 'scmoe-shm', mountPath: '/dev/shm' })
    expect(JSON.stringify(specOf(gpus({ gpusPerWorker: 1 })))).not.toContain('shm')
    const own = { volumeMounts: [{ name: 'mine', mountPath: '/dev/shm' }] }
    expect(worker(gpus({}, own)).volumeMounts.filter(({ mountPath }) => mountPath === '/dev/shm')).toEqual(
      own.volumeMounts,
    )
  })

  it('tolerates the taint of nodes with GPUs', () => {
    const taint = { key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' }
    const other = { key: 'team', operator: 'Equal', value: 'a' }
    expect(specOf(gpus({}, {}, { tolerations: [other] }))['tolerations']).toEqual([other, taint])
    const known = { key: 'nvidia.com/gpu', operator: 'Exists' }
    expect(specOf(gpus({}, {}, { tolerations: [known] }))['tolerations']).toEqual([known])
    expect(specOf()).not.toHaveProperty('tolerations')
  })

  it('passes on what the template says to NCCL', () => {
    const nccl = [
      { name: 'NCCL_SOCKET_IFNAME', value: 'eth1' },
      { name: 'NCCL_DEBUG', value: 'INFO' },
    ]
    expect(env(worker(gpus({}, { env: nccl })))).toMatchObject({ NCCL_SOCKET_IFNAME: 'eth1', NCCL_DEBUG: 'INFO' })
  })

  it('has no more rights than any other', () => {
    expect(worker(gpus())['securityContext']).toEqual(worker()['securityContext'])
  })
})

describe('Service and budget', () => {
  it('resolve names before workers are ready', () => {
    expect(service(subject())['spec']).toMatchObject({
      clusterIP: 'None',
      publishNotReadyAddresses: true,
      selector: { [LABEL.jobUid]: 'uid-1' },
    })
  })

  it('let one worker at a time be evicted, so that a drain is never blocked', () => {
    expect(budget(subject(), 3)['spec']).toMatchObject({ minAvailable: 3, unhealthyPodEvictionPolicy: 'AlwaysAllow' })
  })
})
