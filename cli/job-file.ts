// Reads YAML or JSON files with ScMoEJobs, and finds every problem that the API server would find,
// each with its line.

import { readFileSync } from 'node:fs'
import { dirname, isAbsolute, resolve } from 'node:path'
import { type Document, isMap, isNode, isPair, isScalar, LineCounter, type ParsedNode, parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { API_VERSION, GROUP, KIND } from '../crds/contract.ts'
import { jobSchema, type Schema } from '../crds/definition/definition.ts'
import { isRecord } from '../crds/json.ts'
import { brokenRules } from '../crds/rules.ts'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { warningsOf } from '../crds/warnings.ts'
import { nearWords } from './nearest.ts'
import { type Path, pathText } from './path.ts'
import { causeOf } from './sentence.ts'
import { type Problem, schemaProblems, unknownFields, withDefaults } from './structural.ts'

/** A ScMoEJob that the API server would accept, with its defaults. */
export interface Job {
  name: string
  namespace: string | undefined
  spec: ScMoEJobSpec
  /** The object as it was written, with defaults in spec. */
  object: Record<string, unknown>
}

export type Finding =
  | { kind: 'job'; line: number; job: Job }
  /**
   * `message` has the words of the API server, `remedy` what to do if they do not say it, and
   * `path` the field.
   */
  | { kind: 'error'; line: number; message: string; remedy?: string; path?: string }
  /** The job is valid, but would probably not do what is meant. */
  | { kind: 'warning'; line: number; message: string; path?: string }
  /** An object of another kind is not checked. */
  | { kind: 'skipped'; line: number; message: string }
  | { kind: 'note'; line: number; message: string }

const NOT_CHECKED =
  'some validation rules were not checked because the object was invalid; correct the existing errors to complete validation'

/** The fields of ObjectMeta. */
const METADATA =
  'name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields'.split(
    ' ',
  )
const NAMELESS: Problem = {
  path: ['metadata', 'name'],
  message: 'Required value: name or generateName is required',
  blocking: true,
}

function metadataProblems(metadata: unknown): Problem[] {
  if (!isRecord(metadata)) return [NAMELESS]
  const problems: Problem[] = Object.keys(metadata)
    .filter(name => !METADATA.includes(name))
    .map(name => {
      const [near] = nearWords(name, METADATA)
      const remedy = near === undefined ? 'remove it' : `did you mean ${near}?`
      return { path: ['metadata', name], message: `unknown field "metadata.${name}"`, remedy, blocking: true }
    })
  if (!metadata['name'] && !metadata['generateName']) problems.push(NAMELESS)
  const texts: [Path, unknown][] = ['name', 'generateName', 'namespace'].map(field => [[field], metadata[field]])
  const maps: [Path, unknown][] = ['labels', 'annotations'].flatMap(field =>
    Object.entries(isRecord(metadata[field]) ? metadata[field] : {}).map(([key, value]): [Path, unknown] => [
      [field, key],
      value ?? 0,
    ]),
  )
  for (const [path, value] of [...texts, ...maps]) {
    if (value === undefined || value === null || typeof value === 'string') continue
    problems.push({ path: ['metadata', ...path], message: 'must be a string: put it in quotes', blocking: true })
  }
  return problems
}

/** Made once, because a file may hold a thousand jobs. */
let theSchema: Schema | undefined

/** The job with its defaults, or everything that is wrong with it. */
export function checkJob(object: Record<string, unknown>): Job | Problem[] {
  const schema = (theSchema ??= jobSchema())
  const { metadata, ...rest } = object
  const { metadata: _, ...properties } = schema.properties ?? {}
  const ours: typeof schema = { ...schema, properties }
  const filled = withDefaults(rest, ours)
  const { status: __, ...judged } = isRecord(filled) ? filled : {}
  const problems = [...unknownFields(rest, ours), ...metadataProblems(metadata), ...schemaProblems(judged, ours)]
  if (problems.some(({ blocking }) => blocking)) return problems
  const { name, generateName, namespace } = isRecord(metadata) ? metadata : {}
  // The API server appends five characters to a generateName before it asks the rules.
  const finalName = typeof name === 'string' ? name : `${String(generateName)}xxxxx`
  // The types are right here. If only a bound is broken, the rules are evaluated all the same, as
  // the API server does.
  const typed = z.custom<ScMoEJobSpec>(isRecord).parse(judged['spec'])
  const broken = brokenRules(typed, finalName)
  problems.push(
    ...broken.map(({ field, message }) => ({
      path: field.split('.'),
      message: `Invalid value: ${message}`,
      blocking: false,
    })),
  )
  if (problems.length > 0) return problems
  return {
    name: finalName,
    namespace: typeof namespace === 'string' ? namespace : undefined,
    spec: ScMoEJobSpec.parse(typed),
    object: { ...judged, metadata },
  }
}

/** The line of the deepest part of `path` that the file has. */
function lineOf(contents: ParsedNode | null, path: Path, lines: LineCounter): number {
  let node: unknown = contents
  let offset = contents?.range[0] ?? 0
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === part)
      if (!isPair(pair)) break
      if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset
      node = pair.value
    } else {
      const item: unknown =
        typeof part === 'number' && isNode(node) && 'items' in node && Array.isArray(node.items)
          ? node.items[part]
          : undefined
      if (!isNode(item)) break
      offset = item.range?.[0] ?? offset
      node = item
    }
  }
  return lines.linePos(offset).line
}

