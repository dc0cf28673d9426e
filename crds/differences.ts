// Settings that shape what a job learns and that are others than those of the runs before it in the
// same output folder. Pure.

import type { ScMoEJobSpec } from './scmoejob.ts'

/** Fields on which what a job learns does not depend, or of which the checkpoint takes care. */
const FREE = /^training\.(steps|precision|recompute|evaluation)\b/

/**
 * A sentence for each field of model, training and data that has another value. `before` is any
 * value: it was read from a file.
 */
export function differences(before: unknown, now: ScMoEJobSpec): string[] {
  const shaping = ({ model, training, data }: Partial<ScMoEJobSpec>) => ({ model, training, data })
  const then = leaves(shaping(typeof before === 'object' && before !== null ? before : {}))
  const wanted = leaves(shaping(now))
  return [...new Set([...then.keys(), ...wanted.keys()])]
    .filter(path => !FREE.test(path) && then.get(path) !== wanted.get(path))
    .map(path => `spec.${path} was ${then.get(path) ?? 'not set'} and is ${wanted.get(path) ?? 'not set'}`)
}

/** The values at the ends of all paths, as JSON. */
function leaves(value: unknown, path: readonly string[] = []): Map<string, string> {
  if (typeof value !== 'object' || value === null)
    return value === undefined ? new Map() : new Map([[path.join('.'), JSON.stringify(value)]])
  return new Map(Object.entries(value).flatMap(([key, item]) => [...leaves(item, [...path, key])]))
}
