// Builds the images of this checkout without Docker: the contents follow the Dockerfiles, the
// operating system consists of libraries of this machine.

import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { writeAtomically } from '../cache.ts'
import { run } from '../process.ts'
import { dockerArchive, type ImageConfig } from './archive.ts'
import { bundle } from './bundle.ts'
import { partsOf } from './contents.ts'
import { writeCorpora } from './corpora.ts'
import { parseDockerfile, type Recipe } from './dockerfile.ts'
import { billOfMaterials, notices } from './licenses.ts'
import { type ImageFile, systemFiles } from './system.ts'
import { type TarEntry, tar } from './tar.ts'

export const ROOT = join(import.meta.dirname, '..', '..')

/** `tar` is the path of a docker-archive of the image `name`. */
export type BuiltImage = { readonly image: ImageName; readonly name: string; readonly tar: string }

const PATH = '/usr/local/bin:/usr/bin:/bin'

/** The images, each with the programs that it contains. */
const IMAGES = { operator: ['operator', 'follow'], worker: ['worker'], 'worker-gpu': ['worker'] } as const
export type ImageName = keyof typeof IMAGES
export const IMAGE_NAMES: readonly ImageName[] = ['operator', 'worker', 'worker-gpu']

/**
 * The place of images that are in no registry. No node pulls from it, because `localhost` is the
 * node itself.
 */
export const LOCAL_REGISTRY = 'localhost/scmoe'

/**
 * Builds `localhost/scmoe/<image>:<version of package.json>`. The addon must have been built, and
 * the CUDA backend for `worker-gpu`, whose libraries, more than half a GB, are fetched.
 */
export async function builtImage(image: ImageName): Promise<BuiltImage> {
  await makeInputs(image)
  return buildImage(image, recipeOf(image))
}

/** Makes what the Dockerfile of an image copies: bundles, texts, libraries, notices. */
async function makeInputs(image: ImageName): Promise<void> {
  const packages: string[] = []
  for (const program of IMAGES[image]) packages.push(...(await bundle(ROOT, program)).packages)
  if (image !== 'operator') writeCorpora(ROOT)
  if (image === 'worker-gpu') await cudaLibraries()
  const recipe = recipeOf(image)
  const { libraries } = await systemOf(recipe)
  const parts = await partsOf({ packages, libraries, files: recipe.files.map(({ from }) => from) })
  const folder = join(ROOT, 'build', 'licenses', image)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'THIRD-PARTY-NOTICES.txt'), notices(`${image}:${version()}`, parts))
  writeFileSync(join(folder, 'sbom.cdx.json'), billOfMaterials({ name: `scmoe/${image}`, version: version() }, parts))
}

/** Makes all that `docker build` needs of this machine: the inputs, and the operating system. */
export async function makeDockerInputs(image: ImageName): Promise<void> {
  await makeInputs(image)
  const recipe = recipeOf(image)
  const { files } = await systemOf(recipe)
  await writeAtomically(join(ROOT, recipe.system), path => write(path, tar(inOrder(files).map(entryOf))))
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

/** The operating system that the files of an image need. */
const systemOf = (recipe: Recipe) =>
  systemFiles(recipe.files.filter(({ to }) => isSharedObject(to)).map(({ from }) => existing(from)))

const inOrder = (files: readonly ImageFile[]) => files.toSorted((a, b) => (a.path < b.path ? -1 : 1))

/** Builds an image of files below the repository's root, unless the same image exists. */
async function buildImage(image: ImageName, recipe: Recipe): Promise<BuiltImage> {
  const files = recipe.files.map(({ from, to }) => ({ path: to.slice(1), mode: 0o644, source: existing(from) }))
  const layers = [(await systemOf(recipe)).files, files].map(inOrder)
  const { entrypoint, user, workdir } = recipe
  const name = `${LOCAL_REGISTRY}/${image}:${version()}`
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
  return { image, name, tar: join(folder, file) }
}

/** The version of this checkout, which is the tag of its images. */
export function version(): string {
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
