// Jobs that are refused, each with everything that is said about it: `scmoe validate` (tests/unit) and a real API server (tests/api)
// have to give exactly these lines.

export interface Case {
  name: string
  /** Lines below `spec:` besides training.steps. */
  spec: string
  job?: string
  says: string[]
}

const named =
  'must be a DNS label that starts with a letter (a-z, 0-9, -) of at most 51 characters, because pods are called <name>-worker-<i>: choose another name'
const type = (path: string, wanted: string, found: string) =>
  `${path}: Invalid value: "${found}": ${path} in body must be of type ${wanted}: "${found}"`
const least = (path: string, value: number, minimum: number) =>
  `${path}: Invalid value: ${value}: ${path} in body should be greater than or equal to ${minimum}`
const container = 'spec.workers.template.spec.containers[0]'
const withContainer = (fields: string) => `workers: {template: {spec: {containers: [{name: worker, ${fields}}]}}}`

/** What the schema refuses. */
const SCHEMA: Case[] = [
  { name: 'an unknown field', spec: 'modle: {}', says: ['unknown field "spec.modle"'] },
  {
    name: 'a typo in the pod template',
    spec: withContainer('imag: x, env: [{nam: A, name: A}]'),
    says: [`unknown field "${container}.imag"`, `unknown field "${container}.env[0].nam"`],
  },
  {
    name: 'a name in the pod template',
    spec: 'workers: {template: {metadata: {name: x}}}',
    says: ['unknown field "spec.workers.template.metadata.name"'],
  },
  {
    name: 'a volume with a name',
    spec: 'checkpoint: {volume: {name: a, emptyDir: {}}}',
    says: [
      'unknown field "spec.checkpoint.volume.name"',
      'spec.checkpoint.volume: Too many: 2: must have at most 1 item',
    ],
  },
  {
    name: 'a text for a number',
    spec: 'model: {experts: "8"}',
    says: [type('spec.model.experts', 'integer', 'string')],
  },
  {
    name: 'a number for a text',
    spec: 'model: {capacityFactor: 2}',
    says: [type('spec.model.capacityFactor', 'string', 'integer')],
  },
  {
    name: 'a fraction for a whole number',
    spec: 'model: {blocks: 2.5}',
    says: [type('spec.model.blocks', 'integer', 'number')],
  },
  { name: 'a word for a switch', spec: 'suspend: "yes"', says: [type('spec.suspend', 'boolean', 'string')] },
  { name: 'a list for an object', spec: 'checkpoint: []', says: [type('spec.checkpoint', 'object', 'array')] },
  {
    name: 'a wrong type deep in the pod template',
    spec: withContainer('ports: [{containerPort: http}], args: [null]'),
    says: [
      type(`${container}.ports[0].containerPort`, 'integer', 'string'),
      type(`${container}.args[0]`, 'string', 'null'),
    ],
  },
  {
    name: 'a fraction of a cpu without quotes',
    spec: withContainer('resources: {limits: {cpu: 0.5}}'),
    says: [type(`${container}.resources.limits.cpu`, 'integer,string', 'number')],
  },
  {
    name: 'a number as annotation',
    spec: 'workers: {template: {metadata: {annotations: {a: 1}}}}',
    says: [type('spec.workers.template.metadata.annotations.a', 'string', 'integer')],
  },
  {
    name: 'a variable given twice',
    spec: withContainer('env: [{name: A, value: "1"}, {name: A, value: "2"}]'),
    says: [`${container}.env[1]: Duplicate value: {"name":"A"}`],
  },
  {
    name: 'a container without name',
    spec: 'workers: {template: {spec: {containers: [{image: x}]}}}',
    says: [`${container}.name: Required value`],
  },
  { name: 'a checkpoint without volume', spec: 'checkpoint: {}', says: ['spec.checkpoint.volume: Required value'] },
  {
    name: 'a volume without source',
    spec: 'checkpoint: {volume: {}}',
    says: [
      'spec.checkpoint.volume: Invalid value: 0: spec.checkpoint.volume in body should have at least 1 properties',
    ],
  },
  { name: 'no workers', spec: 'workers: {replicas: 0}', says: [least('spec.workers.replicas', 0, 1)] },
  { name: 'no heads', spec: 'model: {heads: 0}', says: [least('spec.model.heads', 0, 1)] },
  {
    name: 'reports every second',
    spec: 'reporting: {intervalSeconds: 1}',
    says: [least('spec.reporting.intervalSeconds', 1, 5)],
  },
  {
    name: 'a topK of 3',
    spec: 'model: {topK: 3}',
    says: ['spec.model.topK: Invalid value: 3: spec.model.topK in body should be less than or equal to 2'],
  },
  {
    name: 'an unknown kind',
    spec: 'model: {kind: Top3}',
    says: ['spec.model.kind: Unsupported value: "Top3": supported values: "Top2", "SharedExpert", "ScMoE"'],
  },
  {
    name: 'a decimal comma',
    spec: 'training: {steps: 1, optimizer: {learningRate: "0,1"}}',
    says: [
      'spec.training.optimizer.learningRate: Invalid value: "0,1": spec.training.optimizer.learningRate in body should match \'^[0-9]+(\\.[0-9]+)?([eE]-?[0-9]{1,2})?$\'',
    ],
  },
  {
    name: 'an endless decimal',
    spec: `model: {capacityFactor: "${'1'.repeat(33)}"}`,
    says: ['spec.model.capacityFactor: Too long: may not be more than 32 bytes'],
  },
  {
    name: 'an empty path',
    spec: 'data: {path: ""}',
    says: ['spec.data.path: Invalid value: "": spec.data.path in body should be at least 1 chars long'],
  },
  { name: 'no steps', spec: 'training: {}', says: ['spec.training.steps: Required value'] },
]

