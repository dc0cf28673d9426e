// The image whose container holds a pod's namespaces: one small static program, compiled here, so that no registry is asked.

import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PAUSE_IMAGE } from '../cluster/config.ts'
import { cacheRoot, writeAtomically } from '../cluster/programs/cache.ts'
import { run } from '../process.ts'
import { dockerArchive } from './archive.ts'

const SOURCE = join(import.meta.dirname, 'pause.c')

/** The path of its docker-archive, compiled at the first call. */
export async function pauseImage(): Promise<string> {
  const key = createHash('sha256').update(readFileSync(SOURCE)).digest('hex').slice(0, 16)
  const path = join(cacheRoot(), `pause-${key}.tar`)
  if (existsSync(path)) return path
  await writeAtomically(path, async temporary => {
    const program = `${temporary}.bin`
    try {
      await run('gcc', ['-std=gnu11', '-Os', '-static', '-s', '-o', program, SOURCE])
      const entry = { path: 'pause', mode: 0o755, content: [readFileSync(program)] }
      const image = dockerArchive({ name: PAUSE_IMAGE, entrypoint: ['/pause'], user: '65535' }, [[entry]])
      writeFileSync(temporary, Buffer.concat(image))
    } finally {
      rmSync(program, { force: true })
    }
  })
  return path
}
