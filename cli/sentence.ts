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

/** A count of bytes in the unit that keeps its number below 1024, e.g. `8.4 GiB`. */
export function bytes(count: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10))
  return power === 0 ? plural(Math.round(count), 'byte') : `${(count / 1024 ** power).toFixed(1)} ${units[power]}`
}

/** A time in the unit in which it is easily read, e.g. `80.5 ms`, `74.0 s`, `12.5 min`, `3.1 h`. */
export function time(microseconds: number): string {
  const units: [name: string, size: number, below: number][] = [
    ['us', 1, 100],
    ['ms', 1e3, 10_000],
    ['s', 1e6, 600],
    ['min', 60e6, 120],
    ['h', 3600e6, Number.POSITIVE_INFINITY],
  ]
  const found = units.find(([, size, below]) => microseconds / size < below)
  return found === undefined ? `${microseconds} us` : `${(microseconds / found[1]).toFixed(1)} ${found[0]}`
}

/** e.g. `50 Gflop/s`, `26.8 Tflop/s`. */
export const flops = (gigaflops: number): string =>
  gigaflops < 1000
    ? `${Number(gigaflops.toPrecision(3))} Gflop/s`
    : `${Number((gigaflops / 1000).toPrecision(3))} Tflop/s`

/** e.g. `1000 MB/s`, `25 GB/s`. */
export const bandwidth = (megabytesPerSecond: number): string =>
  megabytesPerSecond <= 1000
    ? `${megabytesPerSecond} MB/s`
    : `${Number((megabytesPerSecond / 1000).toPrecision(3))} GB/s`