/** The findings in the text of a file, by document; errors in the order of their lines. */
export function readJobs(text: string): Finding[] {
  const lines = new LineCounter()
  // Kubernetes reads YAML 1.1 (yes and no are booleans).
  const documents = parseAllDocuments(text, { lineCounter: lines, version: '1.1' })
  if ('empty' in documents) return []
  // After a mistake in the syntax the rest is read wrongly, so only the first mistake is reported.
  const syntax = documents.flatMap(({ errors }) => errors)[0]
  if (syntax) return [syntaxError(lines.linePos(syntax.pos[0]).line, firstLine(syntax.message))]
  return documents.flatMap(document => {
    const lineAt = (path: Path) => lineOf(document.contents, path, lines)
    const value = valueOf(document)
    return 'refused' in value ? [syntaxError(lineAt([]), value.refused)] : judge(value.read, [], lineAt)
  })
}

/** An alias without an anchor is refused, and so many aliases that they would fill the memory. */
function valueOf(document: Document.Parsed): { read: unknown } | { refused: string } {
  try {
    return { read: document.toJS() }
  } catch (error) {
    return { refused: causeOf(error) }
  }
}

const firstLine = (text: string) => text.split('\n', 1)[0]?.replace(/:$/, '') ?? text

const syntaxError = (line: number, message: string): Finding => ({
  kind: 'error',
  line,
  message: `this is not YAML that Kubernetes reads: ${message}`,
})

/** The findings in the object at `base` of a document. */
function judge(object: unknown, base: Path, lineAt: (path: Path) => number): Finding[] {
  if (object === null) return []
  const line = lineAt(base)
  if (!isRecord(object)) {
    const found = Array.isArray(object) ? 'a list' : 'a single value'
    const remedy = `write apiVersion: ${API_VERSION}, kind: ${KIND}, metadata and spec; put --- between several jobs`
    return [{ kind: 'error', line, message: `${found} is no object of Kubernetes`, remedy }]
  }
  const { apiVersion, kind, items } = object
  if (typeof kind === 'string' && kind.endsWith('List') && Array.isArray(items))
    return items.flatMap((item, i) => judge(item, [...base, 'items', i], lineAt))
  const isOurs = kind === KIND || String(apiVersion).startsWith(`${GROUP}/`)
  if (!isOurs && kind === undefined && 'spec' in object) {
    const remedy = `write apiVersion: ${API_VERSION} and kind: ${KIND} above it`
    return [{ kind: 'error', line, message: 'the document has a spec, but no kind', remedy }]
  }
  if (!isOurs) return [{ kind: 'skipped', line, message: `${titleOf(object)}: not a ${KIND}, not checked` }]
  if (kind !== KIND || apiVersion !== API_VERSION) {
    const message = `no matches for kind "${String(kind)}" in version "${String(apiVersion)}": use kind ${KIND}, apiVersion ${API_VERSION}`
    return [{ kind: 'error', line, message }]
  }
  return verdict(object, path => lineAt([...base, ...path]))
}

