// Rules between fields, each written once: as CEL for the API server and as a check for programs that have no API server at hand.
// `{term}` in a rule or a message stands for one value of the spec; its CEL and its TypeScript reading lie side by side in terms.ts.

import { PORT } from './contract.ts'
import { place } from './place.ts'
import { resolveModel } from './presets.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'
import { TERMS, type Term } from './terms.ts'

/** Pods are called `<job>-worker-<i>` with i < 1024, which is also their host name: at most 63 characters. */
const MAX_NAME_LENGTH = 63 - '-worker-1023'.length

/** As worker/config.ts has it too. */
const MAX_RANKS = 1024

/** A rule as the CRD carries it. `at` is the object `self` stands for, `field` the one the error names; both start at the object's root. */
export interface SchemaRule {
  at: string
  field: string
  /** CEL. */
  rule: string
  /** With `{terms}` for values. */
  message: string
  /** The same as CEL. */
  messageExpression: string
}

/** A rule that one object alone can break. */
export interface Rule extends SchemaRule {
  /** The message if the rule is broken, else undefined. Expects a spec with its defaults. */
  check(spec: ScMoEJobSpec, name: string): string | undefined
}

/** The template with every `{name}` replaced. */
export function fill(template: string, value: (name: string) => string): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => value(name))
}

