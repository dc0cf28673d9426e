#!/usr/bin/env node
// The command line of the images: node tools/images/main.ts --help

import { Command } from 'commander'
import { bundle, PROGRAMS } from './bundle.ts'
import { writeCorpora } from './corpora.ts'
import { cudaLibraries, gpuWorkerImage, operatorImage, ROOT, workerImage } from './images.ts'

const BUILDERS = { operator: operatorImage, worker: workerImage, 'worker-gpu': gpuWorkerImage }
/** Built by default. The GPU image is large, and its backend takes minutes to build. */
const USUAL = ['operator', 'worker']

const program = new Command('images')
  .description('Build the images as docker-archives without Docker, and print name and path of each.')
  .argument('[images...]', `images to build: ${Object.keys(BUILDERS).join(', ')} (default: ${USUAL.join(', ')})`)
  .option(
    '--inputs',
    'only make the files that the Dockerfiles copy: bundles, texts, and CUDA libraries for worker-gpu',
  )
  .action(async (wanted: string[], { inputs }: { inputs?: true }) => {
    const unknown = wanted.find(name => !Object.hasOwn(BUILDERS, name))
    if (unknown !== undefined)
      program.error(`there is no image '${unknown}'; choose from ${Object.keys(BUILDERS).join(', ')}`)
    if (inputs) {
      for (const name of PROGRAMS) await bundle(ROOT, name)
      writeCorpora(ROOT)
      if (wanted.includes('worker-gpu')) await cudaLibraries()
      return
    }
    for (const [name, build] of Object.entries(BUILDERS)) {
      if (!(wanted.length > 0 ? wanted : USUAL).includes(name)) continue
      const image = await build()
      console.log(`${image.name} ${image.tar}`)
    }
  })

try {
  await program.parseAsync()
} catch (error) {
  console.error(`images: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
