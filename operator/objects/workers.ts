// The objects that a job owns, as data: headless Service, PodDisruptionBudget and pods.

import { CONTAINER, ENV, LABEL, OUTPUT_DIRECTORY } from '../../crds/contract.ts'
import { backendOf, ranksPerWorker, worldSizeOf } from '../../crds/ranks.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { gpuContainer, gpuMounts, gpuPod, gpuVolumes } from './gpu.ts'
import { type Json, list, type Named, record, strings } from './json.ts'
import { metadata, type Owner, type Wanted } from './owned.ts'
import { type Gang, type PodParts, partsOf } from './providers.ts'
import { SECRET_KEY, secretName } from './secret.ts'
import { podName } from './wire.ts'

const USER = 65_532
const GRACE_SECONDS = 60
const TERMINATION_LOG = '/dev/termination-log'
const REQUIRED = 'requiredDuringSchedulingIgnoredDuringExecution'
const VOLUME = { output: 'scmoe-output', temporary: 'scmoe-tmp' } as const
/** Variables of ENV that the template may set. The operator sets all others itself. */
const TUNING: ReadonlySet<string> = new Set([ENV.computeThreads, ENV.dataDirectory])

type Subject = Owner & { spec: ScMoEJobSpec }
type Worker = Gang & { workerImage: string; gpuWorkerImage: string }

/** Names resolve before the workers are ready, so that ranks find each other while they start. */
export function service(subject: Subject): Wanted<'Service'> {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: metadata(subject, subject.name),
    spec: {
      clusterIP: 'None',
      publishNotReadyAddresses: true,
      selector: { [LABEL.jobUid]: subject.uid },
      ports: [
        { name: 'rendezvous', port: subject.spec.network.port, targetPort: subject.spec.network.port, protocol: 'TCP' },
      ],
    },
  }
}

/**
 * Keeps so many workers that are ready from being evicted. With one less than are ready, draining
 * a node costs one restart of the gang. A budget that allows no eviction would block every drain as
 * long as the job runs, and so would one that counts a worker that is never ready. Workers that are
 * not ready never block a drain (AlwaysAllow).
 *
 * The budget has an absolute minAvailable, because for maxUnavailable the disruption controller
 * would have to read the scale of the pods' owner.
 */
export function budget(subject: Subject, minAvailable: number): Wanted<'PodDisruptionBudget'> {
  return {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: metadata(subject, subject.name),
    spec: {
      minAvailable,
      unhealthyPodEvictionPolicy: 'AlwaysAllow',
      selector: { matchLabels: { [LABEL.jobUid]: subject.uid } },
    },
  }
}

/**
 * The template wins wherever it sets something, except for the pod's identity, its restartPolicy
 * and the variables of ENV.
 */
export function pod(view: Worker, worker: number): Wanted<'Pod'> {
  const template = record(view.spec.workers.template)
  const meta = record(template['metadata'])
  const spec = record(template['spec'])
  const own = metadata(view, podName(view.name, worker))
  const parts = partsOf(view)
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...own,
      labels: {
        ...strings(meta['labels']),
        ...parts.labels,
        ...own.labels,
        [LABEL.attempt]: String(view.attempt),
        [LABEL.rank]: String(worker * ranksPerWorker(view.spec)),
        [LABEL.worldSize]: String(worldSizeOf(view.spec)),
        [LABEL.steps]: String(view.spec.training.steps),
      },
      annotations: { ...strings(meta['annotations']), ...parts.annotations },
    },
    spec: {
      terminationGracePeriodSeconds: GRACE_SECONDS,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      ...parts.spec,
      ...spec,
      ...affinity(parts, spec),
      ...gpuPod(view.spec, spec),
      hostname: podName(view.name, worker),
      subdomain: view.name,
      restartPolicy: 'Never',
      securityContext: {
        runAsNonRoot: true,
        runAsUser: USER,
        runAsGroup: USER,
        fsGroup: USER,
        fsGroupChangePolicy: 'OnRootMismatch',
        seccompProfile: { type: 'RuntimeDefault' },
        ...record(spec['securityContext']),
      },
      volumes: merged(volumes(view), spec['volumes'], 'name'),
      ...(spec['initContainers'] === undefined ? {} : { initContainers: list(spec['initContainers']).map(telling) }),
      containers: containers(view, worker, list(spec['containers'])),
    },
  }
}

/** The end of the log of an init container that fails becomes its message. */
const telling = (container: Named): Named => ({ terminationMessagePolicy: 'FallbackToLogsOnError', ...container })

/** Joins the template's pod affinity with the provider's. Both have to hold. */
function affinity({ spec: own = {} }: PodParts, template: Json): Json {
  const [ours, theirs] = [record(own['affinity']), record(template['affinity'])]
  const [near, given] = [record(ours['podAffinity']), record(theirs['podAffinity'])]
  const terms = [...list(given[REQUIRED]), ...list(near[REQUIRED])]
  return terms.length === 0 ? {} : { affinity: { ...theirs, podAffinity: { ...given, [REQUIRED]: terms } } }
}

