// Looks at the beginning of a file of tokens: text and token numbers are told apart by their bytes.

const BYTES = 4096
/** Fewer bytes say too little. */
const FEWEST = 64

export type Look = 'text' | 'binary' | 'unknown'

/** How many bytes `looksLike` needs at most. */
export const LOOKED_AT = BYTES

/**
 * `text`: UTF-8 without control characters, which token numbers practically never are. `binary`:
 * with zero bytes, which text never has and token numbers nearly always do.
 */
export function looksLike(bytes: Uint8Array): Look {
  if (bytes.length < FEWEST) return 'unknown'
  if (bytes.includes(0)) return 'binary'
  try {
    // With `stream` a character that is cut at the end is no mistake.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true })
    return /[^\P{Cc}\t\n\f\r]/u.test(text) ? 'unknown' : 'text'
  } catch {
    return 'unknown'
  }
}
