// Finds the smallest object of the schema that has all the fields a rule reads: the rule is asked
// there. For each field that a rule reads, the API server lists all fields beside it. Reading from
// the spec itself is therefore the most expensive, and a rule on an object that is absent costs
// nothing.

/** The objects that fields are read from: `a` for `self.a.b`, and also for `self.a.b.size()`. */
const objectsIn = (cel: string): string[][] =>
  [...cel.matchAll(/\bself((?:\.\w+)*)(\()?/g)].map(([, path = '', call]) =>
    path.split('.').slice(1, call === undefined ? -1 : -2),
  )

const common = (a: readonly string[], b: readonly string[]): string[] => {
  const end = a.findIndex((name, i) => name !== b[i])
  return a.slice(0, end < 0 ? a.length : end)
}

/**
 * The place of a rule and its texts, in which `self` becomes that place. `field` is the field that
 * the error names. Paths start at the spec; `at` is '' for the spec itself. /
 */
export function place(field: string, texts: readonly string[]): { at: string; texts: string[] } {
  const at = objectsIn(texts.join(' ')).reduce(common, field.split('.')).join('.')
  const prefix = at === '' ? 'self' : `self.${at}`
  return { at, texts: texts.map(text => text.replaceAll(new RegExp(`\\b${prefix}\\b`, 'g'), 'self')) }
}
