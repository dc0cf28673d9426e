// The image whose container holds a pod's namespaces: one small static program, compiled here,
// so that no registry is needed.

import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, writeAtomically } from '../cache.ts'
import { run } from '../process.ts'
import { dockerArchive } from './archive.ts'

const SOURCE = join(import.meta.dirname, 'pause.c')

/** The path of a docker-archive with the image under this name, compiled at the first call. */
export async function pauseImage(name: string): Promise<string> {
  const key = createHash('sha256').update(readFileSync(SOURCE)).update(name).digest('hex').slice(0, 16)
  const path = join(cacheRoot(), `pause-${key}.tar`)
  if (existsSync(path)) return path
  await writeAtomically(path, async temporary => {
    const program = `${temporary}.bin`
    try {
      await run('gcc', ['-std=gnu11', '-Os', '-static', '-s', '-o', program, SOURCE])
      const entry = { path: 'pause', mode: 0o755, content: [readFileSync(program)] }
      const image = dockerArchive({ name, entrypoint: ['/pause'], user: '65535' }, [[entry]])
      writeFileSync(temporary, Buffer.concat(image))
    } finally {
      rmSync(program, { force: true })
    }
  })
  return path
}
