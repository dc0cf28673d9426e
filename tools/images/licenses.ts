// Writes what an image says of its contents: the notices that licenses ask for, and a bill of
// materials (SBOM) in the CycloneDX format, version 1.6. Pure.

import type { Part } from './parts.ts'

const RULE = '='.repeat(80)

/** One section for each part, with the text of its license. */
export function notices(image: string, parts: readonly Part[]): string {
  const intro = `The image ${image} has ScMoE, under the license beside this file, and these works of others.`
  const list = parts.map(({ name, version }) => `  ${name} ${version}`)
  const sections = parts.map(part => `${RULE}\n${part.name} ${part.version}\n${RULE}\n\n${part.text}\n`)
  return `${intro}\n\n${list.join('\n')}\n\n${sections.join('\n')}`
}

/**
 * The bill of materials. It has no time and no serial number, so the same image is the same text.
 */
export function billOfMaterials(image: { name: string; version: string }, parts: readonly Part[]): string {
  const components = parts.map(({ name, version, purl, license }) => ({
    type: 'library',
    'bom-ref': purl,
    name,
    version,
    purl,
    ...(license === undefined ? {} : { licenses: [{ expression: license }] }),
  }))
  const component = {
    type: 'container',
    'bom-ref': `${image.name}:${image.version}`,
    ...image,
    licenses: [{ expression: 'Apache-2.0' }],
  }
  const bom = { bomFormat: 'CycloneDX', specVersion: '1.6', version: 1, metadata: { component }, components }
  return `${JSON.stringify(bom, undefined, 2)}\n`
}
