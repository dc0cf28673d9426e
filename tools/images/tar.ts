// Writes ustar archives whose bytes depend only on their entries, without owners and times.

export type TarEntry = {
  /** Has no leading slash; the path of a folder ends in one. */
  readonly path: string
  readonly mode: number
  /** The bytes in parts, so that large files need not be copied into one buffer. */
  readonly content?: readonly Buffer[]
  /** Makes the entry a symbolic link to this path. */
  readonly link?: string
}

const BLOCK = 512

/** The archive in parts, to be written one after another. */
export function tar(entries: readonly TarEntry[]): Buffer[] {
  const parts: Buffer[] = []
  for (const entry of entries) {
    const content = entry.content ?? []
    const size = byteLength(content)
    parts.push(header(entry, size), ...content, Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK))
  }
  return [...parts, Buffer.alloc(2 * BLOCK)]
}

export function byteLength(parts: readonly Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

/** POSIX.1-1988 ustar: fixed fields, octal numbers, and a checksum computed with a blank field. */
function header({ path, mode, link }: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(BLOCK)
  const { prefix, name } = split(path)
  const octal = (value: number, offset: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset)
  }
  block.write(name, 0)
  octal(mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(size, 124, 12)
  octal(0, 136, 12)
  block.write('        ', 148)
  block.write(link === undefined ? (path.endsWith('/') ? '5' : '0') : '2', 156)
  block.write(link ?? '', 157)
  block.write('ustar\x0000', 257)
  block.write(prefix, 345)
  const checksum = block.reduce((sum, byte) => sum + byte, 0)
  block.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

/**
 * A path of more than 100 bytes is cut at a slash into a prefix of at most 155 and a name of at
 * most 100.
 */
function split(path: string): { prefix: string; name: string } {
  if (Buffer.byteLength(path) <= 100) return { prefix: '', name: path }
  for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1)) {
    const [prefix, name] = [path.slice(0, slash), path.slice(slash + 1)]
    if (Buffer.byteLength(prefix) <= 155 && name !== '' && Buffer.byteLength(name) <= 100) return { prefix, name }
  }
  throw new Error(`'${path}' is too long for a ustar archive`)
}
