// The values that rules compare, each written twice: in CEL, where `self` is the spec, and in
// TypeScript. Both forms know the presets.

import { DEFAULT_TOP_K, expertsPerToken, GENERIC, type Governed, type Model, PRESETS, resolveModel } from './presets.ts'
import { ranksPerWorker, worldSizeOf } from './ranks.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'

type Value = string | number | boolean
export interface Term {
  /** CEL that has a value for every job, whatever fields it leaves out. */
  cel: string
  of(spec: ScMoEJobSpec): Value
}

const literal = (value: Value) => (typeof value === 'string' ? `'${value}'` : String(value))
const lookup = (values: Readonly<Record<string, Value>>, key: string) =>
  `{${Object.entries(values)
    .map(([name, value]) => `'${name}': ${literal(value)}`)
    .join(', ')}}[${key}]`
const byKind = (values: Readonly<Record<Model['kind'], Value>>) => lookup(values, 'self.model.kind')

/** A field's value as written, otherwise the preset's value, otherwise the generic default. */
function governed<F extends keyof Governed>(field: F): { cel: string; of(spec: ScMoEJobSpec): Governed[F] } {
  const values = Object.fromEntries(Object.entries(PRESETS).map(([name, preset]) => [name, preset[field]] as const))
  const ofPreset = lookup(values, 'self.model.preset')
  return {
    cel: `(has(self.model.${field}) ? self.model.${field} : has(self.model.preset) ? ${ofPreset} : ${literal(GENERIC[field])})`,
    of: spec => resolveModel(spec.model)[field],
  }
}

/** An optional field of `self`, or `missing` if the job leaves the field out. */
const optional = (path: string, missing: Value) => `(has(self.${path}) ? self.${path} : ${literal(missing)})`

const RANKS_PER_WORKER = '(self.workers.gpusPerWorker > 1 ? self.workers.gpusPerWorker : 1)'
const RANKS = `(self.workers.replicas * ${RANKS_PER_WORKER})`

const heads = governed('heads')
const moeLayerFrequency = governed('moeLayerFrequency')

const keyValueHeads = {
  cel: `(has(self.model.keyValueHeads) ? self.model.keyValueHeads : ${Object.entries(PRESETS)
    .filter(([, preset]) => preset.keyValueHeads !== undefined)
    .map(([name, preset]) => `has(self.model.preset) && self.model.preset == '${name}' ? ${preset.keyValueHeads} : `)
    .join('')}${heads.cel})`,
  of: (s: ScMoEJobSpec) => resolveModel(s.model).keyValueHeads,
}

const position = {
  cel: `(!(self.model.kind in ['ScMoE', 'DGMoE']) ? 1 : has(self.model.shortcutPosition) ? self.model.shortcutPosition : ${moeLayerFrequency.cel} >= 2 ? 2 : 1)`,
  of: (s: ScMoEJobSpec) => resolveModel(s.model).shortcutPosition,
}

/**
 * Slots of the forward pass: one more than the number of layers that can run beside the all-to-all,
 * or 0 without such a layer. worker/schedule/order.ts counts the same slots from the program
 * (tests/unit/crds/rules.test.ts).
 */
const slots = {
  cel: `(self.model.kind == 'ScMoE' ? ${position.cel} + 2 : self.model.kind == 'DGMoE' ? ${position.cel} + 1 : self.model.kind == 'SharedExpert' ? 2 : 0)`,
  of: (s: ScMoEJobSpec): number => {
    if (s.model.kind === 'ScMoE') return position.of(s) + 2
    if (s.model.kind === 'DGMoE') return position.of(s) + 1
    return s.model.kind === 'SharedExpert' ? 2 : 0
  },
}

const topK = {
  cel: `(has(self.model.topK) ? self.model.topK : ${byKind(DEFAULT_TOP_K)})`,
  of: (s: ScMoEJobSpec) => resolveModel(s.model).topK,
}

const ROUTES: Readonly<Record<Model['kind'], string>> = {
  Dense: 'no token to experts',
  Top1: 'every token to 1 expert',
  Top2: 'every token to 2 experts',
  SharedExpert: 'every token to 1 routed expert',
  ScMoE: 'every token to 1 or 2 routed experts',
  DGMoE: 'each of two representations of a token to 1 expert',
}

