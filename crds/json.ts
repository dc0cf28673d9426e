// Objects of plain JSON, whose fields may be anything.

/** A JSON object as it is sent or received. */
export type Json = { readonly [key: string]: unknown }

export const isRecord = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The value if it is an object, otherwise an empty one. */
export const record = (value: unknown): Json => (isRecord(value) ? value : {})
