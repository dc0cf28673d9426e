// Warnings about valid jobs that do what nobody can have meant: settings with which nothing is
// learnt, or with which pods run without what the user wrote for them. The API server takes such a
// job. Each warning is written once; a policy of the chart and every program say the same words.
// Pure.

import { ENV } from './contract.ts'
import { record } from './json.ts'
import { fill, messageExpression, term } from './rule.ts'
import { brokenRules } from './rules.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'
import { TERMS } from './terms.ts'

export interface Warning {
  /** Path from the object's root. */
  path: string
  message: string
}

/** A warning that the API server can give, too. */
export interface SharedWarning {
  /** Path from the object's root. */
  path: string
  /** CEL with `self` for the spec; true where there is nothing to warn of. */
  cel: string
  /** CEL that yields the message. */
  messageExpression: string
  check(spec: ScMoEJobSpec): string | undefined
}

interface Row {
  field: string
  /** With `{terms}`. */
  cel: string
  message: string
  /** The same condition in TypeScript. */
  holds: (spec: ScMoEJobSpec) => boolean
}

function shared({ field, cel, message, holds }: Row): SharedWarning {
  const celOf = (name: string) => term(name).cel
  return {
    path: `spec.${field}`,
    cel: fill(cel, celOf),
    messageExpression: messageExpression(message, celOf),
    check: spec => (holds(spec) ? undefined : fill(message, name => String(term(name).of(spec)))),
  }
}

/**
 * AdamW moves a weight by about the learning rate in a step. Float32 weights of 0.02 do not change
 * by less than 1e-9.
 */
const SMALLEST_RATE = '1e-9'
/** A gradient far below AdamW's epsilon, 1e-8, moves no weight. */
const SMALLEST_NORM = '1e-7'
/** Ranks of a group from which on the room for rows that may arrive is worth a word. */
const MANY_RANKS = 8

/** The variables that the operator sets itself, whatever the template says. */
const OWN_VARIABLES: readonly string[] = [
  ENV.jobName,
  ENV.jobUid,
  ENV.attempt,
  ENV.rank,
  ENV.worldSize,
  ENV.localWorldSize,
  ENV.backend,
  ENV.rendezvous,
  ENV.spec,
  ENV.terminationLog,
]

interface Container {
  name?: unknown
  env?: unknown
  resources?: { limits?: unknown; requests?: unknown }
}

const podOf = ({ workers }: ScMoEJobSpec) => record(record(workers.template)['spec'])
const listOf = (value: unknown): Container[] => (Array.isArray(value) ? value.map(record) : [])
const containersOf = (spec: ScMoEJobSpec) => listOf(podOf(spec)['containers'])
const workerOf = (spec: ScMoEJobSpec): Container => containersOf(spec).find(({ name }) => name === 'worker') ?? {}

const CONTAINERS = 'self.workers.template.spec.containers'
const HAS_CONTAINERS = `has(self.workers.template) && has(self.workers.template.spec) && has(${CONTAINERS})`
const decimal = (name: string) => `double({${name}})`

