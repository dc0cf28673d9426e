// The page of one measurement, from the JSON that a benchmark wrote. Pure.

import { type Cell, markdown } from '../../bench/report.ts'

type Fields = Readonly<Record<string, unknown>>

/** Shown first, in this order, under these words. */
const HEAD: readonly (readonly [key: string, words: string])[] = [
  ['date', 'Date'],
  ['machine', 'Machine'],
  ['device', 'Device'],
  ['engine', 'Engine'],
  ['command', 'Command'],
  ['shape', 'Shape'],
]
/** Significant digits of a number that is not whole; digits before the point are always kept. */
const DIGITS = 4

/**
 * A title, the machine, date and command, the single figures as a list, and a table for every list
 * of records. Records inside records become columns such as `latency.p99`; lists inside records are
 * left out.
 */
export function measurementPage(title: string, result: Fields): string {
  const { bench: _, ...fields } = result
  const known = new Set(HEAD.map(([key]) => key))
  const head = HEAD.flatMap(([key, words]) =>
    fields[key] === undefined ? [] : [`- ${words}: ${inWords(fields[key])}`],
  )
  const rest = Object.entries(fields).filter(([key]) => !known.has(key))
  const figures = rest.flatMap(([key, value]) =>
    Array.isArray(value) ? [] : [...flat({ [key]: value })].map(([name, cell]) => `- ${name}: ${shown(cell)}`),
  )
  const lists = rest.flatMap(([key, value]) => {
    const records = Array.isArray(value) ? value.filter(isFields) : []
    return records.length > 0 ? [`## ${key}\n\n${tableOf(records)}`] : []
  })
  const lines = [...head, ...figures].join('\n')
  return `${['<!-- Written by `npm run docs:measurements`. -->', `# ${title}`, lines, ...lists].filter(Boolean).join('\n\n')}\n`
}

/** Columns in the order in which the records first name them. */
function tableOf(records: readonly Fields[]): string {
  const rows = records.map(record => flat(record))
  const columns = [...new Set(rows.flatMap(row => [...row.keys()]))]
  return markdown(
    columns,
    rows.map(row => columns.map(column => shown(row.get(column) ?? null))),
  )
}

/** The single values of a record, by name; those of a record inside have names with a point. */
function flat(fields: Fields, prefix = ''): Map<string, Cell> {
  return new Map(
    Object.entries(fields).flatMap(([key, value]): [string, Cell][] => {
      if (isFields(value)) return [...flat(value, `${prefix}${key}.`)]
      return Array.isArray(value) ? [] : [[`${prefix}${key}`, cellOf(value)]]
    }),
  )
}

const cellOf = (value: unknown): Cell =>
  typeof value === 'number' || typeof value === 'string' || value === null ? value : JSON.stringify(value)

function shown(cell: Cell): Cell {
  if (typeof cell === 'string') return cell.replaceAll('|', '\\|').replaceAll('\n', ' ')
  if (cell === null || Number.isInteger(cell)) return cell
  return Math.abs(cell) >= 10 ** DIGITS ? Math.round(cell) : Number(cell.toPrecision(DIGITS))
}

const inWords = (value: unknown): string =>
  isFields(value) ? [...flat(value)].map(([name, cell]) => `${name} ${shown(cell)}`).join(', ') : String(cellOf(value))

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
