#!/usr/bin/env node
// The command line of the images: node tools/images/main.ts --help

import { Command } from 'commander'
import { type BuiltImage, builtImage, IMAGE_NAMES, type ImageName, makeDockerInputs, version } from './images.ts'
import { installLine, pushImage, registryError } from './push.ts'

/** Built by default. The GPU image is large, and its backend takes minutes to build. */
const USUAL: readonly ImageName[] = ['operator', 'worker']

type Flags = { inputs?: true; push?: string; plainHttp?: boolean }

const program = new Command('images')
  .description('Build the images as docker-archives without Docker, and print name and path of each.')
  .argument('[images...]', `images to build: ${IMAGE_NAMES.join(', ')} (default: ${USUAL.join(', ')})`)
  .option('--push <registry>', 'push the images to REGISTRY/operator and so on, and print the line that installs them')
  .option('--plain-http', 'push to a registry without TLS')
  .option('--inputs', 'only make the files that the Dockerfiles copy')
  .action(async (names: string[], { inputs, push, plainHttp = false }: Flags) => {
    const wanted = chosen(names)
    if (push !== undefined) refuse(registryError(push))
    const images: BuiltImage[] = []
    for (const name of wanted) {
      if (inputs) {
        await makeDockerInputs(name)
        continue
      }
      const image = await builtImage(name)
      images.push(image)
      console.log(`${image.name} ${image.tar}`)
    }
    if (push === undefined) return
    const pushed = []
    for (const image of images) {
      const one = await pushImage(image, { registry: push, version: version(), plainHttp })
      pushed.push(one)
      console.log(`${push}/${one.image}:${version()} ${one.digest}`)
    }
    console.log(`\nInstall the chart with:\n\n${installLine(push, pushed)}`)
  })

function chosen(names: readonly string[]): readonly ImageName[] {
  const unknown = names.find(name => !IMAGE_NAMES.some(known => known === name))
  refuse(unknown === undefined ? undefined : `there is no image '${unknown}'; choose from ${IMAGE_NAMES.join(', ')}`)
  return names.length === 0 ? USUAL : IMAGE_NAMES.filter(name => names.includes(name))
}

function refuse(problem: string | undefined): void {
  if (problem !== undefined) program.error(`images: ${problem}`)
}

try {
  await program.parseAsync()
} catch (error) {
  console.error(`images: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
