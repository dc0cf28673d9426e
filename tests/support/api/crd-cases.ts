// Jobs that are refused, each with all lines that `scmoe validate` (tests/unit) and a real API
// server (tests/api) have to give.

import { API_VERSION, KIND } from '../../../crds/contract.ts'
import { type Case, SCHEMA } from './crd-cases-schema.ts'

const named = (name: string) =>
  `metadata.name: Invalid value: metadata.name is ${name}, but pods are called <name>-worker-<i>: choose a DNS label that starts with a letter (a-z, 0-9, -) and has at most 51 characters`
const LONG = 'a'.repeat(52)
/** Jobs that rules refuse: at least one for each rule (tests/unit/crds/rules.test.ts). */
export const RULE_CASES: readonly Case[] = [
  { name: 'a name too long for pods', spec: '', job: LONG, says: [named(LONG)] },
  { name: 'a name with a dot', spec: '', job: 'a.b', says: [named('a.b')] },
  {
    name: 'an odd number of blocks',
    spec: 'model: {blocks: 3}',
    says: [
      'spec.model.blocks: Invalid value: model.blocks is 3, which is not a multiple of model.moeLayerFrequency 2, the number of blocks for each MoE layer: change one of them',
    ],
  },
  {
    name: 'heads that do not divide the width',
    spec: 'model: {heads: 3}',
    says: [
      'spec.model.heads: Invalid value: model.heads is 3, which does not divide model.hiddenSize 256: change one of them',
    ],
  },
  {
    name: 'Top2 with one expert per token',
    spec: 'model: {kind: Top2, topK: 1}',
    says: [
      'spec.model.topK: Invalid value: model.topK is 1, but kind Top2 sends every token to 2 experts: remove topK or choose another kind',
    ],
  },
  {
    name: 'SharedExpert with two experts per token',
    spec: 'model: {kind: SharedExpert, topK: 2}',
    says: [
      'spec.model.topK: Invalid value: model.topK is 2, but kind SharedExpert sends every token to 1 routed expert: remove topK or choose another kind',
    ],
  },
  {
    name: 'more experts per token than there are',
    spec: 'model: {kind: Top2, experts: 1}',
    says: [
      'spec.model.experts: Invalid value: model.experts is 1, but model.kind Top2 sends every token to 2 different experts: use more experts, or a kind or topK that needs fewer',
    ],
  },
  {
    name: 'one expert for two representations',
    spec: 'model: {kind: DGMoE, experts: 1}',
    says: [
      'spec.model.experts: Invalid value: model.experts is 1, but model.kind DGMoE sends every token to 2 different experts: use more experts, or a kind or topK that needs fewer',
    ],
  },
  {
    name: 'experts per token of a model without experts',
    spec: 'model: {kind: Dense, topK: 1}',
    says: [
      'spec.model.topK: Invalid value: model.topK is 1, but kind Dense sends no token to experts: remove topK or choose another kind',
    ],
  },
  {
    name: 'blocks that a preset does not divide',
    spec: 'model: {preset: gpt2-moe-small, moeLayerFrequency: 5}',
    says: [
      'spec.model.blocks: Invalid value: model.blocks is 12, which is not a multiple of model.moeLayerFrequency 5, the number of blocks for each MoE layer: change one of them',
    ],
  },
  {
    name: 'heads that do not share keys and values',
    spec: 'model: {heads: 8, keyValueHeads: 3}',
    says: [
      'spec.model.keyValueHeads: Invalid value: model.keyValueHeads is 3, which does not divide model.heads 8: change one of them',
    ],
  },
  {
    name: 'heads that do not share keys and values of a preset',
    spec: 'model: {preset: llama2-moe, hiddenSize: 192, heads: 6}',
    says: [
      'spec.model.keyValueHeads: Invalid value: model.keyValueHeads is 4, which does not divide model.heads 6: change one of them',
    ],
  },
  {
    name: 'rotations of an odd head',
    spec: 'model: {hiddenSize: 60, positions: RoPE}',
    says: [
      'spec.model.positions: Invalid value: model.positions is RoPE, which rotates pairs of values, but model.hiddenSize 60 / model.heads 4 is odd: change one of them, or use positions Learned',
    ],
  },
  {
    name: 'a shortcut position without shortcut',
    spec: 'model: {kind: SharedExpert, shortcutPosition: 2}',
    says: [
      'spec.model.shortcutPosition: Invalid value: model.shortcutPosition is 2, but kind SharedExpert has no shortcut: remove shortcutPosition or use kind ScMoE or DGMoE',
    ],
  },
  {
    name: 'a shortcut from a block that is not there',
    spec: 'model: {preset: llama2-moe, shortcutPosition: 2}',
    says: [
      'spec.model.shortcutPosition: Invalid value: model.shortcutPosition is 2, which starts before the MLP of the preceding block, but with model.moeLayerFrequency 1 that block has an MoE layer instead: use shortcutPosition 1 or a higher moeLayerFrequency',
    ],
  },
  {
    name: 'a gate without shared expert',
    spec: 'model: {kind: Top1, coefficientGate: CG2}',
    says: [
      'spec.model.coefficientGate: Invalid value: model.coefficientGate is CG2, but kind Top1 has no shared expert to weigh: remove coefficientGate or use kind ScMoE or SharedExpert',
    ],
  },
  {
    name: 'no capacity',
    spec: 'model: {capacityFactor: "0"}',
    says: [
      'spec.model.capacityFactor: Invalid value: model.capacityFactor is 0, so every token would be dropped: use a number above 0, such as "2"',
    ],
  },
  {
    name: 'no learning rate',
    spec: 'training: {steps: 1, optimizer: {learningRate: "0.0"}}',
    says: [
      'spec.training.optimizer.learningRate: Invalid value: training.optimizer.learningRate is 0.0, so nothing would be learnt: use a number above 0, such as "6e-4"',
    ],
  },
  {
    name: 'a gradient norm of nothing',
    spec: 'training: {steps: 1, optimizer: {gradientClipNorm: "0e1"}}',
    says: [
      'spec.training.optimizer.gradientClipNorm: Invalid value: training.optimizer.gradientClipNorm is 0e1, so every gradient would be scaled to 0: use a number above 0, such as "1"',
    ],
  },
  {
    name: 'a batch that workers cannot share',
    spec: 'workers: {replicas: 4}\n  training: {steps: 1, globalBatchSequences: 6}',
    says: [
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 6, which is not a multiple of 4 ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches 1: every rank takes an equal share, so change one of them',
    ],
  },
  {
    name: 'a batch that micro-batches cannot share',
    spec: 'workers: {replicas: 2}\n  training: {steps: 1, globalBatchSequences: 6, microBatches: 2}',
    says: [
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 6, which is not a multiple of 2 ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches 2: every rank takes an equal share, so change one of them',
    ],
  },
  {
    name: 'a batch that GPUs cannot share',
    spec: 'workers: {replicas: 2, gpusPerWorker: 4}\n  training: {steps: 1, globalBatchSequences: 12}',
    says: [
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 12, which is not a multiple of 8 ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches 1: every rank takes an equal share, so change one of them',
    ],
  },
  {
    name: 'groups that do not fill the GPUs',
    spec: 'parallelism: {expertParallelSize: 8}\n  workers: {replicas: 2, gpusPerWorker: 2}',
    says: [
      'spec.parallelism.expertParallelSize: Invalid value: parallelism.expertParallelSize is 8, which does not divide the 4 ranks (workers.replicas, times workers.gpusPerWorker with GPUs): use a size that does, or leave it out for one group of all ranks',
    ],
  },
  {
    name: 'padded exchanges and settings of NCCL without GPUs',
    spec: 'overlap: {exchange: Padded, nccl: {maxCTAs: 4}}',
    says: [
      'spec.overlap.exchange: Invalid value: overlap.exchange is Padded, which is for GPUs, but workers.gpusPerWorker is 0: use GPUs, or exchange Counted',
      'spec.overlap.nccl: Invalid value: overlap.nccl is set, but workers.gpusPerWorker is 0, and ranks on CPUs do not use NCCL: use GPUs, or remove nccl',
    ],
  },
  {
    name: 'padded exchanges without capacity',
    spec: 'overlap: {exchange: Padded}\n  workers: {gpusPerWorker: 1}\n  model: {capacityFactor: none}',
    says: [
      'spec.overlap.exchange: Invalid value: overlap.exchange is Padded, which carries as many rows as capacity allows, but model.capacityFactor is none: use a number such as "2", or exchange Counted',
    ],
  },
  {
    name: 'more ranks than a job can have',
    spec: 'workers: {replicas: 256, gpusPerWorker: 8}\n  training: {steps: 1, globalBatchSequences: 2048}\n  parallelism: {expertParallelSize: 8}',
    says: [
      'spec.workers.gpusPerWorker: Invalid value: workers.replicas 256 times workers.gpusPerWorker 8 makes 2048 ranks, more than the 1024 that a job can have: use fewer of one of them',
    ],
  },
  {
    name: 'bfloat16 on CPUs',
    spec: 'training: {steps: 1, precision: bfloat16}',
    says: [
      'spec.training.precision: Invalid value: training.precision is bfloat16, but workers.gpusPerWorker is 0, and CPUs compute in float32 alone: set workers.gpusPerWorker to the GPUs of each worker, or use precision float32',
    ],
  },
  {
    name: "the port of the server of the worker's second rank",
    spec: 'network: {port: 8081}\n  workers: {gpusPerWorker: 2}',
    says: [
      'spec.network.port: Invalid value: network.port is 8081, where the worker answers probes and progress requests (network.httpPort 8080): change one of them',
    ],
  },
  {
    name: 'token numbers from a text',
    spec: 'data: {builtin: sotu, tokens: uint16}',
    says: [
      'spec.data.tokens: Invalid value: data.tokens is uint16, but the builtin texts hold bytes: remove tokens, or set data.path to a file of token numbers',
    ],
  },
  {
    name: 'two sources of data',
    spec: 'data: {builtin: sotu, path: /data/a.txt}',
    says: [
      'spec.data: Invalid value: data has both builtin and path: set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    ],
  },
  {
    name: 'no source of data',
    spec: 'data: {}',
    says: [
      'spec.data: Invalid value: data has neither builtin nor path: set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    ],
  },
  {
    name: 'experts that ranks cannot share',
    spec: 'model: {experts: 6}\n  workers: {replicas: 4}',
    says: [
      'spec.parallelism.expertParallelSize: Invalid value: 4 ranks (parallelism.expertParallelSize, or by default all) cannot share model.experts 6 equally: use a size that divides model.experts',
    ],
  },
  {
    name: 'groups that do not fill the workers',
    spec: 'parallelism: {expertParallelSize: 4}\n  workers: {replicas: 2}',
    says: [
      'spec.parallelism.expertParallelSize: Invalid value: parallelism.expertParallelSize is 4, which does not divide the 2 ranks (workers.replicas, times workers.gpusPerWorker with GPUs): use a size that does, or leave it out for one group of all ranks',
    ],
  },
  {
    name: 'more workers at least than in all',
    spec: 'workers: {replicas: 2, minReplicas: 4}\n  checkpoint: {volume: {emptyDir: {}}}',
    says: [
      'spec.workers.minReplicas: Invalid value: workers.minReplicas is 4, more than workers.replicas 2: change one of them',
    ],
  },
  {
    name: 'fewer workers that would begin again',
    spec: 'workers: {replicas: 2, minReplicas: 1}',
    says: [
      'spec.workers.minReplicas: Invalid value: workers.minReplicas is 1, but without checkpoint a gang of another size would start from the beginning: set checkpoint, or remove minReplicas',
    ],
  },
  {
    name: 'a shortcut that is not there',
    spec: 'model: {kind: Top2}\n  overlap: {strategy: Shortcut}',
    says: [
      'spec.overlap.strategy: Invalid value: overlap.strategy is Shortcut, but model.kind Top2 has nothing to run beside an all-to-all: use Auto or Sequential, or model.kind ScMoE',
    ],
  },
  {
    name: 'chunks for no experts',
    spec: 'model: {kind: Dense}\n  overlap: {strategy: Pipelined}',
    says: [
      'spec.overlap.strategy: Invalid value: overlap.strategy is Pipelined, but model.kind Dense has no experts: use Auto or Sequential, or another model.kind',
    ],
  },
  {
    name: 'chunks where nothing is split',
    spec: 'overlap: {strategy: Sequential, chunks: 2}',
    says: [
      'spec.overlap.chunks: Invalid value: overlap.chunks is 2, but overlap.strategy Sequential does not split its all-to-alls: remove chunks or use another strategy',
    ],
  },
  {
    name: 'a pipeline of one chunk',
    spec: 'overlap: {strategy: Pipelined, chunks: 1}',
    says: [
      'spec.overlap.chunks: Invalid value: overlap.chunks is 1, but overlap.strategy Pipelined works on one chunk while the next travels: use 2, 4 or 8, or remove chunks',
    ],
  },
  {
    name: 'a slot that the position does not have',
    spec: 'model: {preset: llama2-moe}\n  overlap: {slot: 4}',
    says: [
      'spec.overlap.slot: Invalid value: overlap.slot is 4, but this model has 3 slots (model.kind ScMoE, shortcut position 1): use a smaller slot or remove it',
    ],
  },
  {
    name: 'a slot without shortcut schedule',
    spec: 'overlap: {strategy: Sequential, slot: 2}',
    says: [
      'spec.overlap.slot: Invalid value: overlap.slot is 2, which overlap.strategy Sequential does not have: remove slot, or use strategy Auto or Shortcut',
    ],
  },
  {
    name: "the port of the worker's own server",
    spec: 'network: {port: 8080}',
    says: [
      'spec.network.port: Invalid value: network.port is 8080, where the worker answers probes and progress requests (network.httpPort 8080): change one of them',
    ],
  },
  {
    name: 'a back-off that starts above its end',
    spec: 'failurePolicy: {backoff: {initialSeconds: 301}}',
    says: [
      'spec.failurePolicy.backoff.initialSeconds: Invalid value: failurePolicy.backoff.initialSeconds is 301, more than maxSeconds 300: raise maxSeconds or lower initialSeconds',
    ],
  },
  {
    name: 'a rule about everything and one about nothing',
    spec: 'failurePolicy: {rules: [{action: FailJob}, {action: RestartJob, onExitCodes: {operator: In, values: [1]}, onPodConditions: [{type: DisruptionTarget}]}]}',
    says: [
      'spec.failurePolicy.rules: Invalid value: every rule of failurePolicy.rules is about either exit codes or pod conditions: set exactly one of onExitCodes and onPodConditions',
    ],
  },
  {
    name: 'a deadline on progress that nobody looks at in time',
    spec: 'progressDeadlineSeconds: 29',
    says: [
      'spec.progressDeadlineSeconds: Invalid value: progressDeadlineSeconds is 29, but progress is read only every 15 s (reporting.intervalSeconds): use at least twice that, or report more often',
    ],
  },
  {
    name: 'a folder outside the volume',
    spec: 'checkpoint: {volume: {emptyDir: {}}, subPath: a/../../b}',
    says: [
      'spec.checkpoint.subPath: Invalid value: checkpoint.subPath is a/../../b: use a path inside the volume, without a leading / and without ..',
    ],
  },
  {
    name: 'two mistakes at once',
    spec: 'model: {blocks: 3}\n  network: {port: 8080}',
    says: [
      'spec.model.blocks: Invalid value: model.blocks is 3, which is not a multiple of model.moeLayerFrequency 2, the number of blocks for each MoE layer: change one of them',
      'spec.network.port: Invalid value: network.port is 8080, where the worker answers probes and progress requests (network.httpPort 8080): change one of them',
    ],
  },
  {
    name: 'a bound and a rule at once',
    spec: 'workers: {replicas: 1025}\n  model: {experts: 1025}',
    says: [
      'spec.workers.replicas: Invalid value: 1025: spec.workers.replicas in body should be less than or equal to 1024',
      'spec.model.experts: Invalid value: 1025: spec.model.experts in body should be less than or equal to 1024',
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 8, which is not a multiple of 1025 ranks (workers.replicas, times workers.gpusPerWorker with GPUs) times training.microBatches 1: every rank takes an equal share, so change one of them',
    ],
  },
]

export const CASES: readonly Case[] = [...SCHEMA, ...RULE_CASES]

/** The file of a case. */
export function yamlOf({ spec, job = 'case' }: Pick<Case, 'spec' | 'job'>): string {
  const training = spec.includes('training:') ? '' : '  training: {steps: 10}\n'
  return `apiVersion: ${API_VERSION}\nkind: ${KIND}\nmetadata:\n  name: ${job}\nspec:\n${training}  ${spec}\n`
}
