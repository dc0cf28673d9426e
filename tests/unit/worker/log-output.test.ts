// Tests of where the log lines of a worker go, on real files and pipes.

import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { logFields, logOutput } from '../../../worker/report/log-output.ts'

const MODULE = join(import.meta.dirname, '../../../worker/report/log-output.ts')

it('writes whole lines, and loses those for which there is no space without an error', () => {
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-log-'))
  const [file, full] = [openSync(join(folder, 'log'), 'w'), openSync('/dev/full', 'w')]
  try {
    for (const line of ['one\n', 'ü'.repeat(100_000), '\n']) {
      logOutput(file).write(line)
      logOutput(full).write(line)
    }
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe(`one\n${'ü'.repeat(100_000)}\n`)
  } finally {
    closeSync(file)
    closeSync(full)
    rmSync(folder, { recursive: true })
  }
})

// Seen failing with pino's own destination on /dev/full: the process ended with ENOSPC.
it('goes on when the reader of the pipe has gone', async () => {
  const program = `import { logOutput } from '${MODULE}'
    process.once('message', () => {
      for (let i = 0; i < 100; i++) logOutput(1).write('a line that nobody reads\\n')
      process.exit(7)
    })
    process.send('ready')`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
  const ended = new Promise(resolve => {
    child.once('exit', resolve)
  })
  child.once('message', () => {
    child.stdout?.destroy()
    child.send('write')
  })
  expect(await ended).toBe(7)
})

it('gives figures as many digits as a reader needs', () => {
  expect(logFields({ loss: 2.345678901234, step: 1234567, rates: { x: [0.1 + 0.2] }, word: 'a' })).toEqual({
    loss: 2.34568,
    step: 1234567,
    rates: { x: [0.3] },
    word: 'a',
  })
})
