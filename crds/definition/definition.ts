// The CustomResourceDefinition as an object: a structural OpenAPI schema made from the zod schemas,
// with rules, printer columns and subresources.

import { z } from 'zod'
import { GROUP, KIND, PLURAL, VERSION } from '../contract.ts'
import type { SchemaRule } from '../rule.ts'
import { RULES } from '../rules.ts'
import { ScMoEJobSpec } from '../scmoejob.ts'
import { ScMoEJobStatus } from '../status.ts'
import podSchemas from './pod-template.generated.json' with { type: 'json' }
import { TRANSITIONS } from './transitions.ts'

/** A structural schema, as Kubernetes defines it for custom resources. */
export interface Schema {
  type?: string
  description?: string
  default?: unknown
  format?: string
  pattern?: string
  enum?: unknown[]
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  maxItems?: number
  minProperties?: number
  maxProperties?: number
  required?: string[]
  properties?: Record<string, Schema>
  additionalProperties?: Schema | boolean
  items?: Schema
  'x-kubernetes-validations'?: { rule: string; messageExpression: string; fieldPath?: string }[]
  'x-kubernetes-list-type'?: string
  'x-kubernetes-list-map-keys'?: string[]
  'x-kubernetes-int-or-string'?: boolean
  'x-kubernetes-map-type'?: string
}

export interface Column {
  name: string
  type: 'string' | 'integer' | 'date'
  jsonPath: string
  description: string
  priority?: 1
}

export const COLUMNS: readonly Column[] = [
  { name: 'State', type: 'string', jsonPath: '.status.state', description: 'State of the job, in one word.' },
  { name: 'Ready', type: 'integer', jsonPath: '.status.workers.ready', description: 'Workers that are ready.' },
  {
    name: 'Workers',
    type: 'integer',
    jsonPath: '.spec.workers.replicas',
    description: 'Workers that the job asks for.',
  },
  { name: 'Step', type: 'integer', jsonPath: '.status.progress.step', description: 'Optimizer steps done.' },
  {
    name: 'Tok/s',
    type: 'integer',
    jsonPath: '.status.throughput.tokensPerSecond',
    description: 'Tokens per second over all ranks.',
  },
  {
    name: 'Overlap',
    type: 'integer',
    jsonPath: '.status.throughput.overlapPercent',
    description: 'Percent of the time of the all-to-alls that is hidden behind computation.',
  },
  {
    name: 'ETA',
    type: 'integer',
    jsonPath: '.status.progress.estimatedRemainingSeconds',
    description: 'Seconds until the last step.',
  },
  { name: 'Restarts', type: 'integer', jsonPath: '.status.restarts', description: 'Restarts of the gang so far.' },
  { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since creation.' },
  {
    name: 'Total',
    type: 'integer',
    jsonPath: '.spec.training.steps',
    description: 'Optimizer steps that the job asks for.',
    priority: 1,
  },
  {
    name: 'Loss',
    type: 'integer',
    jsonPath: '.status.progress.lossMilli',
    description: 'Training loss in thousandths of a nat per token.',
    priority: 1,
  },
  {
    name: 'Step-ms',
    type: 'integer',
    jsonPath: '.status.throughput.stepTimeMilliseconds',
    description: 'Time of one optimizer step in milliseconds.',
    priority: 1,
  },
  {
    name: 'Schedule',
    type: 'string',
    jsonPath: '.status.throughput.schedule',
    description: 'The schedule in use.',
    priority: 1,
  },
  {
    name: 'Ckpt',
    type: 'integer',
    jsonPath: '.status.lastCheckpoint.step',
    description: 'Step of the newest complete checkpoint.',
    priority: 1,
  },
  {
    name: 'Reason',
    type: 'string',
    jsonPath: '.status.reason',
    description: 'Why the job is in its state.',
    priority: 1,
  },
]

/** zod adds the bounds of safe integers, which say nothing that `type: integer` does not. */
const isUnbounded = (value: number | undefined) => value !== undefined && Math.abs(value) >= Number.MAX_SAFE_INTEGER

/**
 * Makes zod's schema structural: no `additionalProperties: false` beside properties, no pattern
 * beside the format date-time, a type for lists, and int64 for integers. /
 */
function structural(schema: Schema): Schema {
  const { additionalProperties: _, ...kept } = schema
  if (isUnbounded(kept.minimum)) delete kept.minimum
  if (isUnbounded(kept.maximum)) delete kept.maximum
  if (kept.enum?.every(Number.isInteger)) kept.type = 'integer'
  if (kept.type === 'integer') kept.format = 'int64'
  if (kept.format === 'date-time') delete kept.pattern
  if (kept.properties) {
    kept.properties = Object.fromEntries(
      Object.entries(kept.properties).map(([name, child]) => [name, structural(child)]),
    )
  }
  if (kept.items) {
    kept.items = structural(kept.items)
    // In a list of objects that have a `type`, such as conditions, it is the key.
    const keyed = kept.items.properties?.['type'] !== undefined
    Object.assign(
      kept,
      keyed
        ? { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] }
        : { 'x-kubernetes-list-type': 'atomic' },
    )
  }
  return kept
}

