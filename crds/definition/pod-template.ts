// The schema of `workers.template` and `checkpoint.volume`, taken from a real API server so that a
// typo in them is refused. This command rewrites crds/definition/pod-template.generated.json:
//
//   kubectl get --raw /openapi/v3/api/v1 | node crds/definition/pod-template.ts
//
// References are resolved and descriptions left out, because client-side apply keeps the whole CRD
// in one annotation of at most 262,144 bytes.

import { readFileSync, writeFileSync } from 'node:fs'
import { z } from 'zod'

/** The parts of a structural schema that the pod template needs. */
export interface Structural {
  type?: string
  format?: string
  default?: unknown
  properties?: Record<string, Structural>
  additionalProperties?: Structural
  items?: Structural
  required?: string[]
  [extension: `x-kubernetes-${string}`]: unknown
}

interface OpenApiSchema extends Omit<Structural, 'properties' | 'additionalProperties' | 'items'> {
  $ref?: string
  allOf?: OpenApiSchema[]
  properties?: Record<string, OpenApiSchema>
  additionalProperties?: OpenApiSchema
  items?: OpenApiSchema
}
const isObject = (value: unknown) => typeof value === 'object' && value !== null
export const OpenApi = z.object({
  components: z.object({ schemas: z.record(z.string(), z.custom<OpenApiSchema>(isObject)) }),
})
export type OpenApi = z.infer<typeof OpenApi>

const CORE = 'io.k8s.api.core.v1.'
const INT_OR_STRING = new Set([
  'io.k8s.apimachinery.pkg.api.resource.Quantity',
  'io.k8s.apimachinery.pkg.util.intstr.IntOrString',
])
/** Fields that only running pods get. */
const OMITTED = new Set(['ephemeralContainers'])
const KEPT = ['x-kubernetes-list-type', 'x-kubernetes-list-map-keys', 'x-kubernetes-map-type'] as const

function structural(api: OpenApi, schema: OpenApiSchema, keys: readonly string[] = []): Structural {
  const reference = schema.$ref ?? schema.allOf?.[0]?.$ref
  if (reference !== undefined) {
    const name = reference.replace('#/components/schemas/', '')
    const target = api.components.schemas[name]
    if (target === undefined) throw new Error(`${reference} is not in this document: give it /openapi/v3/api/v1`)
    return INT_OR_STRING.has(name) ? { 'x-kubernetes-int-or-string': true } : structural(api, target, keys)
  }
  const result: Structural = {}
  if (schema.type !== undefined) result.type = schema.type
  if (schema.format !== undefined) result.format = schema.format
  for (const extension of KEPT) if (schema[extension] !== undefined) result[extension] = schema[extension]
  if (schema.items) {
    result.items = structural(api, schema.items, z.array(z.string()).parse(schema['x-kubernetes-list-map-keys'] ?? []))
  }
  if (schema.additionalProperties) result.additionalProperties = structural(api, schema.additionalProperties)
  if (schema.properties) {
    const kept = Object.entries(schema.properties).filter(([name]) => !OMITTED.has(name))
    result.properties = Object.fromEntries(kept.map(([name, child]) => [name, structural(api, child)]))
    // Kubernetes refuses most defaults of core types ("" or 0) here; only keys of map lists need
    // one.
    for (const key of keys) {
      const child = result.properties[key]
      const fallback = schema.properties[key]?.default
      if (child && fallback !== undefined && !schema.required?.includes(key)) child.default = fallback
    }
  }
  if (schema.required) result.required = schema.required
  return result
}

function property(schema: Structural, name: string): Structural {
  const found = schema.properties?.[name]
  if (found === undefined) throw new Error(`the API server's schema has no property ${name}`)
  return found
}

/**
 * `template` has the fields of a pod template that a user may set, and requires none of them.
 * `volume` is a pod volume without its name. /
 */
export function podSchemas(api: OpenApi): { template: Structural; volume: Structural } {
  const template = structural(api, { $ref: `#/components/schemas/${CORE}PodTemplateSpec` })
  const volume = structural(api, { $ref: `#/components/schemas/${CORE}Volume` })
  const { labels, annotations } = { ...property(template, 'metadata').properties }
  if (!labels || !annotations) throw new Error("the API server's ObjectMeta has no labels or annotations")
  const { required: _, ...spec } = property(template, 'spec')
  const { name: __, ...sources } = volume.properties ?? {}
  return {
    template: {
      type: 'object',
      properties: { metadata: { type: 'object', properties: { annotations, labels } }, spec },
    },
    volume: { type: 'object', properties: sources },
  }
}

const podSchemasFile = new URL('pod-template.generated.json', import.meta.url)

if (import.meta.main) {
  const api = OpenApi.parse(JSON.parse(readFileSync(0, 'utf8')))
  writeFileSync(podSchemasFile, `${JSON.stringify(podSchemas(api))}\n`)
}
