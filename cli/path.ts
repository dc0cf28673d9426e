// Paths of fields in an object.

export type Path = readonly (string | number)[]

/** `spec.containers[0].name` */
export const pathText = (path: Path): string =>
  path.map((part, i) => (typeof part === 'number' ? `[${part}]` : i === 0 ? part : `.${part}`)).join('')
