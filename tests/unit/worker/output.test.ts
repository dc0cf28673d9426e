// Tests of folders that several ranks make at once.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { makeFolder } from '../../../worker/report/output.ts'

const folder = mkdtempSync(join(tmpdir(), 'scmoe-output-'))
afterAll(() => rmSync(folder, { recursive: true }))

// Seen failing with a second mkdir for which an existing folder was an error: EEXIST.
test('a folder that many make at the same moment is there for all of them', async () => {
  for (let round = 0; round < 20; round++) {
    const path = join(folder, String(round), 'a', 'b')
    await Promise.all(Array.from({ length: 8 }, () => makeFolder(path)))
    expect(existsSync(path)).toBe(true)
  }
})

test('a file in the place of a folder is an error that says so', async () => {
  writeFileSync(join(folder, 'file'), '')
  await expect(makeFolder(join(folder, 'file'))).rejects.toThrow('EEXIST')
  await expect(makeFolder(join(folder, 'file', 'a'))).rejects.toThrow('ENOTDIR')
})
