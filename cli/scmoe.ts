#!/usr/bin/env node
// The scmoe command: runs the command line and turns errors into texts and exit codes.

import { plainText } from '../crds/contract.ts'
import { surviveLostOutput } from './output.ts'
import { program } from './program.ts'
import { Interrupted } from './run/stops.ts'
import { causeOf } from './sentence.ts'

/**
 * Errors that a user can correct; only their message is shown. Any other error is a defect and
 * shows its stack.
 */
const EXPECTED = new Set(['ClusterError', 'Interrupted', 'JobFileError'])

function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if ('code' in error && error.code === 'ENOENT') return error.message.replace(/^ENOENT: /, '')
  return EXPECTED.has(error.name) ? error.message : (error.stack ?? error.message)
}

const scmoe = program(code => {
  process.exitCode = code
})
const lostOutput = surviveLostOutput(process)
/** The results of these commands are in files, so they have done their work without an output. */
const WRITES_FILES = new Set(['run', 'trace'])

// The loss of an output is reported after the call that wrote it.
process.once('beforeExit', () => {
  const lost = lostOutput()
  if (lost === undefined || WRITES_FILES.has(scmoe.args[0] ?? '')) return
  console.error(`the output cannot be written (${causeOf(lost)}): free space, or write it elsewhere`)
  process.exitCode ||= 1
})

try {
  await scmoe.parseAsync()
} catch (error) {
  console.error(plainText(explain(error)))
  process.exitCode = error instanceof Interrupted ? error.exitCode : 1
}
