// Tests of the CRD's schema and of the files that are generated from it.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { withDefaults } from '../../../cli/structural.ts'
import { customResourceDefinition, jobSchema, type Schema, schemaAt } from '../../../crds/definition/definition.ts'
import { generated } from '../../../crds/definition/generate.ts'
import { podSchemas } from '../../../crds/definition/pod-template.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'

const FOREIGN = new Set(['spec.workers.template', 'spec.checkpoint.volume'])

/** Every field with its path, without the fields of Kubernetes' types below FOREIGN. */
function fields(schema: Schema, path: string): [string, Schema][] {
  const own = Object.entries(schema.properties ?? {}).flatMap(([name, child]) =>
    fields(child, path === '' ? name : `${path}.${name}`),
  )
  const items = schema.items ? fields(schema.items, `${path}[]`) : []
  return FOREIGN.has(path) ? [[path, schema]] : [[path, schema], ...own, ...items]
}
const spec = fields(schemaAt(jobSchema(), 'spec'), 'spec')
const status = fields(schemaAt(jobSchema(), 'status'), 'status')

describe('what is generated', () => {
  it.each(Object.entries(generated()))('%s is up to date (npm run generate)', (path, text) => {
    expect(readFileSync(path, 'utf8')).toBe(text)
  })

  it('the CRD fits into the annotation of client-side apply, with room to spare', () => {
    expect(Buffer.byteLength(JSON.stringify(customResourceDefinition()))).toBeLessThan(200_000)
  })

  it('the YAML says what the object says, also to a reader of YAML 1.1', () => {
    expect(parse(readFileSync('crds/scmoejob.yaml', 'utf8'), { version: '1.1' })).toEqual(
      JSON.parse(JSON.stringify(customResourceDefinition())),
    )
  })

  it("the chart's copy stays when the chart goes", () => {
    expect(generated()['charts/scmoe/templates/crd.yaml']).toContain('helm.sh/resource-policy: keep')
  })
})

describe('the schema', () => {
  it.each([...spec, ...status].filter(([path]) => !path.endsWith('[]')))('says what %s is', (_, { description }) => {
    expect(description).toMatch(/\.$/)
  })

  it.each(spec.concat(status).filter(([, { type }]) => type === 'string'))('bounds the text of %s', (_, schema) => {
    expect(schema.maxLength !== undefined || schema.enum !== undefined || schema.format === 'date-time').toBe(true)
  })

  it.each(spec.filter(([, schema]) => schema.type === 'integer' && !schema.enum))(
    'bounds the number %s',
    (_, schema) => {
      expect(schema.minimum).toBeTypeOf('number')
      expect(schema.maximum).toBeTypeOf('number')
    },
  )

  it('has no floats, and no list without a bound and a list type', () => {
    for (const [path, schema] of [...spec, ...status]) {
      expect({ path, type: schema.type }).not.toEqual({ path, type: 'number' })
      if (schema.type !== 'array') continue
      expect({ path, bound: typeof schema.maxItems }).toEqual({ path, bound: 'number' })
      expect({ path, list: typeof schema['x-kubernetes-list-type'] }).toEqual({ path, list: 'string' })
    }
  })

  it('tells conditions apart by their type', () => {
    const conditions = schemaAt(jobSchema(), 'status.conditions')
    expect(conditions).toMatchObject({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
  })

  // Broken once by a default on model.blocks, which hid the preset of the second job.
  it.each([
    { training: { steps: 1 } },
    { training: { steps: 1 }, model: { preset: 'llama2-moe', capacityFactor: 'none' } },
  ])('fills in the defaults that zod fills in, and none that a preset decides: %j', written => {
    const filled = ScMoEJobSpec.parse(written)
    expect(withDefaults(written, schemaAt(jobSchema(), 'spec'))).toEqual(filled)
    expect(Object.keys(filled.model)).not.toEqual(expect.arrayContaining(['blocks']))
    expect(filled.model.capacityFactor).toBe(written.model === undefined ? '2' : 'none')
  })
})

describe('the schema of the pod template', () => {
  it('needs the core API of Kubernetes', () => {
    expect(() => podSchemas({ components: { schemas: {} } })).toThrow('/openapi/v3/api/v1')
  })

  it('demands nothing, knows containers and lacks what only running pods have', () => {
    const template = schemaAt(jobSchema(), 'spec.workers.template')
    expect(schemaAt(template, 'spec').required).toBeUndefined()
    expect(schemaAt(template, 'spec.containers').items?.properties).toHaveProperty('image')
    expect(schemaAt(template, 'spec').properties).not.toHaveProperty('ephemeralContainers')
    expect(Object.keys(schemaAt(template, 'metadata').properties ?? {})).toEqual(['annotations', 'labels'])
  })
})