const openApi = (type: z.ZodType) =>
  defaulted(
    structural(
      z
        .custom<Schema>(value => typeof value === 'object')
        .parse(z.toJSONSchema(type, { target: 'openapi-3.0', io: 'input' })),
    ),
  )

/**
 * Puts the defaults of an object's fields into the object's own default, because the API server
 * asks the rules about that default as it is written. /
 */
function defaulted(schema: Schema): Schema {
  const properties = Object.fromEntries(
    Object.entries(schema.properties ?? {}).map(([name, child]) => [name, defaulted(child)]),
  )
  const full = schema.properties === undefined ? schema : { ...schema, properties }
  if (typeof full.default !== 'object' || full.default === null || Array.isArray(full.default)) return full
  const ofFields = Object.entries(properties).filter(([, child]) => child.default !== undefined)
  return {
    ...full,
    default: { ...Object.fromEntries(ofFields.map(([name, child]) => [name, child.default])), ...full.default },
  }
}

/** The schema at a dotted path from the object's root; '' is the root. Throws if there is none. */
export function schemaAt(root: Schema, path: string): Schema {
  let schema = root
  for (const name of path.split('.').filter(Boolean)) {
    const child = schema.properties?.[name]
    if (!child) throw new Error(`${path}: the schema has no property ${name}`)
    schema = child
  }
  return schema
}

function addRule(root: Schema, { at, field, rule, messageExpression }: SchemaRule): void {
  const target = schemaAt(root, at)
  const fieldPath = at === '' ? `.${field}` : field.slice(at.length)
  schemaAt(root, field)
  const validations = (target['x-kubernetes-validations'] ??= [])
  validations.push({ rule, messageExpression, ...(fieldPath !== '' && { fieldPath }) })
}

/** `openAPIV3Schema` of ScMoEJob. */
export function jobSchema(): Schema {
  const spec = openApi(ScMoEJobSpec)
  Object.assign(schemaAt(spec, 'workers.template'), podSchemas.template)
  // Kubernetes reads a volume without a source as an emptyDir, in which a checkpoint would be lost.
  Object.assign(schemaAt(spec, 'checkpoint.volume'), podSchemas.volume, { minProperties: 1, maxProperties: 1 })
  spec.description =
    'The model, the data and how to train. The API server fills in the defaults when the job is created.'
  const status: Schema = {
    ...openApi(ScMoEJobStatus),
    description: 'What the operator observed. Only the operator writes it.',
  }
  const root: Schema = {
    type: 'object',
    description: 'A training run of a mixture-of-experts model on a gang of workers.',
    required: ['spec'],
    properties: {
      apiVersion: { type: 'string' },
      kind: { type: 'string' },
      metadata: { type: 'object', properties: { name: { type: 'string' } } },
      spec,
      status,
    },
  }
  for (const rule of [...RULES, ...TRANSITIONS]) addRule(root, rule)
  return root
}

export function customResourceDefinition() {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${PLURAL}.${GROUP}` },
    spec: {
      group: GROUP,
      scope: 'Namespaced',
      names: {
        kind: KIND,
        listKind: `${KIND}List`,
        plural: PLURAL,
        singular: KIND.toLowerCase(),
        shortNames: ['scmoe'],
        categories: ['all'],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          subresources: {
            status: {},
            scale: {
              specReplicasPath: '.spec.workers.replicas',
              statusReplicasPath: '.status.workers.active',
              labelSelectorPath: '.status.workers.selector',
            },
          },
          additionalPrinterColumns: [...COLUMNS],
          schema: { openAPIV3Schema: jobSchema() },
        },
      ],
    },
  }
}
