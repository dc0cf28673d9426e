// Damage to files, drawn from a seed: bytes, lengths, and the structure of JSON.

/** Random numbers that a seed repeats. */
export class Draw {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  /** A number in [0, 1); mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  of<T>(list: readonly T[]): T {
    const value = list[this.below(list.length)]
    if (value === undefined) throw new Error('an empty list has nothing to draw')
    return value
  }
}

/** The seed of a run, which SCMOE_TEST_SEED repeats. It is printed. */
export function printedSeed(): number {
  const seed = Number(process.env['SCMOE_TEST_SEED'] ?? Date.now() % 1_000_000)
  console.log(`SCMOE_TEST_SEED=${seed} draws the same cases`)
  return seed
}

/** Numbers at edges, and values that are none. */
const NUMBERS = [0, -0, 1, -1, 2, 4, 0.5, 1e21, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e308]
const EDGES: readonly unknown[] = [...NUMBERS, null, true, '', '0', '__proto__', [], {}, [[]], 'x'.repeat(1000)]

/** Changes some bytes, cuts the end off, or adds to it. */
export function withDamagedBytes(bytes: Uint8Array, draw: Draw): Uint8Array {
  // The first bytes say how to read the others, so they are damaged more often.
  const somewhere = () => (draw.next() < 0.5 ? draw.below(Math.min(400, bytes.length)) : draw.below(bytes.length))
  const how = draw.next()
  if (how < 0.2) return bytes.slice(0, somewhere())
  if (how < 0.3) return Uint8Array.from([...bytes, ...Array.from({ length: 1 + draw.below(9) }, () => draw.below(256))])
  const changed = Uint8Array.from(bytes)
  if (how < 0.4) changed.copyWithin(somewhere(), somewhere(), somewhere())
  for (let i = draw.below(4); i >= 0; i--)
    changed[somewhere()] =
      draw.next() < 0.5 ? draw.below(256) : draw.of([0x00, 0x22, 0x2c, 0x30, 0x39, 0x5d, 0x7d, 0xff])
  return changed
}

type Parent = Record<string, unknown> | unknown[]

/** All objects and lists within a value, with itself. */
function parents(value: unknown): Parent[] {
  if (typeof value !== 'object' || value === null) return []
  const own = value as Parent
  return [own, ...Object.values(own).flatMap(parents)]
}

/** A copy of a JSON value in which one to three keys or values are changed. */
export function withChangedJson<T>(value: T, draw: Draw): T {
  const copy = structuredClone(value)
  for (let i = draw.below(3); i >= 0; i--) changeOne(copy, draw)
  return copy
}

function changeOne(root: unknown, draw: Draw): void {
  const all = parents(root).filter(each => Object.keys(each).length > 0)
  if (all.length === 0) return
  // From the root down, so that the few upper levels are changed as often as the many lower ones.
  let parent = root as Record<string, unknown>
  while (draw.next() < 0.65) {
    const below = Object.values(parent).filter(each => all.includes(each as Parent))
    if (below.length === 0) break
    parent = draw.of(below) as Record<string, unknown>
  }
  if (Object.keys(parent).length === 0) return
  const [key, other] = [draw.of(Object.keys(parent)), draw.of(Object.keys(parent))]
  const value = parent[key]
  const set = (name: string, to: unknown) =>
    Object.defineProperty(parent, name, { value: to, enumerable: true, configurable: true, writable: true })
  switch (draw.below(6)) {
    case 0:
      if (Array.isArray(parent)) parent.splice(Number(key), 1)
      else delete parent[key]
      break
    case 1:
      if (Array.isArray(parent)) parent.splice(Number(other), 0, structuredClone(value))
      else set(draw.of(['__proto__', 'constructor', `${key}.m`, `${key}x`, '', 'more']), structuredClone(value))
      break
    case 2:
      set(key, parent[other])
      set(other, value)
      break
    case 3:
      set(key, structuredClone(draw.of(all)))
      break
    case 4:
      set(key, typeof value === 'number' ? value + draw.of([-4, -1, 1, 4, value]) : draw.of(EDGES))
      break
    default:
      set(key, draw.of(EDGES))
  }
}
