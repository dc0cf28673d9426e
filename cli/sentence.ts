// Turns figures and parts of sentences into text for people. Pure.

/** e.g. `42 s`, `3 min`, `2 h 5 min`, `4 d 1 h`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 120) return `${whole} s`
  const minutes = Math.round(whole / 60)
  if (minutes < 120) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return joined(`${hours} h`, minutes % 60, 'min')
  return joined(`${Math.floor(hours / 24)} d`, hours % 24, 'h')
}

const joined = (large: string, small: number, unit: string) => (small === 0 ? large : `${large} ${small} ${unit}`)

export const nats = (milli: number): string => (milli / 1000).toFixed(3)

/** Ends a text with a full stop unless it has an end; an empty text stays empty. */
export function sentence(text: string): string {
  const trimmed = text.trim()
  if (trimmed === '') return ''
  return /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`
}

export const paragraph = (...sentences: readonly string[]): string => sentences.map(sentence).filter(Boolean).join(' ')

/** Breaks lines between words. Only a single long word can exceed `width` characters. */
export function wrapped(text: string, width: number): string {
  const lines: string[] = []
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1)
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines.join('\n')
}

export const plural = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`

/** The cause of an error of the file system, without the name of the call and its path. */
export function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return 'code' in error ? error.message.replace(/, \w+( '.*)?$/, '') : error.message
}
