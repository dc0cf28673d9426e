// The tables of docs/operations.md that are generated from the advice and the contract.

import { adviceOnFailure, CONDITIONS, FAILURES, REASONS, sentence } from '../advice.ts'
import { EXIT } from '../contract.ts'

/** The tables by the names that the page gives them. */
export function operationsTables(): Record<string, string> {
  const ofReasons = Object.entries(REASONS).map(([reason, { states, meaning, remedy }]) => [
    reason,
    states.length === 0 ? 'any' : states.join(', '),
    meaning,
    remedy,
  ])
  const ofFailures = Object.entries(FAILURES).map(([reason, { meaning, remedy }]) => [reason, meaning, remedy])
  const ofExits = Object.entries(EXIT).map(([name, { code, permanent, meaning }]) => [
    String(code),
    name,
    sentence(meaning),
    code === 0 ? '' : permanent ? 'The job fails.' : 'The gang restarts.',
    adviceOnFailure(name)?.remedy ?? '',
  ])
  const ofConditions = Object.entries(CONDITIONS).map(([type, { meaning, remedy }]) => [type, meaning, remedy])
  return {
    conditions: table(['Condition', 'True when', 'What to do'], ofConditions),
    reasons: table(['Reason', 'State', 'What it means', 'What to do'], ofReasons),
    failures: table(['Reason', 'What it means', 'What to do'], ofFailures),
    exits: table(['Code', 'Name', 'What it means', 'Then', 'What to do'], ofExits),
  }
}

const row = (cells: readonly string[]) => `| ${cells.map(cell => (cell === '' ? '-' : cell)).join(' | ')} |`

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [row(head), row(head.map(() => '---')), ...rows.map(row)]
  return lines.join('\n').replaceAll('{job}', '<job>').replaceAll('{pod}', '<pod>')
}