/**
 * The ports on which the ranks of a worker answer probes, the operator and Prometheus: the first
 * rank on the first, the further ranks on those that follow.
 */
export const httpPorts = (spec: ScMoEJobSpec): number[] =>
  Array.from({ length: ranksPerWorker(spec) }, (_, local) => spec.network.httpPort + local)

/** The worker's container as the job's template has it. */
export function workerOf({ template }: Pick<ScMoEJobSpec['workers'], 'template'>): Named {
  const given = list(record(record(template)['spec'])['containers'])
  return given.find(({ name }) => name === CONTAINER) ?? { name: CONTAINER }
}

function containers(view: Worker, index: number, given: Named[]): Named[] {
  // The gang starts again as a whole, so no container of a worker starts again by itself.
  const { restartPolicy: _, restartPolicyRules: __, ...template } = workerOf(view.spec.workers)
  const worker: Named = {
    image: backendOf(view.spec) === 'cuda' ? view.gpuWorkerImage : view.workerImage,
    ports: [
      ...httpPorts(view.spec).map((containerPort, local) => ({
        name: local === 0 ? 'http' : `http-${local}`,
        containerPort,
        protocol: 'TCP',
      })),
      { name: 'rendezvous', containerPort: view.spec.network.port, protocol: 'TCP' },
    ],
    readinessProbe: {
      httpGet: { path: '/readyz', port: view.spec.network.httpPort },
      periodSeconds: 2,
      timeoutSeconds: 2,
      failureThreshold: 3,
    },
    terminationMessagePolicy: 'FallbackToLogsOnError',
    ...template,
    ...gpuContainer(view.spec, template),
    terminationMessagePath: TERMINATION_LOG,
    env: environment(view, index, template),
    volumeMounts: merged(mounts(view), template['volumeMounts'], 'mountPath'),
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
      ...record(template['securityContext']),
    },
  }
  return [worker, ...given.filter(({ name }) => name !== CONTAINER)]
}

function environment(view: Worker, index: number, template: Named): Named[] {
  const { template: _, ...workers } = view.spec.workers
  const fixed: Record<string, string> = {
    [ENV.jobName]: view.name,
    [ENV.jobUid]: view.uid,
    [ENV.attempt]: String(view.attempt),
    [ENV.rank]: String(index * ranksPerWorker(view.spec)),
    [ENV.worldSize]: String(worldSizeOf(view.spec)),
    [ENV.localWorldSize]: String(ranksPerWorker(view.spec)),
    [ENV.backend]: backendOf(view.spec),
    [ENV.rendezvous]: `${podName(view.name, 0)}.${view.name}.${view.namespace}.svc:${view.spec.network.port}`,
    [ENV.spec]: JSON.stringify({ ...view.spec, workers }),
    [ENV.httpPort]: String(view.spec.network.httpPort),
    [ENV.terminationLog]: TERMINATION_LOG,
    ...(view.spec.checkpoint === undefined ? {} : { [ENV.outputDirectory]: OUTPUT_DIRECTORY }),
  }
  const secret: Named = {
    name: ENV.secret,
    valueFrom: { secretKeyRef: { name: secretName(view), key: SECRET_KEY } },
  }
  const isOurs = (name: string) => name === ENV.secret || (Object.hasOwn(fixed, name) && !TUNING.has(name))
  const given = list(template['env']).filter(({ name }) => !isOurs(name))
  const limited = record(record(template['resources'])['limits'])['cpu'] !== undefined
  const resource = { containerName: CONTAINER, resource: 'limits.cpu', divisor: '1' }
  const threads: Named = { name: ENV.computeThreads, valueFrom: { resourceFieldRef: resource } }
  const wanted = limited && !given.some(({ name }) => name === ENV.computeThreads)
  const values = Object.entries(fixed).map(([name, value]) => ({ name, value }))
  return [...values, secret, ...(wanted ? [threads] : []), ...given]
}

function volumes({ spec }: Subject): Named[] {
  const own: Named[] = [{ name: VOLUME.temporary, emptyDir: {} }, ...gpuVolumes(spec)]
  return spec.checkpoint === undefined ? own : [...own, { ...spec.checkpoint.volume, name: VOLUME.output }]
}

function mounts({ spec, namespace, name }: Subject): Json[] {
  const own = [{ name: VOLUME.temporary, mountPath: '/tmp' }, ...gpuMounts(spec)]
  if (spec.checkpoint === undefined) return own
  const subPath = spec.checkpoint.subPath ?? `${namespace}/${name}`
  return [...own, { name: VOLUME.output, mountPath: OUTPUT_DIRECTORY, ...(subPath === '' ? {} : { subPath }) }]
}

/** Both lists. Where both have an element with the same `key`, the template's is taken. */
function merged(ours: Json[], given: unknown, key: string): Json[] {
  const theirs = list(given)
  return [...ours.filter(each => !theirs.some(other => other[key] === each[key])), ...theirs]
}
