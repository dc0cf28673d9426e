// Pushes images to a registry with skopeo, which knows logins, TLS and what registries ask for.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errorCode, run } from '../process.ts'
import type { BuiltImage, ImageName } from './images.ts'

export type Target = {
  /** Host with port and path, e.g. registry.example.com/ml. */
  readonly registry: string
  readonly version: string
  /** The registry has no TLS. */
  readonly plainHttp: boolean
}

export type Pushed = {
  readonly image: ImageName
  /** The digest of the manifest, sha256:…, under which the registry keeps the image. */
  readonly digest: string
}

/** The text of the error about the name of a registry; undefined if it is a name. Pure. */
export function registryError(registry: string): string | undefined {
  const example = 'name it like registry.example.com/ml'
  if (registry.includes('://')) return `--push ${registry}: ${example}, without ${registry.split('://')[0]}://`
  if (/^[a-z0-9.-]+(:\d+)?(\/[a-z0-9]+([._-]+[a-z0-9]+)*)*$/.test(registry)) return undefined
  return `--push ${registry}: ${example}, in small letters, without a tag, without a slash at its end`
}

/** Copies an archive to `<registry>/<image>:<version>`. Throws with what the registry answered. */
export async function pushImage({ image, tar }: BuiltImage, target: Target): Promise<Pushed> {
  const { registry, version, plainHttp } = target
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-push-'))
  const digestFile = join(folder, 'digest')
  const to = `docker://${registry}/${image}:${version}`
  // The policy is about images that are pulled; our own archive needs no signature.
  const words = ['--insecure-policy', 'copy', '--digestfile', digestFile, `--dest-tls-verify=${!plainHttp}`]
  try {
    await run('skopeo', [...words, `docker-archive:${tar}`, to])
    return { image, digest: readFileSync(digestFile, 'utf8').trim() }
  } catch (error) {
    throw pushError(error, registry)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function pushError(error: unknown, registry: string): Error {
  if (error instanceof Error && errorCode(error.cause) === 'ENOENT')
    return new Error('--push needs skopeo; run: apt-get install -y --no-install-recommends skopeo')
  const said = error instanceof Error ? error.message : String(error)
  const host = registry.split('/')[0]
  if (/unauthorized|authentication required|denied/.test(said))
    return new Error(`${registry} refuses the login; run: skopeo login ${host}\n${said}`, { cause: error })
  if (said.includes('server gave HTTP response to HTTPS client'))
    return new Error(`${host} has no TLS; add --plain-http if that is meant\n${said}`, { cause: error })
  return new Error(`${registry} does not take the image\n${said}`, { cause: error })
}

/** The name of an image among the values of the chart. */
const VALUE: Readonly<Record<ImageName, string>> = { operator: 'operator', worker: 'worker', 'worker-gpu': 'gpuWorker' }

/** The command that installs the chart with exactly the pushed images. Pure. */
export function installLine(registry: string, pushed: readonly Pushed[]): string {
  const digests = pushed.map(({ image, digest }) => `--set image.${VALUE[image]}.digest=${digest}`)
  return [
    '    helm upgrade --install scmoe charts/scmoe --namespace scmoe-system --create-namespace',
    `--set image.registry=${registry}`,
    ...digests,
  ].join(' \\\n      ')
}
