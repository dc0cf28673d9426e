// Builds the images of this checkout without Docker: the contents follow the Dockerfiles, the
// operating system consists of libraries of this machine.

import { createHash } from 'node:crypto'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { writeAtomically } from '../cache.ts'
import { run } from '../process.ts'
import { dockerArchive, type ImageConfig } from './archive.ts'
import { bundle } from './bundle.ts'
import { writeCorpora } from './corpora.ts'
import { parseDockerfile, type Recipe } from './dockerfile.ts'
import { type ImageFile, nodeBinary, systemFiles } from './system.ts'
import type { TarEntry } from './tar.ts'

export const ROOT = join(import.meta.dirname, '..', '..')

/** `tar` is the path of a docker-archive of the image `name`. */
export type BuiltImage = { readonly name: string; readonly tar: string }

const PATH = '/usr/local/bin:/usr/bin:/bin'

/** Builds `scmoe/operator:<version of package.json>`. */
export async function operatorImage(): Promise<BuiltImage> {
  await bundle(ROOT, 'operator')
  await bundle(ROOT, 'follow')
  return buildImage('operator', recipeOf('operator'))
}

/** Builds `scmoe/worker:<version of package.json>`; the addon must have been built. */
export async function workerImage(): Promise<BuiltImage> {
  await bundle(ROOT, 'worker')
  writeCorpora(ROOT)
  return buildImage('worker', recipeOf('worker'))
}

/**
 * Builds `scmoe/worker-gpu:<version of package.json>`. The addon and the CUDA backend must have
 * been built; the libraries, more than half a GB, are fetched.
 */
export async function gpuWorkerImage(): Promise<BuiltImage> {
  await bundle(ROOT, 'worker')
  writeCorpora(ROOT)
  await cudaLibraries()
  return buildImage('worker-gpu', recipeOf('worker-gpu'))
}

/** Fetches the libraries of the GPU image into build/cuda-libraries. */
export async function cudaLibraries(): Promise<void> {
  await run('bash', [join(ROOT, 'tools', 'cuda-libraries.sh')])
}

export function recipeOf(image: string): Recipe {
  return parseDockerfile(readFileSync(join(ROOT, 'images', image, 'Dockerfile'), 'utf8'))
}

/** Whether a file may need libraries of the system: addons and libraries, with a version or not. */
export const isSharedObject = (path: string) => /\.(node|so(\.\d+)*)$/.test(path)

/** Builds an image of files below the repository's root, unless the same image exists. */
export async function buildImage(image: string, recipe: Recipe): Promise<BuiltImage> {
  const node = nodeBinary()
  if (node.version !== recipe.nodeVersion) {
    throw new Error(
      `images/${image}/Dockerfile is FROM Node ${recipe.nodeVersion}, devDependencies have ${node.version}`,
    )
  }
  const files = recipe.files.map(({ from, to }) => ({ path: to.slice(1), mode: 0o644, source: existing(from) }))
  const objects = files.filter(file => isSharedObject(file.path)).map(file => file.source)
  const layers = [await systemFiles(objects), files].map(list => list.toSorted((a, b) => (a.path < b.path ? -1 : 1)))
  const { entrypoint, user, workdir } = recipe
  const name = `scmoe/${image}:${version()}`
  const config: ImageConfig = { name, entrypoint, user, workdir, env: { PATH, ...recipe.env } }

  const folder = join(ROOT, 'build', 'images')
  const file = `${image}-${fingerprint(config, layers)}.tar`
  if (!existsSync(join(folder, file))) {
    await writeAtomically(join(folder, file), path => {
      write(
        path,
        dockerArchive(
          config,
          layers.map(list => list.map(entryOf)),
        ),
      )
    })
    const older = readdirSync(folder).filter(
      other => other.startsWith(`${image}-`) && other.endsWith('.tar') && other !== file,
    )
    for (const other of older) rmSync(join(folder, other), { force: true })
  }
  return { name, tar: join(folder, file) }
}

function version(): string {
  const manifest: { version: string } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  return manifest.version
}

function existing(path: string): string {
  const source = join(ROOT, path)
  if (existsSync(source)) return source
  const remedy = path.startsWith('build/cuda/')
    ? 'cmake -S worker/native -B build/cuda -G Ninja -DCUDA_ROOT=$(bash tools/cuda.sh) && ninja -C build/cuda scmoe_cuda'
    : 'tools/bootstrap.sh --for build'
  throw new Error(`the image needs ${path}, which is not there; run: ${remedy}`)
}

function entryOf(file: ImageFile): TarEntry {
  const { path, mode } = file
  if ('link' in file) return { path, mode, link: file.link }
  return { path, mode, content: ['text' in file ? Buffer.from(file.text) : readFileSync(file.source)] }
}

/**
 * A name that changes with the image. Files of the machine are large and rarely change, so only
 * their size and time are compared.
 */
function fingerprint(config: ImageConfig, layers: readonly (readonly ImageFile[])[]): string {
  const hash = createHash('sha256').update(JSON.stringify([config, layers]))
  for (const file of layers.flat()) {
    if (!('source' in file)) continue
    const { size, mtimeMs } = statSync(file.source)
    hash.update(file.source.startsWith(join(ROOT, 'build')) ? readFileSync(file.source) : `${size} ${mtimeMs}`)
  }
  return hash.digest('hex').slice(0, 16)
}

function write(path: string, parts: readonly Buffer[]): void {
  const file = openSync(path, 'w')
  try {
    for (const part of parts) writeSync(file, part)
  } finally {
    closeSync(file)
  }
}
