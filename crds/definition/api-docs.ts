// The text of docs/api.md, made from the schema, the rules and the columns.

import { CONDITIONS } from '../advice.ts'
import { API_VERSION, KIND } from '../contract.ts'
import { PRESETS } from '../presets.ts'
import { fill } from '../rule.ts'
import { RULES } from '../rules.ts'
import type { State } from '../status.ts'
import { COLUMNS, jobSchema, type Schema, schemaAt } from './definition.ts'
import { IMMUTABLE, NEVER, TRANSITIONS, type Transition } from './transitions.ts'

/** Fields of Kubernetes' own types: the page names the type and leaves out what is in it. */
const FOREIGN: Record<string, string> = {
  'spec.workers.template': 'PodTemplateSpec',
  'spec.checkpoint.volume': 'Volume without name',
}

const STATES: Record<State, string> = {
  Pending: 'The operator has seen the job, but has not created anything yet.',
  Queued: 'Pods exist, but some of them have no node.',
  Starting: 'Pods exist and have their nodes, but not all workers are training yet.',
  Running: 'All workers are training.',
  Stalled: 'The workers run, but finish no step.',
  Restarting: 'A worker failed. The gang starts again from the newest checkpoint after a delay.',
  Suspended: '`suspend` is true, so the job has no pods.',
  Complete: 'All steps are done. Final.',
  Failed: 'The job will not be tried again; `status.lastFailure` says why. Final.',
}

interface Field {
  path: string
  schema: Schema
  isRequired: boolean
}

function* fields(schema: Schema, path: string): Generator<Field> {
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    const at = `${path}.${name}`
    yield { path: at, schema: child, isRequired: schema.required?.includes(name) ?? false }
    if (!(at in FOREIGN)) yield* child.items ? fields(child.items, `${at}[]`) : fields(child, at)
  }
}

function typeOf({ path, schema }: Field): string {
  const foreign = FOREIGN[path]
  if (foreign !== undefined) return foreign
  if (schema.enum) return schema.enum.map(String).join(', ')
  if (schema.type === 'array') return 'list'
  if (schema.format === 'date-time') return 'time'
  if (schema.type !== 'integer') return decimalOf(path) ?? schema.type ?? 'any'
  const { minimum, maximum } = schema
  if (minimum !== undefined && maximum !== undefined) return `integer ${minimum} … ${maximum}`
  return minimum === undefined ? 'integer' : `integer from ${minimum}`
}

/** A decimal is a text for the schema; the rule about its form tells it. */
function decimalOf(path: string): string | undefined {
  const about = RULES.filter(({ field }) => field === path).map(({ message }) => message)
  if (!about.some(message => message.includes('a decimal number of digits'))) return undefined
  return about.some(message => message.includes('the word none')) ? 'decimal in quotes, or none' : 'decimal in quotes'
}

/** The default of an object, without the values that are defaults of its fields. */
const ownDefault = ({ default: value, properties = {} }: Schema): object =>
  Object.fromEntries(Object.entries(Object(value)).filter(([name]) => properties[name]?.default === undefined))

function fallback({ schema, isRequired }: Field): string {
  if (isRequired) return 'required'
  const value = typeof schema.default === 'object' ? ownDefault(schema) : schema.default
  const said = typeof value === 'string' ? value : JSON.stringify(value)
  return said === undefined || said === '{}' ? '' : `\`${said}\``
}

function changes(path: string): Transition['changes'] | 'any time' {
  const own = TRANSITIONS.find(({ field }) => field === path)
  const above = TRANSITIONS.find(({ field, changes: when }) => when !== 'in part' && path.startsWith(`${field}.`))
  // A field without a rule of its own may have parts with rules.
  const hasParts = TRANSITIONS.some(({ field }) => field.startsWith(`${path}.`))
  return own?.changes ?? above?.changes ?? (hasParts ? 'in part' : 'any time')
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;')
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => '---'), ...rows].map(row => `| ${row.map(cell).join(' | ')} |`).join('\n')
const code = (text: string) => `\`${text}\``
/** The message with each `{term}` in italics. */
const readable = (template: string) => fill(template, name => `*${name}*`)

/** The table of values that each preset has for the fields of spec.model. */
function presets(root: Schema): string {
  const columns = Object.values(PRESETS).map(
    preset => new Map<string, string | number | boolean>(Object.entries(preset)),
  )
  const governed = Object.keys(schemaAt(root, 'spec.model').properties ?? {}).filter(name =>
    columns.some(preset => preset.has(name)),
  )
  const rows = governed.map(name => [code(name)].concat(columns.map(preset => String(preset.get(name) ?? 'as heads'))))
  return table(['Field', ...Object.keys(PRESETS).map(code)], rows)
}

/** The text of docs/api.md. */
export function apiDocs(): string {
  const root = jobSchema()
  const spec = [...fields(schemaAt(root, 'spec'), 'spec')]
  const status = [...fields(schemaAt(root, 'status'), 'status')]
  return `<!-- Generated by \`npm run generate\`; do not edit. -->
# ${KIND} ${API_VERSION}

${root.description} Its short name
is \`scmoe\`, its category \`all\`. The API server fills in the defaults and refuses a job that breaks a
bound or a rule, with a message that says what to do. \`scmoe validate FILE\` says the same without a
cluster.

## spec

*Changes* says when an update may change the field; *in part* means that the fields below it differ.

${table(
  ['Field', 'Type', 'Default', 'Changes', 'Meaning'],
  spec.map(field => [
    code(field.path),
    typeOf(field),
    fallback(field),
    changes(field.path),
    field.schema.description ?? '',
  ]),
)}

Fractions are decimals in quotes, because Kubernetes APIs have no floats. \`workers.template\` and
\`checkpoint.volume\` have the full schema of Kubernetes, so a typo in them is refused too. Nothing in
the template is required.

## Presets

Fields of \`spec.model\` that a job leaves out have the value of \`spec.model.preset\`, or of \`tiny\` if
there is no preset. The API server does not store these values.

${presets(root)}

## Rules between fields

${table(
  ['Field', 'Message'],
  RULES.map(({ field, message }) => [code(field), readable(message)]),
)}

## Rules for updates

For a field whose *Changes* is *never* the message ends with: ${NEVER}.

A change *while suspended* needs a job that is suspended already; the same update may resume it.

${table(
  ['Field', 'Message'],
  TRANSITIONS.filter(({ rule }) => rule !== IMMUTABLE).map(({ field, message }) => [code(field), readable(message)]),
)}

## status

${table(
  ['Field', 'Type', 'Meaning'],
  status.map(field => [code(field.path), typeOf(field), field.schema.description ?? '']),
)}

### status.state

${table(['State', 'Meaning'], Object.entries(STATES))}

### status.conditions

${table(
  ['Condition', 'True when'],
  Object.entries(CONDITIONS).map(([type, { meaning }]) => [type, meaning]),
)}

## kubectl get scmoejobs

Columns marked *wide* are shown with \`--output wide\`. \`kubectl scale\` sets \`spec.workers.replicas\`
while the job is suspended, or at any time if the job has \`minReplicas\`.

${table(
  ['Column', 'From', '', 'Meaning'],
  COLUMNS.map(({ name, jsonPath, priority, description }) => [
    name.toUpperCase(),
    code(jsonPath.slice(1)),
    priority ? 'wide' : '',
    description,
  ]),
)}
`
}
