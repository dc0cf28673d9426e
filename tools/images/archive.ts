// docker-archive: what `docker save` writes, and what containerd and kind import.

import { createHash } from 'node:crypto'
import { type TarEntry, tar } from './tar.ts'

export type ImageConfig = {
  /** `repository:tag`. */
  readonly name: string
  readonly entrypoint: readonly string[]
  /** Numeric, so that a kubelet can see that it is not root. */
  readonly user?: string
  readonly env?: Readonly<Record<string, string>>
  readonly workdir?: string
}

const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex')

/** One archive of one image; the layers lie over each other in their order. */
export function dockerArchive(config: ImageConfig, layers: readonly (readonly TarEntry[])[]): Buffer {
  const blobs = layers.map(entries => {
    const data = tar(entries)
    return { data, digest: sha256(data) }
  })
  const image = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    created: '1970-01-01T00:00:00Z',
    config: {
      Entrypoint: config.entrypoint,
      Env: Object.entries(config.env ?? {}).map(([name, value]) => `${name}=${value}`),
      ...(config.user === undefined ? {} : { User: config.user }),
      WorkingDir: config.workdir ?? '/',
    },
    rootfs: { type: 'layers', diff_ids: blobs.map(blob => `sha256:${blob.digest}`) },
  })
  const configPath = `${sha256(image)}.json`
  const manifest = [
    { Config: configPath, RepoTags: [config.name], Layers: blobs.map(blob => `${blob.digest}/layer.tar`) },
  ]
  return tar([
    { path: configPath, mode: 0o644, content: Buffer.from(image) },
    ...blobs.map(blob => ({ path: `${blob.digest}/layer.tar`, mode: 0o644, content: blob.data })),
    { path: 'manifest.json', mode: 0o644, content: Buffer.from(JSON.stringify(manifest)) },
  ])
}
