// Where in the schema a rule of the spec is asked: at the smallest object that has all it reads. For each field that a rule reads by name the API server
// makes a list of all fields beside it, so that what is read from the spec itself is dearest, and a field that is left out costs nothing.

/** The objects that fields are read from: of `self.a.b`, also where a function is called on it, `a`. */
const objectsIn = (cel: string): string[][] =>
  [...cel.matchAll(/\bself((?:\.\w+)*)(\()?/g)].map(([, path = '', call]) =>
    path.split('.').slice(1, call === undefined ? -1 : -2),
  )

const common = (a: readonly string[], b: readonly string[]): string[] => {
  const end = a.findIndex((name, i) => name !== b[i])
  return a.slice(0, end < 0 ? a.length : end)
}

/** `field` is the field that is named in the error, all in terms of the spec; `at` is '' for the spec itself. */
export function place(field: string, texts: readonly string[]): { at: string; texts: string[] } {
  const at = objectsIn(texts.join(' ')).reduce(common, field.split('.')).join('.')
  const prefix = at === '' ? 'self' : `self.${at}`
  return { at, texts: texts.map(text => text.replaceAll(new RegExp(`\\b${prefix}\\b`, 'g'), 'self')) }
}
