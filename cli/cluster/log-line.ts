// Turns the log line of a worker, which is one JSON object, into text for people. Pure.

const LEVELS: Readonly<Record<number, string>> = {
  10: 'TRACE',
  20: 'DEBUG',
  30: 'INFO',
  40: 'WARN',
  50: 'ERROR',
  60: 'FATAL',
}

/**
 * Returns e.g. `07:12:01.250 WARN  text  key=value`; a line of another form is returned as it is.
 * `ranked` says that the log has lines of several ranks.
 */
export function readable(line: string, ranked = false): string {
  const record = parsed(line)
  if (record === undefined) return line
  const { level, time, msg, rank, ...rest } = record
  const clock = typeof time === 'string' ? /T([\d:.]+)Z/.exec(time)?.[1] : undefined
  const word = typeof level === 'number' ? LEVELS[level] : undefined
  const fields = Object.entries(ranked ? { rank, ...rest } : rest).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value, rounded)}`,
  )
  return [clock, word?.padEnd(5), typeof msg === 'string' ? msg : '', fields.length > 0 && ` ${fields.join(' ')}`]
    .filter(Boolean)
    .join(' ')
}

/** Nobody reads more digits of a loss or a time; a whole number keeps all of its digits. */
const rounded = (_: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value

function parsed(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    const value: Record<string, unknown> = JSON.parse(line)
    return 'msg' in value || 'level' in value ? value : undefined
  } catch {
    return undefined
  }
}
