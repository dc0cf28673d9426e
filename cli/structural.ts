// Does with an object what the API server does before it evaluates the CEL rules: refuses unknown
// fields, fills in defaults, checks types and bounds. The messages are those of the API server;
// tests/api/crds/refusals.test.ts compares them.

import type { Schema } from '../crds/definition/definition.ts'
import { isRecord } from '../crds/json.ts'
import { type Path, pathText } from './path.ts'
import { add, inRange, ofDuplicate, ofTooMany, rename, retype, word } from './remedy.ts'

export { type Path, pathText } from './path.ts'

export interface Problem {
  path: Path
  /** The text after `path: `; for an unknown field the whole line. */
  message: string
  /** The remedy, in words that the API server does not have. */
  remedy?: string
  /** The API server does not evaluate the CEL rules if any problem is blocking. */
  blocking: boolean
}

/** Go's name of a value's type. */
function typeName(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number'
  return typeof value
}

function* children(value: unknown, schema: Schema, path: Path): Generator<[unknown, Schema | undefined, Path]> {
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) yield [item, schema.items, [...path, i]]
  } else if (isRecord(value)) {
    const rest = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined
    for (const [name, item] of Object.entries(value)) yield [item, schema.properties?.[name] ?? rest, [...path, name]]
  }
}

/** One problem for each field that the schema does not have. */
export function unknownFields(value: unknown, schema: Schema, path: Path = [], root = schema): Problem[] {
  return [...children(value, schema, path)].flatMap(([item, child, at]) => {
    if (child) return unknownFields(item, child, at, root)
    // A list in the place of an object, or an object in the place of a list, is a wrong type.
    if (!isRecord(value) || !(schema.properties || schema.additionalProperties)) return []
    const remedy = rename(at, Object.keys(schema.properties ?? {}), root)
    return [{ path: at, message: `unknown field "${pathText(at)}"`, remedy, blocking: true }]
  })
}

/** A copy with the schema's defaults. A field that is null counts as a field that is not set. */
export function withDefaults(value: unknown, schema: Schema): unknown {
  if (Array.isArray(value)) return value.map(item => (schema.items ? withDefaults(item, schema.items) : item))
  if (!isRecord(value)) return value
  const filled: Record<string, unknown> = Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null))
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    if (filled[name] === undefined && child.default !== undefined) filled[name] = structuredClone(child.default)
  }
  for (const [item, child, at] of children(filled, schema, [])) {
    if (child) filled[String(at[0])] = withDefaults(item, child)
  }
  return filled
}

/** Every problem that the schema alone finds, in a value with its defaults. */
export function schemaProblems(value: unknown, schema: Schema, path: Path = []): Problem[] {
  const problem = (message: string, remedy: string, blocking = true): Problem => ({ path, message, remedy, blocking })
  const inBody = (text: string) => `${pathText(path)} in body ${text}`
  if (!hasType(value, schema)) {
    const wanted = schema['x-kubernetes-int-or-string'] ? 'integer,string' : schema.type
    const found = `"${typeName(value)}"`
    return [problem(`Invalid value: ${found}: ${inBody(`must be of type ${wanted}: ${found}`)}`, retype(value, schema))]
  }
  const own = [...bounds(value, schema)].map(({ text, message, remedy, blocking }) =>
    problem(message ?? `Invalid value: ${JSON.stringify(value)}: ${inBody(text ?? '')}`, remedy, blocking ?? false),
  )
  if (isRecord(value)) {
    for (const name of schema.required ?? []) {
      const remedy = add(name, schema.properties?.[name])
      if (value[name] === undefined)
        own.push({ path: [...path, name], message: 'Required value', remedy, blocking: true })
    }
    if (schema.minProperties && Object.keys(value).length < schema.minProperties) {
      own.push(
        problem(
          `Invalid value: ${Object.keys(value).length}: ${inBody(`should have at least ${schema.minProperties} properties`)}`,
          retype(value, schema),
          false,
        ),
      )
    }
  }
  if (Array.isArray(value)) own.push(...duplicates(value, schema, path))
  return [
    ...own,
    ...[...children(value, schema, path)].flatMap(([item, child, at]) =>
      child ? schemaProblems(item, child, at) : [],
    ),
  ]
}

