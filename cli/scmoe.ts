#!/usr/bin/env node
// The scmoe command: runs the command line and turns errors into texts and exit codes.

import { plainText } from '../crds/contract.ts'
import { program } from './program.ts'

/**
 * Errors that a user can correct; only their message is shown. Any other error is a defect and
 * shows its stack.
 */
const EXPECTED = new Set(['ClusterError', 'JobFileError'])

function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if ('code' in error && error.code === 'ENOENT') return error.message.replace(/^ENOENT: /, '')
  return EXPECTED.has(error.name) ? error.message : (error.stack ?? error.message)
}

try {
  await program(code => {
    process.exitCode = code
  }).parseAsync()
} catch (error) {
  console.error(plainText(explain(error)))
  process.exitCode = 1
}
