// The rules between fields of a job, each written once. The API server gets them as CEL; `scmoe`
// and the worker ask `brokenRules`. Rules that need more than the job are in environment.ts.

import { hasSharedExpert, hasShortcut, resolveModel } from './presets.ts'
import { MAX_RANKS } from './ranks.ts'
import { fill, given, isMultiple, isNotZero, messageExpression, multiple, notZero, type Rule, rule } from './rule.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'
import { TERMS } from './terms.ts'

/** A pod's name `<job>-worker-<i>`, with i < 1024, is its host name: at most 63 characters. */
const MAX_NAME_LENGTH = 63 - '-worker-1023'.length

const NAME = /^[a-z]([-a-z0-9]*[a-z0-9])?$/
const NAME_MESSAGE = `metadata.name is {name}, but pods are called <name>-worker-<i>: choose a DNS label that starts with a letter (a-z, 0-9, -) and has at most ${MAX_NAME_LENGTH} characters`

const nameRule: Rule = {
  at: '',
  field: 'metadata.name',
  rule: `self.metadata.name.size() <= ${MAX_NAME_LENGTH} && self.metadata.name.matches('${NAME.source}')`,
  message: NAME_MESSAGE,
  messageExpression: messageExpression(NAME_MESSAGE, name => `self.metadata.${name}`),
  check: (_, name) => (name.length <= MAX_NAME_LENGTH && NAME.test(name) ? undefined : fill(NAME_MESSAGE, () => name)),
}

