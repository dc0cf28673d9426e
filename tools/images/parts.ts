// Finds what an image contains that others have written: packages of npm, packages of Debian and
// wheels of PyPI, each with its version, its license and the text of the license.

import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { run } from '../process.ts'

export type Part = {
  readonly name: string
  readonly version: string
  /** Package URL: https://github.com/package-url/purl-spec */
  readonly purl: string
  /** An SPDX expression, or undefined where only the text says it. */
  readonly license?: string
  readonly text: string
}

const LICENSE_FILE = /^(licen[cs]e|copying|notice)/i

/** The npm package in this folder. Throws if its folder has no text of a license and names none. */
export function npmPart(folder: string): Part {
  const manifest: { name: string; version: string; license?: string } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  )
  const { name, version, license } = manifest
  const files = readdirSync(folder).filter(file => LICENSE_FILE.test(file))
  const text = files.map(file => readFileSync(join(folder, file), 'utf8').trim()).join('\n\n')
  if (text === '' && license === undefined) throw new Error(`${name} ${version} says nowhere under which license it is`)
  const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`
  return { name, version, purl, ...(license === undefined ? {} : { license }), text: text || `License: ${license}.` }
}

/** The folder of an installed npm package. */
export const npmFolder = (name: string): string =>
  dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))

/** The folder of the npm package that a source file belongs to; undefined for our own files. */
export function packageOf(root: string, source: string): string | undefined {
  const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(source)
  return match?.[1] === undefined ? undefined : join(root, match[1])
}

/**
 * The Debian packages of this machine that have these files, each once. A file that no package has,
 * as on another distribution, is a part by its own name.
 */
export async function systemParts(files: readonly string[]): Promise<Part[]> {
  const owners = await Promise.all(files.map(async file => ({ file, owner: await debianPackage(file) })))
  const names = new Set(owners.flatMap(({ owner }) => owner ?? []))
  const packages = await Promise.all([...names].toSorted().map(debianPart))
  return [...packages, ...owners.flatMap(({ file, owner }) => (owner === undefined ? [unknownPart(file)] : []))]
}

/** Debian's lists have the path of a file as it was before /lib became a link to /usr/lib. */
async function debianPackage(file: string): Promise<string | undefined> {
  for (const path of [file, file.replace(/^\/usr\/lib/, '/lib'), `/usr${file}`]) {
    const owner = await run('dpkg-query', ['--search', path]).catch(() => '')
    const name = /^(\S+?)(:\w+)?: /.exec(owner)?.[1]
    if (name !== undefined) return name
  }
  return undefined
}

function unknownPart(file: string): Part {
  const version = createHash('sha256').update(readFileSync(file)).digest('hex')
  const name = basename(file)
  const text = `${file} of the machine that built the image. It has the license of that machine's distribution.`
  return { name, version, purl: `pkg:generic/${name}?checksum=sha256:${version}`, text }
}

async function debianPart(name: string): Promise<Part> {
  const shown = await run('dpkg-query', ['--show', '--showformat', '${Version} ${Architecture}\n', name])
  const [version = '', architecture = ''] = shown.trim().split('\n')[0]?.split(' ') ?? []
  const file = `/usr/share/doc/${name}/copyright`
  if (!existsSync(file)) throw new Error(`${name} has no ${file}; run: apt-get install --reinstall ${name}`)
  const purl = `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${architecture}`
  return { name, version, purl, text: readFileSync(file, 'utf8').trim() }
}

/** The wheels whose licenses tools/cuda-libraries.sh has put into a folder. */
export function wheelParts(folder: string): Part[] {
  const licenses = readdirSync(folder).filter(file => file.endsWith('.license.txt'))
  return licenses.toSorted().map(file => {
    const [name = '', version = ''] = basename(file, '.license.txt').split('==')
    return { name, version, purl: `pkg:pypi/${name}@${version}`, text: readFileSync(join(folder, file), 'utf8').trim() }
  })
}