export const WARNINGS: readonly SharedWarning[] = [
  {
    field: 'workers.template.spec.containers',
    cel: `!(${HAS_CONTAINERS}) || ${CONTAINERS}.size() == 0 || ${CONTAINERS}.exists(c, c.name == 'worker')`,
    message:
      'workers.template has containers, but none of them is named worker: they run beside the worker, which has the default image and no resources; name the one that is to train worker',
    holds: (s: ScMoEJobSpec) => containersOf(s).length === 0 || containersOf(s).some(({ name }) => name === 'worker'),
  },
  {
    field: 'workers.gpusPerWorker',
    cel: `{gpusPerWorker} > 0 || !(${HAS_CONTAINERS}) || !${CONTAINERS}.exists(c, c.name == 'worker' && has(c.resources) && has(c.resources.limits) && self.workers.gpuResourceName in c.resources.limits)`,
    message:
      'workers.template asks for GPUs, but workers.gpusPerWorker is 0, so the worker computes on its CPUs: set gpusPerWorker',
    holds: (s: ScMoEJobSpec) =>
      s.workers.gpusPerWorker > 0 || !(s.workers.gpuResourceName in record(workerOf(s).resources?.limits)),
  },
  {
    field: 'workers.template.spec.containers',
    cel: `!(${HAS_CONTAINERS}) || !${CONTAINERS}.exists(c, c.name == 'worker' && has(c.env) && c.env.exists(e, e.name in [${OWN_VARIABLES.map(name => `'${name}'`).join(', ')}]))`,
    message: `workers.template sets a variable of the worker that the operator sets itself, and its value is not used: remove it (these are ${OWN_VARIABLES.join(', ')})`,
    holds: (s: ScMoEJobSpec) => !listOf(workerOf(s).env).some(({ name }) => OWN_VARIABLES.includes(String(name))),
  },
  {
    field: 'workers.template.spec.restartPolicy',
    cel: "!has(self.workers.template) || !has(self.workers.template.spec) || !has(self.workers.template.spec.restartPolicy) || self.workers.template.spec.restartPolicy == 'Never'",
    message:
      'workers.template sets restartPolicy, which is not used: a gang restarts as a whole, as failurePolicy says; remove it',
    holds: (s: ScMoEJobSpec) => (podOf(s)['restartPolicy'] ?? 'Never') === 'Never',
  },
  {
    field: 'training.optimizer.learningRate',
    cel: `${decimal('learningRate')} >= ${SMALLEST_RATE}`,
    message:
      'training.optimizer.learningRate is {learningRate}, which is too small to change a float32 weight, so nothing is learnt: use a number such as "6e-4"',
    holds: (s: ScMoEJobSpec) => Number(s.training.optimizer.learningRate) >= Number(SMALLEST_RATE),
  },
  {
    field: 'training.optimizer.learningRate',
    cel: `${decimal('learningRate')} < 0.5`,
    message:
      'training.optimizer.learningRate is {learningRate}, and AdamW moves every weight by about that much in each step, so training diverges: use a number such as "6e-4"',
    holds: (s: ScMoEJobSpec) => Number(s.training.optimizer.learningRate) < 0.5,
  },
  {
    field: 'training.optimizer.gradientClipNorm',
    cel: `${decimal('gradientClipNorm')} >= ${SMALLEST_NORM}`,
    message:
      'gradientClipNorm is {gradientClipNorm}, which scales gradients below the epsilon of AdamW, 1e-8, so nothing is learnt: use a number such as "1"',
    holds: (s: ScMoEJobSpec) => Number(s.training.optimizer.gradientClipNorm) >= Number(SMALLEST_NORM),
  },
  {
    field: 'training.optimizer.weightDecay',
    cel: `${decimal('learningRate')} * ${decimal('weightDecay')} < 0.5`,
    message:
      'training.optimizer.weightDecay is {weightDecay}, which times learningRate {learningRate} takes most of every matrix away in each step: use a number such as "0.1"',
    holds: ({ training: { optimizer } }: ScMoEJobSpec) =>
      Number(optimizer.learningRate) * Number(optimizer.weightDecay) < 0.5,
  },
  {
    field: 'training.optimizer.warmupSteps',
    // The default is left alone: a job of so few steps is a trial.
    cel: '{warmupSteps} < {steps} || {warmupSteps} == 20',
    message:
      'training.optimizer.warmupSteps is {warmupSteps}, but training.steps is {steps}, so the job ends before the learning rate has reached its peak: use fewer warmupSteps or more steps',
    holds: (s: ScMoEJobSpec) =>
      s.training.optimizer.warmupSteps < s.training.steps || s.training.optimizer.warmupSteps === 20,
  },
  {
    field: 'training.evaluation.everySteps',
    // The default is harmless in a short job, which is evaluated at its end.
    cel: '{evaluationSteps} <= {steps} || {evaluationSteps} == 50',
    message:
      'training.evaluation.everySteps is {evaluationSteps}, more than training.steps {steps}: there is no evaluation but before the first step and after the last; use a smaller number',
    holds: (s: ScMoEJobSpec) =>
      s.training.evaluation.everySteps <= s.training.steps || s.training.evaluation.everySteps === 50,
  },
  {
    field: 'model.vocabularySize',
    cel: "{tokens} != 'uint16' || {vocabularySize} <= 65536",
    message:
      'model.vocabularySize is {vocabularySize}, but data.tokens is uint16, which has no number above 65535: tokens beyond it never occur, and a tokenizer that has them cannot have written the file; use uint32',
    holds: (s: ScMoEJobSpec) => s.data.tokens !== 'uint16' || TERMS.vocabularySize.of(s) <= 65_536,
  },
  {
    field: 'model.vocabularySize',
    cel: "{tokens} != 'bytes' || {vocabularySize} >= 256",
    message:
      'model.vocabularySize is {vocabularySize}, but data.tokens is bytes: the first byte that is not below it ends the job; use 256',
    holds: (s: ScMoEJobSpec) => s.data.tokens !== 'bytes' || TERMS.vocabularySize.of(s) >= 256,
  },
  {
    field: 'model.capacityFactor',
    cel: "{kind} == 'Dense' || {capacityFactor} == 'none' || double({capacityFactor} == 'none' ? '1' : {capacityFactor}) > 0.5",
    message:
      'model.capacityFactor is {capacityFactor}, so experts take at most that share of the tokens sent to them, and half or more are dropped: use 1 or more, such as "2"',
    holds: (s: ScMoEJobSpec) =>
      s.model.kind === 'Dense' || s.model.capacityFactor === 'none' || Number(s.model.capacityFactor) > 0.5,
  },
  {
    field: 'model.capacityFactor',
    cel: `{kind} == 'Dense' || {capacityFactor} != 'none' || {expertParallelSize} < ${MANY_RANKS}`,
    message:
      'model.capacityFactor is none, so each rank keeps room for all tokens of its group of {expertParallelSize} ranks, and memory for a token grows with that number: use a number such as "2", or a smaller parallelism.expertParallelSize; scmoe plan shows the memory',
    holds: (s: ScMoEJobSpec) =>
      s.model.kind === 'Dense' || s.model.capacityFactor !== 'none' || TERMS.expertParallelSize.of(s) < MANY_RANKS,
  },
  {
    field: 'checkpoint.everySteps',
    // The default is harmless in a short job, which is begun again soon.
    cel: '{checkpointSteps} <= {steps} || {checkpointSteps} == 100',
    message:
      'checkpoint.everySteps is {checkpointSteps}, more than training.steps {steps}: a gang that fails begins again; use a smaller number',
    holds: (s: ScMoEJobSpec) => TERMS.checkpointSteps.of(s) <= s.training.steps || TERMS.checkpointSteps.of(s) === 100,
  },
  {
    field: 'checkpoint.volume',
    cel: '!has(self.checkpoint) || !has(self.checkpoint.volume.emptyDir) && !has(self.checkpoint.volume.ephemeral)',
    message:
      'checkpoint.volume goes with its pod, and every worker has one of its own: a gang that restarts begins again, and several workers cannot write one checkpoint; use a persistentVolumeClaim or nfs',
    holds: ({ checkpoint }: ScMoEJobSpec) =>
      !['emptyDir', 'ephemeral'].some(kind => kind in (checkpoint?.volume ?? {})),
  },
].map(shared)

