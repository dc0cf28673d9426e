// A ustar archive whose bytes depend on its entries only: no owner, no clock.

export type TarEntry = {
  /** Without a leading slash; a folder's ends in one. */
  readonly path: string
  readonly mode: number
  readonly content?: Buffer
}

const BLOCK = 512
const ZEROS = Buffer.alloc(BLOCK)

export function tar(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    const content = entry.content ?? Buffer.alloc(0)
    const padding = (BLOCK - (content.length % BLOCK)) % BLOCK
    parts.push(header(entry, content.length), content, ZEROS.subarray(0, padding))
  }
  return Buffer.concat([...parts, ZEROS, ZEROS])
}

/** POSIX.1-1988 "ustar": fixed fields, numbers in octal, a checksum over the header with its own field blank. */
function header({ path, mode }: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(BLOCK)
  const { prefix, name } = split(path)
  block.write(name, 0)
  const octal = (value: number, offset: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset)
  }
  octal(mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(size, 124, 12)
  octal(0, 136, 12)
  block.write('        ', 148)
  block.write(path.endsWith('/') ? '5' : '0', 156)
  block.write('ustar\x0000', 257)
  block.write(prefix, 345)
  const checksum = block.reduce((sum, byte) => sum + byte, 0)
  block.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

/** A path of more than 100 bytes is cut at a slash into a prefix of at most 155 and a name of at most 100. */
function split(path: string): { prefix: string; name: string } {
  if (Buffer.byteLength(path) <= 100) return { prefix: '', name: path }
  for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1)) {
    const [prefix, name] = [path.slice(0, slash), path.slice(slash + 1)]
    if (Buffer.byteLength(prefix) <= 155 && name !== '' && Buffer.byteLength(name) <= 100) return { prefix, name }
  }
  throw new Error(`'${path}' is too long for a ustar archive`)
}
