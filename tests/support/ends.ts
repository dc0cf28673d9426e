// Jobs of one worker whose pods end, or do not start, for another reason than their worker. They
// all run at once on one node. A container beside the worker runs a line of JavaScript with the
// worker's image.

import type { ScMoEJobStatus } from '../../crds/status.ts'

export type Ending = {
  /** Part of spec.workers.template.spec, besides the worker's container. */
  pod?: (image: string) => object
  /** Part of the worker's container. */
  worker?: object
  /** Fields of the job's spec. */
  spec?: object
  /** A status of the job that is waited for. */
  until: (status: ScMoEJobStatus) => boolean
  /** Fields that this status has. */
  is: object
  /** Text of the failure's message, or of the status's. */
  says?: string | RegExp
  /** Text that `scmoe why` or `scmoe logs` prints then. */
  prints?: { why?: string; logs?: string }
}

const FOREVER = 'setInterval(() => {}, 1000)'
const listening = (port: number) => `require('node:http').createServer((_, r) => r.end()).listen(${port})`
const HUNGRY = 'const a = []; setInterval(() => a.push(Buffer.alloc(2 ** 23, 1)), 20)'
const securityContext = {
  allowPrivilegeEscalation: false,
  runAsNonRoot: true,
  runAsUser: 65_532,
  capabilities: { drop: ['ALL'] },
}
const beside = (image: string, script: string, more = {}) => ({
  name: 'beside',
  image,
  command: ['node', '-e', script],
  securityContext,
  ...more,
})
const stepsAfter = (seconds: number) => {
  let since: { step: number; at: number } | undefined
  return ({ progress }: ScMoEJobStatus): boolean => {
    if (progress === undefined || progress.step === 0) return false
    since ??= { step: progress.step, at: performance.now() }
    return progress.step > since.step && performance.now() - since.at > seconds * 1000
  }
}
const hasFailed = ({ lastFailure }: ScMoEJobStatus) => lastFailure !== undefined

export const ENDINGS: Record<string, Ending> = {
  'a container beside the worker that ends while it trains': {
    pod: image => ({ containers: [beside(image, 'setTimeout(() => {}, 4000)')] }),
    spec: { progressDeadlineSeconds: 10 },
    until: stepsAfter(16),
    is: { state: 'Running', restarts: 0, workers: { ready: 1 } },
  },
  'a container beside the worker that fails before it is ready': {
    pod: image => ({ containers: [beside(image, 'process.exit(65)')] }),
    spec: { startupDeadlineSeconds: 60 },
    until: stepsAfter(1),
    is: { state: 'Running', restarts: 0 },
  },
  'a container beside the worker that uses too much memory': {
    pod: image => ({ containers: [beside(image, HUNGRY, { resources: { limits: { memory: '96Mi' } } })] }),
    until: stepsAfter(8),
    is: { state: 'Running', restarts: 0 },
  },
  'a container beside the worker whose image is missing': {
    pod: () => ({ containers: [beside('localhost:1/absent:1', FOREVER)] }),
    until: stepsAfter(1),
    is: { state: 'Running', restarts: 0 },
  },
  'an init container that fails with a code of the worker': {
    pod: image => ({ initContainers: [beside(image, "console.log('no such bucket'); process.exit(65)")] }),
    until: hasFailed,
    is: {
      state: 'Failed',
      reason: 'MaxRestartsExceeded',
      lastFailure: { reason: 'InitContainerFailed', exitCode: 65, container: 'beside' },
    },
    says: /^init container beside failed; its log ends: no such bucket$/,
    prints: { logs: 'no such bucket', why: 'scmoe logs' },
  },
  'an init container that never ends': {
    pod: image => ({ initContainers: [beside(image, FOREVER)] }),
    spec: { startupDeadlineSeconds: 40 },
    until: hasFailed,
    is: { lastFailure: { reason: 'StartupDeadlineExceeded', container: 'beside' } },
    says: 'init container beside has not ended',
  },
  'a sidecar that takes port 8080': {
    pod: image => ({ initContainers: [beside(image, listening(8080), { restartPolicy: 'Always' })] }),
    until: hasFailed,
    is: { lastFailure: { reason: 'portInUse', exitCode: 71 } },
    says: 'set network.httpPort',
    prints: { why: 'network.httpPort' },
  },
  'a sidecar that takes port 8080 from a worker with another port': {
    pod: image => ({ initContainers: [beside(image, listening(8080), { restartPolicy: 'Always' })] }),
    spec: { network: { httpPort: 8090 } },
    until: stepsAfter(1),
    is: { state: 'Running', restarts: 0 },
  },
  'a sidecar whose startup probe fails': {
    pod: image => {
      const startupProbe = { tcpSocket: { port: 1 }, periodSeconds: 2, failureThreshold: 100 }
      return { initContainers: [beside(image, FOREVER, { restartPolicy: 'Always', startupProbe })] }
    },
    until: ({ reason }) => reason === 'InitContainers',
    is: { state: 'Starting' },
    says: 'the startupProbe of sidecar beside has not succeeded',
  },
  'a liveness probe of the worker that fails': {
    worker: { livenessProbe: { tcpSocket: { port: 1 }, periodSeconds: 1, failureThreshold: 2 } },
    until: hasFailed,
    is: { lastFailure: { reason: 'ProbeFailed' } },
    says: 'livenessProbe',
  },
  "the template's activeDeadlineSeconds": {
    pod: () => ({ activeDeadlineSeconds: 10 }),
    until: hasFailed,
    is: { state: 'Failed', lastFailure: { reason: 'DeadlineExceeded' } },
    says: 'activeDeadlineSeconds in spec.workers.template',
  },
  'a volume that cannot be mounted': {
    pod: () => ({ volumes: [{ name: 'v', configMap: { name: 'absent' } }] }),
    worker: { volumeMounts: [{ name: 'v', mountPath: '/v' }] },
    until: ({ reason }) => reason === 'VolumeMount',
    is: { state: 'Starting' },
    says: 'configmap "absent" not found',
    prints: { why: 'configmap "absent" not found' },
  },
  'a node that refuses the pod': {
    // Without the scheduler in between, the kubelet finds that there is not enough.
    pod: () => ({ nodeName: 'NODE' }),
    worker: { resources: { requests: { cpu: '1000' } } },
    until: ({ restarts = 0 }) => restarts > 1,
    is: { restartsCountTowardsMax: 0, lastFailure: { reason: 'OutOfcpu' } },
  },
}

/** The spec of the job for a case, for the worker's image and the only node. */
export function specOf({ pod, worker = {}, spec = {} }: Ending, image: string, node: string): Record<string, unknown> {
  const parts: { containers?: object[] } = JSON.parse(JSON.stringify(pod?.(image) ?? {}).replace('NODE', node))
  const containers = [{ name: 'worker', ...worker }, ...(parts.containers ?? [])]
  return {
    model: { blocks: 2, hiddenSize: 16, heads: 2, feedForwardSize: 16, experts: 4 },
    training: { steps: 1_000_000, globalBatchSequences: 1, sequenceLength: 32 },
    failurePolicy: { maxRestarts: 0, backoff: { initialSeconds: 1, maxSeconds: 1 } },
    workers: { replicas: 1, template: { spec: { terminationGracePeriodSeconds: 1, ...parts, containers } } },
    ...spec,
  }
}
