// Reads YAML or JSON files with ScMoEJobs, and finds every problem that the API server would find,
// each with its line.

import { readFileSync } from 'node:fs'
import { type Document, isMap, isNode, isPair, isScalar, LineCounter, type ParsedNode, parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { API_VERSION, GROUP, KIND } from '../crds/contract.ts'
import { jobSchema } from '../crds/definition/definition.ts'
import { brokenRules } from '../crds/rules.ts'
import { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { warningsOf } from '../crds/warnings.ts'
import { causeOf } from './sentence.ts'
import {
  isFields,
  type Path,
  type Problem,
  pathText,
  schemaProblems,
  unknownFields,
  withDefaults,
} from './structural.ts'

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
  | { kind: 'error'; line: number; message: string }
  /** The job is valid, but would probably not do what is meant. */
  | { kind: 'warning'; line: number; message: string }
  /** For people; an object of another kind, for instance, is not checked. */
  | { kind: 'note'; line: number; message: string }

const NOT_CHECKED =
  'some validation rules were not checked because the object was invalid; correct the existing errors to complete validation'

/** The fields of ObjectMeta. */
const METADATA = new Set(
  'name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields'.split(
    ' ',
  ),
)

function metadataProblems(metadata: unknown): Problem[] {
  if (!isFields(metadata))
    return [{ path: ['metadata', 'name'], message: 'Required value: name or generateName is required', blocking: true }]
  const problems: Problem[] = Object.keys(metadata)
    .filter(name => !METADATA.has(name))
    .map(name => ({ path: ['metadata', name], message: `unknown field "metadata.${name}"`, blocking: true }))
  if (!metadata['name'] && !metadata['generateName']) {
    problems.push({
      path: ['metadata', 'name'],
      message: 'Required value: name or generateName is required',
      blocking: true,
    })
  }
  for (const field of ['name', 'generateName', 'namespace']) {
    const value = metadata[field]
    if (value !== undefined && value !== null && typeof value !== 'string') {
      problems.push({ path: ['metadata', field], message: 'must be a string: put it in quotes', blocking: true })
    }
  }
  for (const field of ['labels', 'annotations']) {
    for (const [key, value] of Object.entries(isFields(metadata[field]) ? metadata[field] : {})) {
      if (typeof value !== 'string') {
        problems.push({ path: ['metadata', field, key], message: 'must be a string: put it in quotes', blocking: true })
      }
    }
  }
  return problems
}

/** The job with its defaults, or everything that is wrong with it. */
export function checkJob(object: Record<string, unknown>): Job | Problem[] {
  const schema = jobSchema()
  const { metadata, ...rest } = object
  const { metadata: _, ...properties } = schema.properties ?? {}
  const ours: typeof schema = { ...schema, properties }
  const filled = withDefaults(rest, ours)
  const { status: __, ...judged } = isFields(filled) ? filled : {}
  const problems = [...unknownFields(rest, ours), ...metadataProblems(metadata), ...schemaProblems(judged, ours)]
  if (problems.some(({ blocking }) => blocking)) return problems
  const { name, generateName, namespace } = isFields(metadata) ? metadata : {}
  // The API server appends five characters to a generateName before it asks the rules.
  const finalName = typeof name === 'string' ? name : `${String(generateName)}xxxxx`
  // The types are right here. If only a bound is broken, the rules are evaluated all the same, as
  // the API server does.
  const typed = z.custom<ScMoEJobSpec>(isFields).parse(judged['spec'])
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
  if (syntax) return [{ kind: 'error', line: lines.linePos(syntax.pos[0]).line, message: firstLine(syntax.message) }]
  return documents.flatMap(document => judge(document, lines))
}

const firstLine = (text: string) => text.split('\n', 1)[0]?.replace(/:$/, '') ?? text

function judge(document: Document.Parsed, lines: LineCounter): Finding[] {
  const object: unknown = document.toJS()
  if (object === null) return []
  const start = lineOf(document.contents, [], lines)
  const { apiVersion, kind } = isFields(object) ? object : {}
  const isOurs = kind === KIND || String(apiVersion).startsWith(`${GROUP}/`)
  if (!isFields(object) || !isOurs) {
    const found = typeof kind === 'string' ? kind : 'a document without kind'
    return [{ kind: 'note', line: start, message: `${found}: not a ${KIND}, not checked` }]
  }
  if (kind !== KIND || apiVersion !== API_VERSION) {
    const message = `no matches for kind "${String(kind)}" in version "${String(apiVersion)}": use kind ${KIND}, apiVersion ${API_VERSION}`
    return [{ kind: 'error', line: start, message }]
  }
  const result = checkJob(object)
  if (!Array.isArray(result)) {
    const doubts = warningsOf(result.spec).map(({ path, message }): Finding => {
      return {
        kind: 'warning',
        line: lineOf(document.contents, path.split('.'), lines),
        message: `${path}: ${message}`,
      }
    })
    return [{ kind: 'job', line: start, job: result }, ...doubts]
  }
  const findings = result.map((problem): Finding => {
    const text = problem.message.startsWith('unknown field') ? '' : `${pathText(problem.path)}: `
    return {
      kind: 'error',
      line: lineOf(document.contents, problem.path, lines),
      message: `${text}${problem.message}`,
    }
  })
  findings.sort((one, other) => one.line - other.line)
  if (result.some(({ blocking }) => blocking)) findings.push({ kind: 'note', line: start, message: NOT_CHECKED })
  return findings
}

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
    throw new JobFileError(errors.map(({ line: at, message }) => `${file}:${at}: ${message}`).join('\n'))
  const [job, ...others] = findings.filter(finding => finding.kind === 'job')
  if (!job) throw new JobFileError(`${file}: no ${KIND} in it`)
  if (others.length > 0) throw new JobFileError(`${file}: ${others.length + 1} ${KIND}s in it; give a file with one`)
  return job.job
}

/** A file or an option of the user cannot be used; the message says where and why. */
export class JobFileError extends Error {
  override name = 'JobFileError'
}
