// Jobs that the schema refuses: unknown fields, wrong types, broken bounds.

export interface Case {
  name: string
  /** Lines below `spec:`, without training.steps. */
  spec: string
  job?: string
  says: string[]
}

const type = (path: string, wanted: string, found: string) =>
  `${path}: Invalid value: "${found}": ${path} in body must be of type ${wanted}: "${found}"`
const least = (path: string, value: number, minimum: number) =>
  `${path}: Invalid value: ${value}: ${path} in body should be greater than or equal to ${minimum}`
const container = 'spec.workers.template.spec.containers[0]'
const withContainer = (fields: string) => `workers: {template: {spec: {containers: [{name: worker, ${fields}}]}}}`

export const SCHEMA: readonly Case[] = [
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
  {
    name: 'a rule for success',
    spec: 'failurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [0]}}]}',
    says: [least('spec.failurePolicy.rules[0].onExitCodes.values[0]', 0, 1)],
  },
  {
    name: 'a pod condition given twice',
    spec: 'failurePolicy: {rules: [{action: FailJob, onPodConditions: [{type: Ready}, {type: Ready}]}]}',
    says: ['spec.failurePolicy.rules[0].onPodConditions[1]: Duplicate value: {"type":"Ready"}'],
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
    name: 'an unknown preset',
    spec: 'model: {preset: gpt5}',
    says: [
      'spec.model.preset: Unsupported value: "gpt5": supported values: "tiny", "gpt2-moe-small", "gpt2-moe-medium", "gpt3-moe-xl", "llama2-moe"',
    ],
  },
  {
    name: 'a shortcut position of 4',
    spec: 'model: {shortcutPosition: 4}',
    says: ['spec.model.shortcutPosition: Unsupported value: 4: supported values: "1", "2", "3"'],
  },
  {
    name: '3 chunks',
    spec: 'overlap: {chunks: 3}',
    says: ['spec.overlap.chunks: Unsupported value: 3: supported values: "1", "2", "4", "8"'],
  },
  {
    name: 'a null that is no value',
    spec: 'checkpoint: {volume: {hostPath: {path: null}}}',
    says: ['spec.checkpoint.volume.hostPath.path: Required value'],
  },
  {
    name: 'an unknown kind',
    spec: 'model: {kind: Top3}',
    says: [
      'spec.model.kind: Unsupported value: "Top3": supported values: "Dense", "Top1", "Top2", "SharedExpert", "ScMoE", "DGMoE"',
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
  {
    name: 'too many exit codes',
    spec: `failurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [${'1, '.repeat(255)}1]}}]}`,
    says: ['spec.failurePolicy.rules[0].onExitCodes.values: Too many: 256: must have at most 255 items'],
  },
  { name: 'no steps', spec: 'training: {}', says: ['spec.training.steps: Required value'] },
]
