// npm run bench:ops [-- op [threads]]: what each CPU kernel takes at training shapes, whether it was right, and what share of the machine's
// single-thread sgemm one pair of blocks reaches. Every figure is measured here and now; nothing is asserted.

import { execFileSync } from 'node:child_process'
import { cpus } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const folder = join(root, 'build/native')
const inherit = { cwd: root, stdio: 'inherit' } as const

execFileSync('cmake', ['-S', 'worker/native', '-B', folder, '-G', 'Ninja'], { cwd: root, stdio: 'ignore' })
execFileSync('ninja', ['-C', folder, 'ops_test'], { cwd: root, stdio: 'ignore' })

const program = join(folder, 'ops_test')
console.log(`${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} processors`)
console.log('\nsgemm, one thread, GFLOP/s (the best of training shapes)')
execFileSync(program, ['--peak'], inherit)
console.log('\nforward and backward of one pair of blocks, T = d = 512, one thread')
execFileSync(program, ['--pair'], inherit)
console.log('\nops')
execFileSync(program, ['--time', ...process.argv.slice(2)], inherit)