function hasType(value: unknown, schema: Schema): boolean {
  const type = typeName(value)
  if (schema['x-kubernetes-int-or-string']) return type === 'integer' || type === 'string'
  return schema.type === undefined || type === schema.type || (schema.type === 'number' && type === 'integer')
}

interface Refusal {
  /** The text after `<path> in body `. */
  text?: string
  /** The whole message, if it has another form. */
  message?: string
  remedy: string
  blocking?: boolean
}

function* bounds(value: unknown, schema: Schema): Generator<Refusal> {
  if (Array.isArray(value) && schema.maxItems !== undefined && value.length > schema.maxItems) {
    const most = schema.maxItems === 1 ? '1 item' : `${schema.maxItems} items`
    const message = `Too many: ${value.length}: must have at most ${most}`
    yield { message, remedy: `keep at most ${most}`, blocking: true }
  }
  if (typeof value === 'number') {
    if (schema.minimum !== undefined && value < schema.minimum)
      yield { text: `should be greater than or equal to ${schema.minimum}`, remedy: inRange(schema) }
    if (schema.maximum !== undefined && value > schema.maximum)
      yield { text: `should be less than or equal to ${schema.maximum}`, remedy: inRange(schema) }
  }
  if (typeof value === 'string') {
    const length = Array.from(value).length
    if (schema.minLength !== undefined && length < schema.minLength)
      yield { text: `should be at least ${schema.minLength} chars long`, remedy: 'give it a value, or remove it' }
    if (schema.maxLength !== undefined && length > schema.maxLength) {
      const message = `Too long: may not be more than ${schema.maxLength} bytes`
      yield { message, remedy: `shorten it from ${length} to ${schema.maxLength} characters`, blocking: true }
    }
    // Fields of our own have rules in their place, whose messages say what to do.
    if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test(value))
      yield { text: `should match '${schema.pattern}'`, remedy: 'use a value of this form' }
  }
  if (schema.enum && !schema.enum.includes(value)) {
    const supported = schema.enum.map(each => JSON.stringify(String(each))).join(', ')
    const message = `Unsupported value: ${JSON.stringify(value)}: supported values: ${supported}`
    yield { message, remedy: word(value, schema), blocking: true }
  }
  if (isRecord(value) && schema.maxProperties !== undefined && Object.keys(value).length > schema.maxProperties) {
    const limit = schema.maxProperties === 1 ? '1 item' : `${schema.maxProperties} items`
    const message = `Too many: ${Object.keys(value).length}: must have at most ${limit}`
    yield { message, remedy: ofTooMany(value), blocking: true }
  }
}

/** One problem for each item of a set, or of a map by its keys, that is in the list already. */
function duplicates(items: readonly unknown[], schema: Schema, path: Path): Problem[] {
  const kind = schema['x-kubernetes-list-type']
  if (kind !== 'set' && kind !== 'map') return []
  const keys = [...(schema['x-kubernetes-list-map-keys'] ?? [])].toSorted()
  const seen = new Set<string>()
  return items.flatMap((item, i) => {
    if (kind === 'map' && !(isRecord(item) && keys.every(key => item[key] !== undefined))) return []
    const identity = JSON.stringify(
      isRecord(item) && kind === 'map' ? Object.fromEntries(keys.map(key => [key, item[key]])) : item,
    )
    if (!seen.has(identity)) {
      seen.add(identity)
      return []
    }
    const message = `Duplicate value: ${identity}`
    return [{ path: [...path, i], message, remedy: ofDuplicate(identity), blocking: false }]
  })
}
