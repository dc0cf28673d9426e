// Every attribute that an op can have, with its kind and its bounds. The loader of the engine
// checks a program against the same table, which `npm run generate` writes for it in C++.

interface IntegerAttr {
  kind: 'integer'
  least: number
  most: number
  /** The value of an attribute that a program leaves out. Without a default it must be given. */
  default?: number
  /** The property of the engine's rank that the attribute has to be equal to. */
  equals?: 'rank' | 'worldSize' | 'expertParallelSize'
}
interface RealAttr {
  kind: 'real'
}
interface WordAttr {
  kind: 'word'
  words: readonly string[]
}
export type AttrSpec = IntegerAttr | RealAttr | WordAttr

/** The largest integer that a number in JSON can hold exactly. */
const MOST = 2 ** 53

const from = (least: number, most = MOST) => ({ kind: 'integer', least, most }) as const
const real = { kind: 'real' } as const

export const ATTRS = {
  rows: from(0),
  dim: from(1),
  in: from(1),
  out: from(1),
  batch: from(1),
  sequence: from(1),
  heads: from(1),
  keyValueHeads: from(1),
  vocabulary: from(1),
  experts: from(1),
  topK: from(1),
  capacity: from(0),
  rank: { ...from(0), equals: 'rank' },
  worldSize: { ...from(1), equals: 'worldSize' },
  expertParallelSize: { ...from(1), equals: 'expertParallelSize' },
  chunk: { ...from(0, 1023), default: 0 },
  /** worker/native/chunk.h multiplies a number of rows by it, which must not overflow. */
  chunks: { ...from(1, 1024), default: 1 },
  elements: from(0),
  coefficients: from(1, 2),
  accumulate: { ...from(0, 1), default: 0 },
  bias: from(0, 1),
  inverse: from(0, 1),
  scale: real,
  auxCoefficient: real,
  zCoefficient: real,
  base: real,
  beta1: real,
  beta2: real,
  epsilon: real,
  weightDecay: real,
  clip: real,
  direction: { kind: 'word', words: ['dispatch', 'combine'] },
  group: { kind: 'word', words: ['world', 'ep', 'edp'] },
} as const satisfies Record<string, AttrSpec>

export type AttrName = keyof typeof ATTRS