/** Warnings that are too long for CEL. */
function ownWarnings(spec: ScMoEJobSpec): Warning[] {
  const { replicas, minReplicas = replicas } = spec.workers
  const fits = (size: number) =>
    brokenRules({ ...spec, workers: { ...spec.workers, replicas: size } }, 'job').length === 0
  const smaller = Array.from({ length: Math.max(0, replicas - minReplicas) }, (_, i) => minReplicas + i)
  if (smaller.length === 0 || smaller.some(fits)) return []
  const message = `workers.minReplicas is ${minReplicas}, but no number of workers from there to ${replicas - 1} divides experts and batch, so the gang never gets smaller: use one that does, or remove minReplicas`
  return [{ path: 'spec.workers.minReplicas', message }]
}

/** The warnings about a valid spec with its defaults, in the order of the table. */
export function warningsOf(spec: ScMoEJobSpec): Warning[] {
  const given = WARNINGS.flatMap(warning => {
    const message = warning.check(spec)
    return message === undefined ? [] : [{ path: warning.path, message }]
  })
  return [...given, ...ownWarnings(spec)]
}

/** One line for each warning. */
export const warningLines = (spec: ScMoEJobSpec): string[] =>
  warningsOf(spec).map(({ path, message }) => `${path}: ${message}`)