/** e.g. `ConfigMap web`. */
function titleOf({ kind, metadata }: Record<string, unknown>): string {
  const name = isRecord(metadata) && typeof metadata['name'] === 'string' ? ` ${metadata['name']}` : ''
  return `${typeof kind === 'string' ? kind : 'a document without kind'}${name}`
}

/** The findings in one ScMoEJob; `lineAt` takes paths in it. */
function verdict(object: Record<string, unknown>, lineAt: (path: Path) => number): Finding[] {
  const line = lineAt([])
  const result = checkJob(object)
  if (!Array.isArray(result)) {
    const doubts = warningsOf(result.spec).map(({ path, message }): Finding => {
      return { kind: 'warning', line: lineAt(path.split('.')), message: `${path}: ${message}`, path }
    })
    return [{ kind: 'job', line, job: result }, ...doubts]
  }
  const findings = result.map(({ path, message, remedy }): Finding => {
    const text = message.startsWith('unknown field') ? '' : `${pathText(path)}: `
    return {
      kind: 'error',
      line: lineAt(path),
      message: `${text}${message}`,
      path: pathText(path),
      ...(remedy !== undefined && { remedy }),
    }
  })
  findings.sort((one, other) => one.line - other.line)
  if (result.some(({ blocking }) => blocking)) findings.push({ kind: 'note', line, message: NOT_CHECKED })
  return findings
}

/** The words of a finding for people. */
export const textOf = ({ message, remedy }: { message: string; remedy?: string }): string =>
  remedy === undefined ? message : `${message}: ${remedy}`

/** The text of a file, or of standard input for `-`. Throws JobFileError. */
export function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (error) {
    throw new JobFileError(`${file} cannot be read (${causeOf(error)}): give a YAML or JSON file with a ${KIND}`)
  }
}

/** The one job of a file. Throws JobFileError if it has none, several, or one that is not valid. */
export function readJob(file: string): Job {
  const findings = readJobs(readText(file))
  const errors = findings.filter(finding => finding.kind === 'error')
  if (errors.length > 0)
    throw new JobFileError(errors.map(error => `${file}:${error.line}: ${textOf(error)}`).join('\n'))
  const [job, ...others] = findings.filter(finding => finding.kind === 'job')
  if (!job) throw new JobFileError(`${file}: no ${KIND} in it`)
  if (others.length > 0) throw new JobFileError(`${file}: ${others.length + 1} ${KIND}s in it; give a file with one`)
  return job.job
}

/**
 * The spec with an absolute `data.path`. A relative one starts at the folder of the job's file, or
 * at the working folder if the job came from standard input; `note` is told.
 */
export function withDataPath(spec: ScMoEJobSpec, file: string, note: (text: string) => void): ScMoEJobSpec {
  const { path } = spec.data
  if (path === undefined || isAbsolute(path)) return spec
  const absolute = resolve(file === '-' ? '.' : dirname(file), path)
  note(`data.path ${path} is ${absolute}: it starts at the folder of the job's file`)
  return { ...spec, data: { ...spec.data, path: absolute } }
}

/** A file or an option of the user cannot be used; the message says where and why. */
export class JobFileError extends Error {
  override name = 'JobFileError'
}
