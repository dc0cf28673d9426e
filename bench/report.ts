// Prints the results of benchmarks: the machine, tables, and a JSON file.

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { relative } from 'node:path'
import type { Figure } from './turns/figures.ts'

export const machine = (): string => `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} processors`

export type Cell = string | number | null

/** A text table. Numbers are aligned to the right; null is an empty cell. */
export function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const lines = [head, ...rows.map(row => row.map(cell => (cell === null ? '' : String(cell))))]
  const widths = head.map((_, column) => Math.max(...lines.map(line => line[column]?.length ?? 0)))
  const isNumber = head.map((_, column) => rows.some(row => typeof row[column] === 'number' || isFigure(row[column])))
  return lines
    .map(line =>
      line
        .map((cell, column) =>
          isNumber[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const isFigure = (cell: Cell | undefined) => typeof cell === 'string' && /^[-+]?\d[\d.]*( %| x)?$/.test(cell)

export function markdown(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const line = (cells: readonly Cell[]) => `| ${cells.map(cell => cell ?? '').join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** The number with `digits` digits after the point; null if it is null or not finite. */
export const fixed = (value: number | null, digits: number): string | null =>
  value === null || !Number.isFinite(value) ? null : value.toFixed(digits)

/** The figures as a text table. */
export const showFigures = (figures: readonly Figure[]): string =>
  table(
    ['figure', 'value', 'unit', 'from', 'to', 'aim', ''],
    figures.map(({ name, value, unit, aim, met, low, high }) => [
      name,
      fixed(value, 3),
      unit,
      fixed(low, 3),
      fixed(high, 3),
      aim,
      met === null ? '' : met ? 'met' : 'MISSED',
    ]),
  )

/**
 * Writes the result of a benchmark as a JSON file, with the day and the command line, from which
 * `npm run docs:measurements` makes a page.
 */
export function writeJson(path: string | undefined, result: object): void {
  if (path === undefined) return
  const stamped = 'bench' in result ? { ...result, date: today(), command: commandLine() } : result
  writeFileSync(path, `${JSON.stringify(stamped, undefined, 2)}\n`)
}

const today = () => new Date().toISOString().slice(0, 10)

function commandLine(): string {
  const [script = '', ...words] = process.argv.slice(1)
  return ['node', relative(process.cwd(), script), ...words].join(' ')
}
