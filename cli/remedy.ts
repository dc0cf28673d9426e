// Says what to do about a problem that the schema finds. The API server's own words name the field
// and its value, and rarely more. Pure.

import type { Schema } from '../crds/definition/definition.ts'
import { isRecord } from '../crds/json.ts'
import { nearWords } from './nearest.ts'
import { type Path, pathText } from './path.ts'

const quoted = (value: unknown) => JSON.stringify(value)
const INTEGER = /^\s*[-+]?\d+\s*$/
const SWITCHES: Readonly<Record<string, boolean>> = {
  yes: true,
  true: true,
  on: true,
  no: false,
  false: false,
  off: false,
}

/** For a value of a wrong type. */
export function retype(value: unknown, schema: Schema): string {
  if (value === null) return 'give it a value, or remove it'
  if (schema['x-kubernetes-int-or-string'] || schema.type === 'string') return asText(value)
  if (schema.type === 'integer' || schema.type === 'number') return asNumber(value, schema)
  if (schema.type === 'boolean') return asSwitch(value)
  if (schema.type === 'array')
    return `write a list: put "- " before each item${isRecord(value) ? ', also before the only one' : ''}`
  const names = Object.keys(schema.properties ?? {}).slice(0, 3)
  const some = names.length > 0 ? `, such as ${names.join(', ')}` : ''
  return `write fields below it${some}`
}

function asText(value: unknown): string {
  const isWord = typeof value === 'number' || typeof value === 'boolean'
  return isWord ? `write it in quotes: "${value}"` : 'write a text in quotes'
}

function asNumber(value: unknown, schema: Schema): string {
  if (typeof value === 'string' && INTEGER.test(value)) return `write it without quotes: ${Number(value)}`
  if (typeof value === 'number')
    return `write a whole number, such as ${Math.max(Math.round(value), schema.minimum ?? 0)}`
  return `write a whole number${range(schema)}`
}

function asSwitch(value: unknown): string {
  const meant =
    typeof value === 'string' && Object.hasOwn(SWITCHES, value.toLowerCase())
      ? SWITCHES[value.toLowerCase()]
      : undefined
  return meant === undefined ? 'write true or false' : `write it without quotes: ${meant}`
}

function range({ minimum, maximum }: Schema): string {
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`
  if (minimum !== undefined) return ` of at least ${minimum}`
  return maximum === undefined ? '' : ` of at most ${maximum}`
}

/** For a number outside its bounds. */
export const inRange = (schema: Schema) => `use a number${range(schema)}`

/** For a word that is none of the words of the schema. */
export function word(value: unknown, schema: Schema): string {
  const words = (schema.enum ?? []).map(String)
  const [near] = nearWords(String(value), words)
  return near === undefined ? 'use one of these' : `did you mean ${near}?`
}

/** For a field that is missing. */
export function add(name: string, schema: Schema | undefined): string {
  const what = schema?.description === undefined ? '' : ` (${schema.description.split('. ')[0]?.replace(/\.$/, '')})`
  return `add ${name}${what}`
}

const SHOWN = 12

/** For a field that the schema lacks at `path`; `root` is the schema of the whole object. */
export function rename(path: Path, fields: readonly string[], root: Schema): string {
  const name = String(path.at(-1))
  const [near] = nearWords(name, fields)
  if (near !== undefined) return `did you mean ${near}?`
  const elsewhere = placesOf(name, root).filter(place => place !== pathText(path))
  if (elsewhere.length > 0) return `did you mean ${elsewhere.slice(0, 2).join(' or ')}?`
  const shown = fields.slice(0, SHOWN).join(', ')
  return fields.length === 0
    ? 'remove it'
    : `remove it; the fields here are ${shown}${fields.length > SHOWN ? ', …' : ''}`
}

/** Kubernetes' own types are large, and their names say nothing about a field of a job. */
const FOREIGN = new Set(['spec.workers.template', 'spec.checkpoint.volume', 'status'])

/** The paths of the job's own fields with this name, in any case of letters. */
function placesOf(name: string, schema: Schema, path: Path = []): string[] {
  if (FOREIGN.has(pathText(path))) return []
  return Object.entries(schema.properties ?? {}).flatMap(([each, child]) => {
    const at = [...path, each]
    const own = each.toLowerCase() === name.toLowerCase() ? [pathText(at)] : []
    return [...own, ...placesOf(name, child, at)]
  })
}

export const ofDuplicate = (identity: string) => `remove one of the two with ${identity}`
export const ofTooMany = (value: object) => `keep one of ${Object.keys(value).map(quoted).join(', ')}`
