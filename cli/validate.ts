// scmoe validate: the answer of the API server to files, without an API server.

import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { KIND, plainText } from '../crds/contract.ts'
import { type Finding, JobFileError, readJobs, readText, textOf } from './job-file.ts'

type Print = (line: string) => void
/** The line of a file that could not be read. */
const UNREAD = 0

type Located = Finding & { file: string }

/**
 * Prints one line for each finding, or one JSON object; returns whether the files hold at least one
 * job and no error.
 */
export function validateCommand(paths: readonly string[], { json }: { json?: boolean }, print: Print): boolean {
  const findings = paths.flatMap(path => filesOf(path)).flatMap(findingsIn)
  const jobs = findings.filter(({ kind }) => kind === 'job').length
  const errors = findings.filter(({ kind }) => kind === 'error').length
  const valid = jobs > 0 && errors === 0
  if (json) print(JSON.stringify({ valid, jobs, errors, findings: findings.map(asJson) }, undefined, 2))
  else {
    for (const finding of findings) {
      if (finding.kind === 'error' && finding.line === UNREAD) console.error(plainText(finding.message))
      else print(lineOf(finding))
    }
    if (jobs === 0 && errors === 0) print(`no ${KIND} in ${paths.join(', ')}`)
  }
  return valid
}

const MANIFEST = /\.(ya?ml|json)$/

/** The path itself, or all manifests in the folder and below it. */
function filesOf(path: string): string[] {
  if (path === '-' || statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return [path]
  const found = readdirSync(path, { recursive: true, withFileTypes: true })
    .filter(entry => !entry.isDirectory() && MANIFEST.test(entry.name))
    .map(entry => join(entry.parentPath, entry.name))
    .toSorted()
  // A folder without a manifest is reported when it is read as a file.
  return found.length === 0 ? [path] : found
}

function findingsIn(file: string): Located[] {
  const found = read(file)
  const empty: Finding = { kind: 'note', line: 1, message: 'there is no document in it' }
  return (found.length === 0 ? [empty] : found).map(finding => ({ ...finding, file }))
}

/** A file that cannot be read must not keep the others from being checked. */
function read(file: string): Finding[] {
  try {
    return readJobs(readText(file))
  } catch (error) {
    if (!(error instanceof JobFileError)) throw error
    return [{ kind: 'error', line: UNREAD, message: error.message }]
  }
}

function lineOf(finding: Located): string {
  const at = `${finding.file}:${finding.line}:`
  if (finding.kind === 'job') return `${at} ${KIND} ${finding.job.name} is valid`
  return `${at} ${finding.kind === 'skipped' ? 'note' : finding.kind}: ${textOf(finding)}`
}

function asJson(finding: Located): object {
  if (finding.kind !== 'job') return finding
  const { kind, file, line } = finding
  return { kind, file, line, name: finding.job.name, namespace: finding.job.namespace }
}
