// Writes the files that bench/gpu/run.sh executes on a machine with a GPU, which needs no Node: node bench/gpu/export.ts [--out build/gpu]

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Choice } from '../../worker/schedule/schedule.ts'
import { LAYERS, layerFile, OVERLAP, SMALL, schedulesOf, stepFile, TINY, WIDE } from './cases.ts'
import type { RunFile } from './run-file.ts'

const { values: options } = parseArgs({ options: { out: { type: 'string', default: 'build/gpu' } } })
mkdirSync(options.out, { recursive: true })

function write(name: string, file: RunFile): void {
  const path = join(options.out, `${name}.json`)
  writeFileSync(path, JSON.stringify(file))
  console.log(`${path}: ${file.title}`)
}

const sequential: Choice = { strategy: 'Sequential' }
write('tiny', stepFile('tiny', TINY, sequential))
for (const rank of [0, 1]) write(`two-ranks-${rank}`, stepFile('tiny', { ...TINY, ranks: 2 }, sequential, rank))
write('gpt2-moe-small', stepFile('GPT2-MoE-Small', SMALL, sequential))
write('d2048', stepFile('d=2048, 4 blocks', WIDE, sequential))
for (const [index, layer] of LAYERS.entries()) {
  write(`layer-${index}-forward`, layerFile(layer, false))
  write(`layer-${index}-backward`, layerFile(layer, true))
}
for (const [index, choice] of schedulesOf(OVERLAP).entries())
  write(`overlap-${index}`, stepFile('d=1024, 4 blocks', OVERLAP, choice))