export const RULES: readonly Rule[] = [
  nameRule,
  rule('model.blocks', {
    cel: given(['model.blocks', 'model.moeLayerFrequency'], multiple('blocks', 'moeLayerFrequency')),
    message:
      'model.blocks is {blocks}, which is not a multiple of model.moeLayerFrequency {moeLayerFrequency}, the number of blocks for each MoE layer: change one of them',
    holds: s => isMultiple(TERMS.blocks.of(s), TERMS.moeLayerFrequency.of(s)),
  }),
  rule('model.heads', {
    cel: given(['model.hiddenSize', 'model.heads'], multiple('hiddenSize', 'heads')),
    message: 'model.heads is {heads}, which does not divide model.hiddenSize {hiddenSize}: change one of them',
    holds: s => isMultiple(TERMS.hiddenSize.of(s), TERMS.heads.of(s)),
  }),
  rule('model.keyValueHeads', {
    cel: given(['model.heads', 'model.keyValueHeads'], multiple('heads', 'keyValueHeads')),
    message: 'model.keyValueHeads is {keyValueHeads}, which does not divide model.heads {heads}: change one of them',
    holds: s => isMultiple(TERMS.heads.of(s), TERMS.keyValueHeads.of(s)),
  }),
  rule('model.positions', {
    cel: given(
      ['model.positions', 'model.heads', 'model.hiddenSize'],
      "{positions} != 'RoPE' || {heads} < 1 || {hiddenSize} % {heads} != 0 || {hiddenSize} / {heads} % 2 == 0",
    ),
    message:
      'model.positions is RoPE, which rotates pairs of values, but model.hiddenSize {hiddenSize} / model.heads {heads} is odd: change one of them, or use positions Learned',
    holds: s => {
      const { positions, hiddenSize, heads } = resolveModel(s.model)
      return positions !== 'RoPE' || heads < 1 || hiddenSize % heads !== 0 || (hiddenSize / heads) % 2 === 0
    },
  }),
  rule('model.shortcutPosition', {
    cel: "{shortcutPosition} == 0 || {kind} in ['ScMoE', 'DGMoE']",
    message:
      'model.shortcutPosition is {shortcutPosition}, but kind {kind} has no shortcut: remove shortcutPosition or use kind ScMoE or DGMoE',
    holds: s => s.model.shortcutPosition === undefined || hasShortcut(s.model.kind),
  }),
  rule('model.shortcutPosition', {
    cel: given(['model.shortcutPosition'], '{shortcutPosition} <= 1 || {moeLayerFrequency} >= 2'),
    message:
      'model.shortcutPosition is {shortcutPosition}, which starts before the MLP of the preceding block, but with model.moeLayerFrequency {moeLayerFrequency} that block has an MoE layer instead: use shortcutPosition 1 or a higher moeLayerFrequency',
    holds: s => TERMS.shortcutPosition.of(s) <= 1 || TERMS.moeLayerFrequency.of(s) >= 2,
  }),
  rule('model.coefficientGate', {
    cel: "{coefficientGate} == '' || {kind} in ['ScMoE', 'SharedExpert']",
    message:
      'model.coefficientGate is {coefficientGate}, but kind {kind} has no shared expert to weigh: remove coefficientGate or use kind ScMoE or SharedExpert',
    holds: s => s.model.coefficientGate === undefined || hasSharedExpert(s.model.kind),
  }),
  rule('model.topK', {
    cel: given(['model.topK'], "{kind} == 'ScMoE' || {topK} == {usualTopK}"),
    message: 'model.topK is {topK}, but kind {kind} sends {routes}: remove topK or choose another kind',
    holds: s => s.model.kind === 'ScMoE' || TERMS.topK.of(s) === TERMS.usualTopK.of(s),
  }),
  rule('model.experts', {
    cel: given(['model.topK', 'model.experts'], '{expertsPerToken} <= {experts}'),
    message:
      'model.experts is {experts}, but model.kind {kind} sends every token to {expertsPerToken} different experts: use more experts, or a kind or topK that needs fewer',
    holds: s => TERMS.expertsPerToken.of(s) <= TERMS.experts.of(s),
  }),
  rule('model.capacityFactor', {
    cel: notZero('capacityFactor'),
    message:
      'model.capacityFactor is {capacityFactor}, so every token would be dropped: use a number above 0, such as "2"',
    holds: s => isNotZero(s.model.capacityFactor),
  }),
  rule('training.optimizer.learningRate', {
    cel: notZero('learningRate'),
    message:
      'training.optimizer.learningRate is {learningRate}, so nothing would be learnt: use a number above 0, such as "6e-4"',
    holds: s => isNotZero(s.training.optimizer.learningRate),
  }),
  rule('training.optimizer.gradientClipNorm', {
    cel: notZero('gradientClipNorm'),
    message:
      'training.optimizer.gradientClipNorm is {gradientClipNorm}, so every gradient would be scaled to 0: use a number above 0, such as "1"',
    holds: s => isNotZero(s.training.optimizer.gradientClipNorm),
  }),
  rule('training.globalBatchSequences', {
    cel: multiple('globalBatchSequences', 'shares'),
    message:
      'training.globalBatchSequences is {globalBatchSequences}, which is not a multiple of {ranks} ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches {microBatches}: every rank takes an equal share, so change one of them',
    holds: s => isMultiple(s.training.globalBatchSequences, TERMS.shares.of(s)),
  }),
  rule('training.precision', {
    cel: "{precision} != 'bfloat16' || {gpusPerWorker} > 0",
    message:
      'training.precision is {precision}, but workers.gpusPerWorker is {gpusPerWorker}, and CPUs compute in float32 alone: set workers.gpusPerWorker to the GPUs of each worker, or use precision float32',
    holds: s => s.training.precision !== 'bfloat16' || s.workers.gpusPerWorker > 0,
  }),
  rule('workers.gpusPerWorker', {
    cel: `{gpusPerWorker} <= 1 || {ranks} <= ${MAX_RANKS}`,
    message: `workers.replicas {replicas} times workers.gpusPerWorker {gpusPerWorker} makes {ranks} ranks, more than the ${MAX_RANKS} that a job can have: use fewer of one of them`,
    holds: s => s.workers.gpusPerWorker <= 1 || TERMS.ranks.of(s) <= MAX_RANKS,
  }),
  rule('data', {
    cel: 'has(self.data.builtin) != has(self.data.path)',
    message:
      'data has {sources}: set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    holds: s => (s.data.builtin === undefined) !== (s.data.path === undefined),
  }),
  rule('data.tokens', {
    cel: "{tokens} == 'bytes' || has(self.data.path)",
    message:
      'data.tokens is {tokens}, but the builtin texts hold bytes: remove tokens, or set data.path to a file of token numbers',
    holds: s => s.data.tokens === 'bytes' || s.data.path !== undefined,
  }),
  rule('parallelism.expertParallelSize', {
    cel: `{kind} == 'Dense' || ${multiple('experts', 'expertParallelSize')}`,
    message:
      '{expertParallelSize} ranks (parallelism.expertParallelSize, or by default all) cannot share model.experts {experts} equally: use a size that divides model.experts',
    holds: s => s.model.kind === 'Dense' || isMultiple(TERMS.experts.of(s), TERMS.expertParallelSize.of(s)),
  }),
  rule('parallelism.expertParallelSize', {
    cel: given(['parallelism.expertParallelSize'], multiple('ranks', 'expertParallelSize')),
    message:
      'parallelism.expertParallelSize is {expertParallelSize}, which does not divide the {ranks} ranks (workers.replicas, times workers.gpusPerWorker with GPUs): use a size that does, or leave it out for one group of all ranks',
    holds: s => isMultiple(TERMS.ranks.of(s), TERMS.expertParallelSize.of(s)),
  }),
  rule('workers.minReplicas', {
    cel: given(['workers.minReplicas'], '{minReplicas} <= {replicas}'),
    message: 'workers.minReplicas is {minReplicas}, more than workers.replicas {replicas}: change one of them',
    holds: s => TERMS.minReplicas.of(s) <= s.workers.replicas,
  }),
  rule('workers.minReplicas', {
    cel: '{minReplicas} == 0 || has(self.checkpoint)',
    message:
      'workers.minReplicas is {minReplicas}, but without checkpoint a gang of another size would start from the beginning: set checkpoint, or remove minReplicas',
    holds: s => s.workers.minReplicas === undefined || s.checkpoint !== undefined,
  }),
  rule('overlap.strategy', {
    cel: "{strategy} != 'Shortcut' || {slots} > 0",
    message:
      'overlap.strategy is Shortcut, but model.kind {kind} has nothing to run beside an all-to-all: use Auto or Sequential, or model.kind ScMoE',
    holds: s => s.overlap.strategy !== 'Shortcut' || TERMS.slots.of(s) > 0,
  }),
  rule('overlap.strategy', {
    cel: "{strategy} != 'Pipelined' || {kind} != 'Dense'",
    message:
      'overlap.strategy is Pipelined, but model.kind Dense has no experts: use Auto or Sequential, or another model.kind',
    holds: s => s.overlap.strategy !== 'Pipelined' || s.model.kind !== 'Dense',
  }),
  rule('overlap.slot', {
    cel: "{slot} == 0 || {strategy} in ['Auto', 'Shortcut']",
    message:
      'overlap.slot is {slot}, which overlap.strategy {strategy} does not have: remove slot, or use strategy Auto or Shortcut',
    holds: s => TERMS.slot.of(s) === 0 || s.overlap.strategy === 'Auto' || s.overlap.strategy === 'Shortcut',
  }),
  rule('overlap.slot', {
    cel: given(['overlap.slot'], '{slot} <= {slots}'),
    message:
      'overlap.slot is {slot}, but this model has {slots} slots (model.kind {kind}, shortcut position {position}): use a smaller slot or remove it',
    holds: s => TERMS.slot.of(s) <= TERMS.slots.of(s),
  }),
  rule('overlap.chunks', {
    cel: "{chunks} == 0 || {strategy} != 'Sequential'",
    message:
      'overlap.chunks is {chunks}, but overlap.strategy Sequential does not split its all-to-alls: remove chunks or use another strategy',
    holds: s => s.overlap.chunks === undefined || s.overlap.strategy !== 'Sequential',
  }),
  rule('overlap.chunks', {
    cel: "{chunks} != 1 || {strategy} != 'Pipelined'",
    message:
      'overlap.chunks is 1, but overlap.strategy Pipelined works on one chunk while the next travels: use 2, 4 or 8, or remove chunks',
    holds: s => s.overlap.chunks !== 1 || s.overlap.strategy !== 'Pipelined',
  }),
  rule('overlap.exchange', {
    cel: "{exchange} != 'Padded' || {gpusPerWorker} > 0",
    message:
      'overlap.exchange is Padded, which is for GPUs, but workers.gpusPerWorker is 0: use GPUs, or exchange Counted',
    holds: s => s.overlap.exchange !== 'Padded' || s.workers.gpusPerWorker > 0,
  }),
  rule('overlap.exchange', {
    cel: "{exchange} != 'Padded' || {capacityFactor} != 'none'",
    message:
      'overlap.exchange is Padded, which carries as many rows as capacity allows, but model.capacityFactor is none: use a number such as "2", or exchange Counted',
    holds: s => s.overlap.exchange !== 'Padded' || s.model.capacityFactor !== 'none',
  }),
  rule('overlap.nccl', {
    cel: '!has(self.overlap.nccl) || {gpusPerWorker} > 0',
    message:
      'overlap.nccl is set, but workers.gpusPerWorker is 0, and ranks on CPUs do not use NCCL: use GPUs, or remove nccl',
    holds: s => s.overlap.nccl === undefined || s.workers.gpusPerWorker > 0,
  }),
  rule('network.port', {
    cel: '{port} < {httpPort} || {port} >= {httpPort} + {ranksPerWorker}',
    message:
      'network.port is {port}, where the worker answers probes and progress requests (network.httpPort {httpPort}): change one of them',
    holds: s =>
      s.network.port < s.network.httpPort || s.network.port >= s.network.httpPort + TERMS.ranksPerWorker.of(s),
  }),
  rule('failurePolicy.backoff.initialSeconds', {
    cel: '{initialSeconds} <= {maxSeconds}',
    message:
      'failurePolicy.backoff.initialSeconds is {initialSeconds}, more than maxSeconds {maxSeconds}: raise maxSeconds or lower initialSeconds',
    holds: s => s.failurePolicy.backoff.initialSeconds <= s.failurePolicy.backoff.maxSeconds,
  }),
  rule('failurePolicy.rules', {
    cel: '!has(self.failurePolicy.rules) || self.failurePolicy.rules.all(r, has(r.onExitCodes) != has(r.onPodConditions))',
    message:
      'every rule of failurePolicy.rules is about either exit codes or pod conditions: set exactly one of onExitCodes and onPodConditions',
    holds: s =>
      (s.failurePolicy.rules ?? []).every(r => (r.onExitCodes === undefined) !== (r.onPodConditions === undefined)),
  }),
  rule('progressDeadlineSeconds', {
    cel: '{progressDeadlineSeconds} >= 2 * {intervalSeconds}',
    message:
      'progressDeadlineSeconds is {progressDeadlineSeconds}, but progress is read only every {intervalSeconds} s (reporting.intervalSeconds): use at least twice that, or report more often',
    holds: s => s.progressDeadlineSeconds >= 2 * s.reporting.intervalSeconds,
  }),
  rule('checkpoint.subPath', {
    cel: "!{subPath}.startsWith('/') && !{subPath}.split('/').exists(part, part == '..')",
    message: 'checkpoint.subPath is {subPath}: use a path inside the volume, without a leading / and without ..',
    holds: s => !TERMS.subPath.of(s).startsWith('/') && !TERMS.subPath.of(s).split('/').includes('..'),
  }),
]

export interface Broken {
  /** Path from the object's root. */
  field: string
  message: string
}

/** The rules that a spec breaks. The spec has its defaults and the right types. */
export function brokenRules(spec: ScMoEJobSpec, name: string): Broken[] {
  return RULES.flatMap(broken => {
    const message = broken.check(spec, name)
    return message === undefined ? [] : [{ field: broken.field, message }]
  })
}

/** One line for each broken rule. */
export const brokenText = (broken: readonly Broken[]): string =>
  broken.map(({ field, message }) => `${field}: ${message}`).join('\n')
