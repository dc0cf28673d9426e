#!/usr/bin/env node
// The scmoe command.

import { program } from './program.ts'

/** What a user can put right is told in one line; anything else is a defect and shows where it happened. */
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
  console.error(explain(error))
  process.exitCode = 1
}
