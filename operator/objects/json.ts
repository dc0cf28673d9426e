// Functions that read and compare plain JSON.

import { record } from '../../crds/json.ts'

export { isRecord, type Json, record } from '../../crds/json.ts'

/** An element of a list whose elements are told apart by their name. */
export type Named = { readonly name: string; readonly [key: string]: unknown }

/** The value if it is a list, otherwise an empty one. */
export const list = (value: unknown): Named[] => (Array.isArray(value) ? value : [])

/** The values of an object as strings. */
export const strings = (value: unknown): Record<string, string> =>
  Object.fromEntries(Object.entries(record(value)).map(([key, text]) => [key, String(text)]))

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/** The object without its fields that are undefined. */
export function defined<T extends object>(object: T): Defined<T>
export function defined(object: object): object {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined))
}

/** Deep equality of JSON. The order of keys does not matter. */
export function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) || Array.isArray(b))
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((each, i) => same(each, b[i]))
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b
  const [left, right] = [Object.entries(a), new Map(Object.entries(b))]
  return left.length === right.size && left.every(([key, value]) => right.has(key) && same(value, right.get(key)))
}

/** Whether `actual` has everything that `wanted` has. It may have more, such as defaults. */
export function holds(actual: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted))
    return Array.isArray(actual) && actual.length === wanted.length && wanted.every((each, i) => holds(actual[i], each))
  if (typeof wanted === 'object' && wanted !== null)
    return Object.entries(wanted).every(([key, value]) => holds(record(actual)[key], value))
  return actual === wanted
}