/** What rules refuse: at least one case per rule (checked). */
const RULES: Case[] = [
  { name: 'a name too long for pods', spec: '', job: 'a'.repeat(52), says: [`metadata.name: Invalid value: ${named}`] },
  { name: 'a name with a dot', spec: '', job: 'a.b', says: [`metadata.name: Invalid value: ${named}`] },
  {
    name: 'an odd number of blocks',
    spec: 'model: {blocks: 3}',
    says: [
      'spec.model.blocks: Invalid value: model.blocks is 3, but every second block carries the MoE layer: use an even number',
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
      'spec.model.topK: Invalid value: every token goes to 2 experts (model.topK, or its default for kind Top2), but model.experts is 1: use more experts or a smaller topK',
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
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 6, which is not a multiple of workers.replicas 4: every worker takes an equal share, so change one of them',
    ],
  },
  {
    name: 'two sources of data',
    spec: 'data: {builtin: sotu, path: /data/a.txt}',
    says: [
      'spec.data: Invalid value: set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    ],
  },
  {
    name: 'no source of data',
    spec: 'data: {}',
    says: [
      'spec.data: Invalid value: set exactly one of data.builtin and data.path, or leave data out to train on builtin moby-dick',
    ],
  },
  {
    name: 'experts that ranks cannot share',
    spec: 'model: {experts: 6}\n  workers: {replicas: 4}',
    says: [
      'spec.parallelism.expertParallelSize: Invalid value: 4 ranks (parallelism.expertParallelSize, or by default workers.replicas) cannot share model.experts 6 equally: use a size that divides model.experts',
    ],
  },
  {
    name: 'groups that do not fill the workers',
    spec: 'parallelism: {expertParallelSize: 4}\n  workers: {replicas: 2}',
    says: [
      'spec.parallelism.expertParallelSize: Invalid value: parallelism.expertParallelSize is 4, which does not divide workers.replicas 2: use a size that does, or leave it out for one group of all workers',
    ],
  },
  {
    name: 'a shortcut that is not there',
    spec: 'model: {kind: Top2}\n  overlap: {strategy: Shortcut}',
    says: [
      'spec.overlap.strategy: Invalid value: overlap.strategy is Shortcut, but model.kind Top2 has no shortcut to overlap with: use Auto or Sequential, or model.kind ScMoE',
    ],
  },
  {
    name: 'a slot without shortcut',
    spec: 'overlap: {strategy: Sequential, slot: 2}',
    says: [
      'spec.overlap.slot: Invalid value: overlap.slot is 2, which only model.kind ScMoE with overlap.strategy Auto or Shortcut has (here: ScMoE, Sequential): remove overlap.slot',
    ],
  },
  {
    name: "the port of the worker's own server",
    spec: 'network: {port: 8080}',
    says: [
      'spec.network.port: Invalid value: network.port is 8080, where the worker answers probes and progress requests: use another port',
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
      'spec.model.blocks: Invalid value: model.blocks is 3, but every second block carries the MoE layer: use an even number',
      'spec.network.port: Invalid value: network.port is 8080, where the worker answers probes and progress requests: use another port',
    ],
  },
  {
    name: 'a bound and a rule at once',
    spec: 'workers: {replicas: 1025}\n  model: {experts: 1025}',
    says: [
      'spec.workers.replicas: Invalid value: 1025: spec.workers.replicas in body should be less than or equal to 1024',
      'spec.model.experts: Invalid value: 1025: spec.model.experts in body should be less than or equal to 1024',
      'spec.training.globalBatchSequences: Invalid value: training.globalBatchSequences is 8, which is not a multiple of workers.replicas 1025: every worker takes an equal share, so change one of them',
    ],
  },
]

export const CASES: readonly Case[] = [...SCHEMA, ...RULES]

/** The file of a case. */
export function yamlOf({ spec, job = 'case' }: Pick<Case, 'spec' | 'job'>): string {
  const training = spec.includes('training:') ? '' : '  training: {steps: 10}\n'
  return `apiVersion: scmoe.dev/v1alpha1\nkind: ScMoEJob\nmetadata:\n  name: ${job}\nspec:\n${training}  ${spec}\n`
}
