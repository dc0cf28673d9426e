// Writes docker-archives, the format that `docker save` writes and containerd and kind import.

import { createHash } from 'node:crypto'
import { type TarEntry, tar } from './tar.ts'

export type ImageConfig = {
  /** `repository:tag`. */
  readonly name: string
  readonly entrypoint: readonly string[]
  /** A number, so that a kubelet can see that it is not root. */
  readonly user?: string
  readonly env?: Readonly<Record<string, string>>
  readonly workdir?: string
}

function sha256(parts: readonly Buffer[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}

/** The archive of one image, in parts. Later layers lie over earlier ones. */
export function dockerArchive(config: ImageConfig, layers: readonly (readonly TarEntry[])[]): Buffer[] {
  const blobs = layers.map(entries => {
    const content = tar(entries)
    return { content, digest: sha256(content) }
  })
  const image = {
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
  }
  const imageContent = [Buffer.from(JSON.stringify(image))]
  const imagePath = `${sha256(imageContent)}.json`
  const paths = blobs.map(blob => `${blob.digest}/layer.tar`)
  const manifest = [{ Config: imagePath, RepoTags: [config.name], Layers: paths }]
  return tar([
    { path: imagePath, mode: 0o644, content: imageContent },
    ...blobs.map(({ digest, content }) => ({ path: `${digest}/layer.tar`, mode: 0o644, content })),
    { path: 'manifest.json', mode: 0o644, content: [Buffer.from(JSON.stringify(manifest))] },
  ])
}