export const TERMS = {
  kind: { cel: 'self.model.kind', of: s => s.model.kind },
  blocks: governed('blocks'),
  moeLayerFrequency,
  hiddenSize: governed('hiddenSize'),
  heads,
  keyValueHeads,
  positions: governed('positions'),
  vocabularySize: governed('vocabularySize'),
  experts: governed('experts'),
  topK,
  usualTopK: { cel: byKind(DEFAULT_TOP_K), of: s => DEFAULT_TOP_K[s.model.kind] },
  routes: { cel: byKind(ROUTES), of: s => ROUTES[s.model.kind] },
  expertsPerToken: {
    cel: `(self.model.kind == 'DGMoE' ? 2 : ${topK.cel})`,
    of: s => expertsPerToken(resolveModel(s.model)),
  },
  shortcutPosition: { cel: optional('model.shortcutPosition', 0), of: s => s.model.shortcutPosition ?? 0 },
  coefficientGate: { cel: optional('model.coefficientGate', ''), of: s => s.model.coefficientGate ?? '' },
  position,
  capacityFactor: { cel: 'self.model.capacityFactor', of: s => s.model.capacityFactor },
  learningRate: { cel: 'self.training.optimizer.learningRate', of: s => s.training.optimizer.learningRate },
  gradientClipNorm: { cel: 'self.training.optimizer.gradientClipNorm', of: s => s.training.optimizer.gradientClipNorm },
  weightDecay: { cel: 'self.training.optimizer.weightDecay', of: s => s.training.optimizer.weightDecay },
  warmupSteps: { cel: 'self.training.optimizer.warmupSteps', of: s => s.training.optimizer.warmupSteps },
  steps: { cel: 'self.training.steps', of: s => s.training.steps },
  evaluationSteps: { cel: 'self.training.evaluation.everySteps', of: s => s.training.evaluation.everySteps },
  /** Without checkpoint it is 1, which no warning is about. */
  checkpointSteps: {
    cel: '(has(self.checkpoint) ? self.checkpoint.everySteps : 1)',
    of: s => s.checkpoint?.everySteps ?? 1,
  },
  globalBatchSequences: { cel: 'self.training.globalBatchSequences', of: s => s.training.globalBatchSequences },
  microBatches: { cel: 'self.training.microBatches', of: s => s.training.microBatches },
  precision: { cel: 'self.training.precision', of: s => s.training.precision },
  replicas: { cel: 'self.workers.replicas', of: s => s.workers.replicas },
  minReplicas: { cel: optional('workers.minReplicas', 0), of: s => s.workers.minReplicas ?? 0 },
  gpusPerWorker: { cel: 'self.workers.gpusPerWorker', of: s => s.workers.gpusPerWorker },
  ranksPerWorker: { cel: RANKS_PER_WORKER, of: ranksPerWorker },
  ranks: { cel: RANKS, of: worldSizeOf },
  /** Equal parts into which a step's batch is divided. */
  shares: {
    cel: `(${RANKS} * self.training.microBatches)`,
    of: s => worldSizeOf(s) * s.training.microBatches,
  },
  sources: {
    cel: "(has(self.data.builtin) ? 'both builtin and path' : 'neither builtin nor path')",
    of: s => (s.data.builtin === undefined ? 'neither builtin nor path' : 'both builtin and path'),
  },
  tokens: { cel: 'self.data.tokens', of: s => s.data.tokens },
  expertParallelSize: {
    cel: `(has(self.parallelism.expertParallelSize) ? self.parallelism.expertParallelSize : ${RANKS})`,
    of: s => s.parallelism.expertParallelSize ?? worldSizeOf(s),
  },
  strategy: { cel: 'self.overlap.strategy', of: s => s.overlap.strategy },
  slot: { cel: optional('overlap.slot', 0), of: s => s.overlap.slot ?? 0 },
  slots,
  chunks: { cel: optional('overlap.chunks', 0), of: s => s.overlap.chunks ?? 0 },
  exchange: { cel: 'self.overlap.exchange', of: s => s.overlap.exchange },
  port: { cel: 'self.network.port', of: s => s.network.port },
  httpPort: { cel: 'self.network.httpPort', of: s => s.network.httpPort },
  initialSeconds: { cel: 'self.failurePolicy.backoff.initialSeconds', of: s => s.failurePolicy.backoff.initialSeconds },
  maxSeconds: { cel: 'self.failurePolicy.backoff.maxSeconds', of: s => s.failurePolicy.backoff.maxSeconds },
  progressDeadlineSeconds: { cel: 'self.progressDeadlineSeconds', of: s => s.progressDeadlineSeconds },
  intervalSeconds: { cel: 'self.reporting.intervalSeconds', of: s => s.reporting.intervalSeconds },
  subPath: {
    cel: "(has(self.checkpoint) && has(self.checkpoint.subPath) ? self.checkpoint.subPath : 'x')",
    of: s => s.checkpoint?.subPath ?? 'x',
  },
} as const satisfies Record<string, Term>
