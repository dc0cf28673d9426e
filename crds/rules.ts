// Rules between fields, each written once: as CEL for the API server and as a check for programs that have no API server at hand.
// `{term}` in a rule or a message stands for one value of the spec; its CEL and its TypeScript reading lie side by side in TERMS.

import { PORT } from './contract.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'

/** Pods are called `<job>-worker-<i>` with i < 1024, which is also their host name: at most 63 characters. */
const MAX_NAME_LENGTH = 63 - '-worker-1023'.length

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

type Value = string | number | boolean
interface Term {
  cel: string
  of(spec: ScMoEJobSpec): Value
}

const TERMS = {
  kind: { cel: 'self.model.kind', of: s => s.model.kind },
  blocks: { cel: 'self.model.blocks', of: s => s.model.blocks },
  hiddenSize: { cel: 'self.model.hiddenSize', of: s => s.model.hiddenSize },
  heads: { cel: 'self.model.heads', of: s => s.model.heads },
  experts: { cel: 'self.model.experts', of: s => s.model.experts },
  topK: {
    cel: "(has(self.model.topK) ? self.model.topK : self.model.kind == 'Top2' ? 2 : 1)",
    of: s => s.model.topK ?? (s.model.kind === 'Top2' ? 2 : 1),
  },
  capacityFactor: { cel: 'self.model.capacityFactor', of: s => s.model.capacityFactor },
  learningRate: { cel: 'self.training.optimizer.learningRate', of: s => s.training.optimizer.learningRate },
  gradientClipNorm: { cel: 'self.training.optimizer.gradientClipNorm', of: s => s.training.optimizer.gradientClipNorm },
  globalBatchSequences: { cel: 'self.training.globalBatchSequences', of: s => s.training.globalBatchSequences },
  replicas: { cel: 'self.workers.replicas', of: s => s.workers.replicas },
  expertParallelSize: {
    cel: '(has(self.parallelism.expertParallelSize) ? self.parallelism.expertParallelSize : self.workers.replicas)',
    of: s => s.parallelism.expertParallelSize ?? s.workers.replicas,
  },
  strategy: { cel: 'self.overlap.strategy', of: s => s.overlap.strategy },
  slot: { cel: '(has(self.overlap.slot) ? self.overlap.slot : 0)', of: s => s.overlap.slot ?? 0 },
  port: { cel: 'self.network.port', of: s => s.network.port },
  initialSeconds: { cel: 'self.failurePolicy.backoff.initialSeconds', of: s => s.failurePolicy.backoff.initialSeconds },
  maxSeconds: { cel: 'self.failurePolicy.backoff.maxSeconds', of: s => s.failurePolicy.backoff.maxSeconds },
  subPath: {
    cel: "(has(self.checkpoint) && has(self.checkpoint.subPath) ? self.checkpoint.subPath : 'x')",
    of: s => s.checkpoint?.subPath ?? 'x',
  },
} as const satisfies Record<string, Term>

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

const rule = (field: string, cel: string, message: string, holds: (spec: ScMoEJobSpec) => boolean): Rule => ({
  at: 'spec',
  field: `spec.${field}`,
  rule: fill(cel, name => term(name).cel),
  message,
  messageExpression: messageExpression(message, name => term(name).cel),
  check: spec => (holds(spec) ? undefined : fill(message, name => String(term(name).of(spec)))),
})

/** A rule is also asked of values that their own bounds refuse; without the guard the API server would add an error about a division by zero. */
const multiple = (of: string, by: string) => `{${by}} < 1 || {${of}} % {${by}} == 0`
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
    '{blocks} % 2 == 0',
    'model.blocks is {blocks}, but every second block carries the MoE layer: use an even number',
    s => s.model.blocks % 2 === 0,
  ),
  rule(
    'model.heads',
    multiple('hiddenSize', 'heads'),
    'model.heads is {heads}, which does not divide model.hiddenSize {hiddenSize}: change one of them',
    s => isMultiple(s.model.hiddenSize, s.model.heads),
  ),
  rule(
    'model.topK',
    "{kind} != 'Top2' || {topK} == 2",
    'model.topK is {topK}, but kind Top2 sends every token to 2 experts: remove topK or choose another kind',
    s => s.model.kind !== 'Top2' || TERMS.topK.of(s) === 2,
  ),
  rule(
    'model.topK',
    "{kind} != 'SharedExpert' || {topK} == 1",
    'model.topK is {topK}, but kind SharedExpert sends every token to 1 routed expert: remove topK or choose another kind',
    s => s.model.kind !== 'SharedExpert' || TERMS.topK.of(s) === 1,
  ),
  rule(
    'model.topK',
    '{topK} <= {experts}',
    'every token goes to {topK} experts (model.topK, or its default for kind {kind}), but model.experts is {experts}: use more experts or a smaller topK',
    s => TERMS.topK.of(s) <= s.model.experts,
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
    multiple('globalBatchSequences', 'replicas'),
    'training.globalBatchSequences is {globalBatchSequences}, which is not a multiple of workers.replicas {replicas}: every worker takes an equal share, so change one of them',
    s => isMultiple(s.training.globalBatchSequences, s.workers.replicas),
  ),
  rule(
    'data',
    'has(self.data.builtin) != has(self.data.path)',
    'set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    s => (s.data.builtin === undefined) !== (s.data.path === undefined),
  ),
  rule(
    'parallelism.expertParallelSize',
    multiple('experts', 'expertParallelSize'),
    '{expertParallelSize} ranks (parallelism.expertParallelSize, or by default workers.replicas) cannot share model.experts {experts} equally: use a size that divides model.experts',
    s => isMultiple(s.model.experts, TERMS.expertParallelSize.of(s)),
  ),
  rule(
    'parallelism.expertParallelSize',
    multiple('replicas', 'expertParallelSize'),
    'parallelism.expertParallelSize is {expertParallelSize}, which does not divide workers.replicas {replicas}: use a size that does, or leave it out for one group of all workers',
    s => isMultiple(s.workers.replicas, TERMS.expertParallelSize.of(s)),
  ),
  rule(
    'overlap.strategy',
    "{strategy} != 'Shortcut' || {kind} != 'Top2'",
    'overlap.strategy is Shortcut, but model.kind Top2 has no shortcut to overlap with: use Auto or Sequential, or model.kind ScMoE',
    s => s.overlap.strategy !== 'Shortcut' || s.model.kind !== 'Top2',
  ),
  rule(
    'overlap.slot',
    "{slot} == 0 || ({kind} == 'ScMoE' && {strategy} != 'Sequential')",
    'overlap.slot is {slot}, which only model.kind ScMoE with overlap.strategy Auto or Shortcut has (here: {kind}, {strategy}): remove overlap.slot',
    s => TERMS.slot.of(s) === 0 || (s.model.kind === 'ScMoE' && s.overlap.strategy !== 'Sequential'),
  ),
  rule(
    'network.port',
    `{port} != ${PORT.http}`,
    `network.port is {port}, where the worker answers probes and progress requests: use another port`,
    s => s.network.port !== PORT.http,
  ),
  rule(
    'failurePolicy.backoff.initialSeconds',
    '{initialSeconds} <= {maxSeconds}',
    'failurePolicy.backoff.initialSeconds is {initialSeconds}, more than maxSeconds {maxSeconds}: raise maxSeconds or lower initialSeconds',
    s => s.failurePolicy.backoff.initialSeconds <= s.failurePolicy.backoff.maxSeconds,
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