/** A template as the CEL expression that yields the text. `+` and string() would break the API server's cost limit, format does not. */
export function messageExpression(template: string, cel: (name: string) => string): string {
  const names = [...template.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
  const text = template.replaceAll('%', '%%').replaceAll('\\', '\\\\').replaceAll("'", "\\'")
  if (names.length === 0) return `'${text.replaceAll('%%', '%')}'`
  return `'${fill(text, () => '%s')}'.format([${names.map(cel).join(', ')}])`
}

function term(name: string): Term {
  if (!isTerm(name)) throw new Error(`a rule refers to {${name}}, which TERMS does not define`)
  return TERMS[name]
}
const isTerm = (name: string): name is keyof typeof TERMS => Object.hasOwn(TERMS, name)

function rule(field: string, cel: string, message: string, holds: (spec: ScMoEJobSpec) => boolean): Rule {
  const celOf = (name: string) => term(name).cel
  const { at, texts } = place(field, [fill(cel, celOf), messageExpression(message, celOf)])
  const [text = '', says = ''] = texts
  return {
    at: at === '' ? 'spec' : `spec.${at}`,
    field: `spec.${field}`,
    rule: text,
    message,
    messageExpression: says,
    check: spec => (holds(spec) ? undefined : fill(message, name => String(term(name).of(spec)))),
  }
}

/** What holds wherever none of these fields is given, as presets and defaults fit together (tests/unit/crds/rules.test.ts), is asked only where one is. */
const given = (fields: readonly string[], cel: string) =>
  `${fields.map(field => `!has(self.${field})`).join(' && ')} || ${cel}`

/** A rule is also asked of values that their own bounds refuse; without the guard the API server would add an error about a division by zero. */
const multiple = (of: string, by: string) => `[{${by}}].all(n, n < 1 || {${of}} % n == 0)`
const isMultiple = (of: number, by: number) => by < 1 || of % by === 0

/** A decimal text without a digit but 0. What is no decimal at all is left to the pattern. */
const ZERO = /^[0.]+([eE]|$)/
const notZero = (field: string) => `!{${field}}.matches('${ZERO.source}')`
const isNotZero = (decimal: string) => !ZERO.test(decimal)

const NAME = /^[a-z]([-a-z0-9]*[a-z0-9])?$/
const NAME_MESSAGE = `must be a DNS label that starts with a letter (a-z, 0-9, -) of at most ${MAX_NAME_LENGTH} characters, because pods are called <name>-worker-<i>: choose another name`

const nameRule: Rule = {
  at: '',
  field: 'metadata.name',
  rule: `self.metadata.name.size() <= ${MAX_NAME_LENGTH} && self.metadata.name.matches('${NAME.source}')`,
  message: NAME_MESSAGE,
  messageExpression: messageExpression(NAME_MESSAGE, String),
  check: (_, name) => (name.length <= MAX_NAME_LENGTH && NAME.test(name) ? undefined : NAME_MESSAGE),
}

export const RULES: readonly Rule[] = [
  nameRule,
  rule(
    'model.blocks',
    given(['model.blocks', 'model.moeLayerFrequency'], multiple('blocks', 'moeLayerFrequency')),
    'model.blocks is {blocks}, which is not a multiple of model.moeLayerFrequency {moeLayerFrequency}, the blocks for each MoE layer: change one of them',
    s => isMultiple(TERMS.blocks.of(s), TERMS.moeLayerFrequency.of(s)),
  ),
  rule(
    'model.heads',
    given(['model.hiddenSize', 'model.heads'], multiple('hiddenSize', 'heads')),
    'model.heads is {heads}, which does not divide model.hiddenSize {hiddenSize}: change one of them',
    s => isMultiple(TERMS.hiddenSize.of(s), TERMS.heads.of(s)),
  ),
  rule(
    'model.keyValueHeads',
    given(['model.heads', 'model.keyValueHeads'], multiple('heads', 'keyValueHeads')),
    'model.keyValueHeads is {keyValueHeads}, which does not divide model.heads {heads}: change one of them',
    s => isMultiple(TERMS.heads.of(s), TERMS.keyValueHeads.of(s)),
  ),
  rule(
    'model.positions',
    given(
      ['model.positions', 'model.heads', 'model.hiddenSize'],
      "{positions} != 'RoPE' || {heads} < 1 || {hiddenSize} % {heads} != 0 || {hiddenSize} / {heads} % 2 == 0",
    ),
    'model.positions is RoPE, which turns pairs of values, but model.hiddenSize {hiddenSize} over model.heads {heads} is odd: change one of them, or use positions Learned',
    s => {
      const { positions, hiddenSize, heads } = resolveModel(s.model)
      return positions !== 'RoPE' || heads < 1 || hiddenSize % heads !== 0 || (hiddenSize / heads) % 2 === 0
    },
  ),
  rule(
    'model.shortcutPosition',
    "{shortcutPosition} == 0 || {kind} in ['ScMoE', 'DGMoE']",
    'model.shortcutPosition is {shortcutPosition}, but kind {kind} has no shortcut: remove shortcutPosition or use kind ScMoE or DGMoE',
    s => s.model.shortcutPosition === undefined || s.model.kind === 'ScMoE' || s.model.kind === 'DGMoE',
  ),
  rule(
    'model.shortcutPosition',
    given(['model.shortcutPosition'], '{shortcutPosition} <= 1 || {moeLayerFrequency} >= 2'),
    'model.shortcutPosition is {shortcutPosition}, but every block carries the MoE layer (model.moeLayerFrequency {moeLayerFrequency}), so that none lies before it: use shortcutPosition 1 or a higher moeLayerFrequency',
    s => TERMS.shortcutPosition.of(s) <= 1 || TERMS.moeLayerFrequency.of(s) >= 2,
  ),
  rule(
    'model.coefficientGate',
    "{coefficientGate} == '' || {kind} in ['ScMoE', 'SharedExpert']",
    'model.coefficientGate is {coefficientGate}, but kind {kind} has no shared expert to weigh: remove coefficientGate or use kind ScMoE or SharedExpert',
    s => s.model.coefficientGate === undefined || s.model.kind === 'ScMoE' || s.model.kind === 'SharedExpert',
  ),
  rule(
    'model.topK',
    given(['model.topK'], "{kind} == 'ScMoE' || {topK} == {usualTopK}"),
    'model.topK is {topK}, but kind {kind} sends {routes}: remove topK or choose another kind',
    s => s.model.kind === 'ScMoE' || TERMS.topK.of(s) === TERMS.usualTopK.of(s),
  ),
  rule(
    'model.topK',
    given(['model.topK', 'model.experts'], '{picks} <= {experts}'),
    'every token goes to {picks} experts (model.topK and kind {kind}), but model.experts is {experts}: use more experts or a smaller topK',
    s => TERMS.picks.of(s) <= TERMS.experts.of(s),
  ),
  rule(
    'model.capacityFactor',
    notZero('capacityFactor'),
    'model.capacityFactor is {capacityFactor}, so every token would be dropped: use a number above 0, such as "2"',
    s => isNotZero(s.model.capacityFactor),
  ),
  rule(
    'training.optimizer.learningRate',
    notZero('learningRate'),
    'training.optimizer.learningRate is {learningRate}, so nothing would be learnt: use a number above 0, such as "6e-4"',
    s => isNotZero(s.training.optimizer.learningRate),
  ),
  rule(
    'training.optimizer.gradientClipNorm',
    notZero('gradientClipNorm'),
    'training.optimizer.gradientClipNorm is {gradientClipNorm}, so every gradient would be scaled to 0: use a number above 0, such as "1"',
    s => isNotZero(s.training.optimizer.gradientClipNorm),
  ),
  rule(
    'training.globalBatchSequences',
    multiple('globalBatchSequences', 'shares'),
    'training.globalBatchSequences is {globalBatchSequences}, which is not a multiple of {ranks} ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches {microBatches}: every rank takes an equal share, so change one of them',
    s => isMultiple(s.training.globalBatchSequences, TERMS.shares.of(s)),
  ),
  rule(
    'training.precision',
    "{precision} != 'bfloat16' || {gpusPerWorker} > 0",
    'training.precision is {precision}, but workers.gpusPerWorker is {gpusPerWorker}, and CPUs compute in float32 alone: set workers.gpusPerWorker to the GPUs of each worker, or use precision float32',
    s => s.training.precision !== 'bfloat16' || s.workers.gpusPerWorker > 0,
  ),
  rule(
    'workers.gpusPerWorker',
    `{gpusPerWorker} <= 1 || {ranks} <= ${MAX_RANKS}`,
    `workers.replicas {replicas} times workers.gpusPerWorker {gpusPerWorker} makes {ranks} ranks, more than the ${MAX_RANKS} that a job can have: use fewer of one of them`,
    s => s.workers.gpusPerWorker <= 1 || TERMS.ranks.of(s) <= MAX_RANKS,
  ),
  rule(
    'data',
    'has(self.data.builtin) != has(self.data.path)',
    'set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    s => (s.data.builtin === undefined) !== (s.data.path === undefined),
  ),
  rule(
    'data.tokens',
    "{tokens} == 'bytes' || has(self.data.path)",
    'data.tokens is {tokens}, but the builtin texts hold bytes: remove tokens, or set data.path to a file of token numbers',
    s => s.data.tokens === 'bytes' || s.data.path !== undefined,
  ),
  rule(
    'parallelism.expertParallelSize',
    `{kind} == 'Dense' || ${multiple('experts', 'expertParallelSize')}`,
    '{expertParallelSize} ranks (parallelism.expertParallelSize, or by default all) cannot share model.experts {experts} equally: use a size that divides model.experts',
    s => s.model.kind === 'Dense' || isMultiple(TERMS.experts.of(s), TERMS.expertParallelSize.of(s)),
  ),
  rule(
    'parallelism.expertParallelSize',
    given(['parallelism.expertParallelSize'], multiple('ranks', 'expertParallelSize')),
    'parallelism.expertParallelSize is {expertParallelSize}, which does not divide the {ranks} ranks (workers.replicas, times workers.gpusPerWorker with GPUs): use a size that does, or leave it out for one group of all ranks',
    s => isMultiple(TERMS.ranks.of(s), TERMS.expertParallelSize.of(s)),
  ),
  rule(
    'workers.minReplicas',
    given(['workers.minReplicas'], '{minReplicas} <= {replicas}'),
    'workers.minReplicas is {minReplicas}, more than workers.replicas {replicas}: change one of them',
    s => TERMS.minReplicas.of(s) <= s.workers.replicas,
  ),
  rule(
    'workers.minReplicas',
    '{minReplicas} == 0 || has(self.checkpoint)',
    'workers.minReplicas is {minReplicas}, but without checkpoint a gang of another size would start from the beginning: set checkpoint, or remove minReplicas',
    s => s.workers.minReplicas === undefined || s.checkpoint !== undefined,
  ),
  rule(
    'overlap.strategy',
    "{strategy} != 'Shortcut' || {slots} > 0",
    'overlap.strategy is Shortcut, but model.kind {kind} has nothing to run beside an all-to-all: use Auto or Sequential, or model.kind ScMoE',
    s => s.overlap.strategy !== 'Shortcut' || TERMS.slots.of(s) > 0,
  ),
  rule(
    'overlap.strategy',
    "{strategy} != 'Pipelined' || {kind} != 'Dense'",
    'overlap.strategy is Pipelined, but model.kind Dense has no experts: use Auto or Sequential, or another model.kind',
    s => s.overlap.strategy !== 'Pipelined' || s.model.kind !== 'Dense',
  ),
  rule(
    'overlap.slot',
    "{slot} == 0 || {strategy} in ['Auto', 'Shortcut']",
    'overlap.slot is {slot}, which overlap.strategy {strategy} does not have: remove slot, or use strategy Auto or Shortcut',
    s => TERMS.slot.of(s) === 0 || s.overlap.strategy === 'Auto' || s.overlap.strategy === 'Shortcut',
  ),
  rule(
    'overlap.slot',
    given(['overlap.slot'], '{slot} <= {slots}'),
    'overlap.slot is {slot}, but this model has {slots} slots (model.kind {kind}, shortcut position {position}): use a smaller slot or remove it',
    s => TERMS.slot.of(s) <= TERMS.slots.of(s),
  ),
  rule(
    'overlap.chunks',
    "{chunks} == 0 || {strategy} != 'Sequential'",
    'overlap.chunks is {chunks}, but overlap.strategy Sequential does not split its all-to-alls: remove chunks or use another strategy',
    s => s.overlap.chunks === undefined || s.overlap.strategy !== 'Sequential',
  ),
  rule(
    'overlap.chunks',
    "{chunks} != 1 || {strategy} != 'Pipelined'",
    'overlap.chunks is 1, but overlap.strategy Pipelined works on one chunk while the next travels: use 2, 4 or 8, or remove chunks',
    s => s.overlap.chunks !== 1 || s.overlap.strategy !== 'Pipelined',
  ),
  rule(
    'overlap.exchange',
    "{exchange} != 'Padded' || {gpusPerWorker} > 0",
    'overlap.exchange is Padded, which is for GPUs, but workers.gpusPerWorker is 0: use GPUs, or exchange Counted',
    s => s.overlap.exchange !== 'Padded' || s.workers.gpusPerWorker > 0,
  ),
  rule(
    'overlap.exchange',
    "{exchange} != 'Padded' || {capacityFactor} != 'none'",
    'overlap.exchange is Padded, which carries as many rows as capacity allows, but model.capacityFactor is none: use a number such as "2", or exchange Counted',
    s => s.overlap.exchange !== 'Padded' || s.model.capacityFactor !== 'none',
  ),
  rule(
    'overlap.nccl',
    '!has(self.overlap.nccl) || {gpusPerWorker} > 0',
    'overlap.nccl is set, but workers.gpusPerWorker is 0, and ranks on CPUs do not use NCCL: use GPUs, or remove nccl',
    s => s.overlap.nccl === undefined || s.workers.gpusPerWorker > 0,
  ),
  rule(
    'network.port',
    `[{port}].all(n, n < ${PORT.http} || n >= ${PORT.http} + {ranksPerWorker})`,
    `network.port is {port}, where the worker answers probes and progress requests: use another port`,
    s => s.network.port < PORT.http || s.network.port >= PORT.http + TERMS.ranksPerWorker.of(s),
  ),
  rule(
    'failurePolicy.backoff.initialSeconds',
    '{initialSeconds} <= {maxSeconds}',
    'failurePolicy.backoff.initialSeconds is {initialSeconds}, more than maxSeconds {maxSeconds}: raise maxSeconds or lower initialSeconds',
    s => s.failurePolicy.backoff.initialSeconds <= s.failurePolicy.backoff.maxSeconds,
  ),
  rule(
    'failurePolicy.rules',
    '!has(self.failurePolicy.rules) || self.failurePolicy.rules.all(r, has(r.onExitCodes) != has(r.onPodConditions))',
    'every rule of failurePolicy.rules is about either exit codes or pod conditions: set exactly one of onExitCodes and onPodConditions',
    s => (s.failurePolicy.rules ?? []).every(r => (r.onExitCodes === undefined) !== (r.onPodConditions === undefined)),
  ),
  rule(
    'progressDeadlineSeconds',
    '{progressDeadlineSeconds} >= 2 * {intervalSeconds}',
    'progressDeadlineSeconds is {progressDeadlineSeconds}, but progress is only looked at every {intervalSeconds} s (reporting.intervalSeconds): use at least twice that, or report more often',
    s => s.progressDeadlineSeconds >= 2 * s.reporting.intervalSeconds,
  ),
  rule(
    'checkpoint.subPath',
    "!{subPath}.startsWith('/') && !{subPath}.split('/').exists(part, part == '..')",
    'checkpoint.subPath is {subPath}: use a path inside the volume, without a leading / and without ..',
    s => !TERMS.subPath.of(s).startsWith('/') && !TERMS.subPath.of(s).split('/').includes('..'),
  ),
]

/** The error lines of a spec that has its defaults and the right types: `field: message`. */
export function brokenRules(spec: ScMoEJobSpec, name: string): { field: string; message: string }[] {
  return RULES.flatMap(broken => {
    const message = broken.check(spec, name)
    return message === undefined ? [] : [{ field: broken.field, message }]
  })
}
