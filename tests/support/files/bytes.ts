// Files that a test makes byte by byte.

/** A safetensors file of a header, as it is, and the bytes of its tensors. */
export function safetensorsBytes(header: string, data: Uint8Array): Uint8Array {
  const json = new TextEncoder().encode(header)
  const bytes = new Uint8Array(8 + json.length + data.length)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true)
  bytes.set(json, 8)
  bytes.set(data, 8 + json.length)
  return bytes
}
