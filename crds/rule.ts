// The form of a rule between fields: one row gives the CEL for the API server and the same check in
// TypeScript. `{term}` in a CEL text or a message stands for a value of the spec (terms.ts).

import { place } from './place.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'
import { TERMS, type Term } from './terms.ts'

/** A rule as the CRD carries it. `at` and `field` are paths from the object's root. */
export interface SchemaRule {
  /** The object that `self` stands for. */
  at: string
  /** The field that the error names. */
  field: string
  /** CEL. */
  rule: string
  /** The text with `{terms}` for values. */
  message: string
  /** CEL that yields the text. */
  messageExpression: string
}

/** A rule that one object alone can break. */
export interface Rule extends SchemaRule {
  /** The message if the rule is broken, else undefined. Expects a spec with its defaults. */
  check(spec: ScMoEJobSpec, name: string): string | undefined
}

/** The template with every `{name}` replaced. */
export function fill(template: string, value: (name: string) => string): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => value(name))
}

/**
 * The CEL expression that yields the template's text. It uses format(), because `+` and string()
 * would break the API server's cost limit.
 */
export function messageExpression(template: string, cel: (name: string) => string): string {
  const names = [...template.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
  const text = template.replaceAll('%', '%%').replaceAll('\\', '\\\\').replaceAll("'", "\\'")
  if (names.length === 0) return `'${text.replaceAll('%%', '%')}'`
  return `'${fill(text, () => '%s')}'.format([${names.map(cel).join(', ')}])`
}

/** The term of that name. Throws for a name that TERMS does not have. */
export function term(name: string): Term {
  if (!isTerm(name)) throw new Error(`a rule refers to {${name}}, which TERMS does not define`)
  return TERMS[name]
}
const isTerm = (name: string): name is keyof typeof TERMS => Object.hasOwn(TERMS, name)

interface Row {
  /** CEL with `{terms}`; true where the rule holds. */
  cel: string
  /** Names the field, its value and what to do, with `{terms}` for values. */
  message: string
  /** The same condition in TypeScript. */
  holds: (spec: ScMoEJobSpec) => boolean
}

/** The rule about `spec.<field>`. */
export function rule(field: string, { cel, message, holds }: Row): Rule {
  const celOf = (name: string) => term(name).cel
  const { at, texts } = place(field, [fill(cel, celOf), messageExpression(message, celOf)])
  const [text = '', says = ''] = texts
  return {
    at: at === '' ? 'spec' : `spec.${at}`,
    field: `spec.${field}`,
    rule: text,
    message,
    messageExpression: says,
    check: spec => (holds(spec) ? undefined : fill(message, name => String(term(name).of(spec)))),
  }
}

/**
 * A condition that is asked only where one of the fields is written. It is for conditions that all
 * presets and defaults fulfil (tests/unit/crds/rules.test.ts), and saves the API server its cost.
 */
export const given = (fields: readonly string[], cel: string) =>
  `${fields.map(field => `!has(self.${field})`).join(' && ')} || ${cel}`

/**
 * CEL for "a multiple of". The API server asks rules also of values that break their own bounds;
 * without the guard a divisor of 0 would add an error about the division.
 */
export const multiple = (of: string, by: string) => `[{${by}}].all(n, n < 1 || {${of}} % n == 0)`
export const isMultiple = (of: number, by: number) => by < 1 || of % by === 0

/**
 * The form of a text, for CEL and for TypeScript. A pattern in the schema would do, but the API
 * server answers to it with the regular expression, which tells nobody what to write.
 */
export const like = (text: string, pattern: string) => `{${text}}.matches('^${pattern}$')`
export const isLike = (text: string, pattern: string) => new RegExp(`^${pattern}$`).test(text)

/** A decimal without a digit other than 0. A text that is no decimal is left to `isLike`. */
const ZERO = /^[0.]+([eE]|$)/
export const notZero = (field: string) => `!{${field}}.matches('${ZERO.source}')`
export const isNotZero = (decimal: string) => !ZERO.test(decimal)
