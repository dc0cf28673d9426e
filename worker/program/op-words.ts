// Words in which the rows of the op table (ops.ts) are written: constructors of buffers and rows,
// and the sizes and rules that several rows share.

import type { AttrName } from './op-attributes.ts'
import type { BufferSpec, Elements, OpSpec, Rule, Size } from './op-spec.ts'

type Marks = Omit<BufferSpec, 'name' | 'type' | 'elements'>
const of =
  (type: BufferSpec['type']) =>
  (name: string, elements: Elements, marks: Marks = {}): BufferSpec => ({ name, type, elements, ...marks })
export const f32 = of('f32')
export const i32 = of('i32')
export const act = of('activation')
export const any = of('any')

export const OPTIONAL = { optional: true } as const
/** `+=`: the op adds to the buffer, or updates it in place. */
export const ADDED = { accumulate: true } as const

export const compute = (spec: Omit<OpSpec, 'queue'>): OpSpec => ({ queue: 'compute', ...spec })
export const comm = (spec: Omit<OpSpec, 'queue'>): OpSpec => ({ queue: 'comm', ...spec })

export const TOKENS = ['batch', { plus: ['sequence', 1] }] as const
export const TABLE = ['vocabulary', 'dim'] as const
export const POSITIONS = ['batch', 'sequence', 'dim'] as const
export const ROWS = ['rows', 'dim'] as const
export const CHOICES = ['rows', 'topK'] as const
export const COEFFICIENTS = ['rows', 'coefficients'] as const
/** Inputs by whose numbers an op finds elements of other buffers. */
export const TOKENS_IN = i32('tokens', TOKENS, { values: { from: 0, below: 'vocabulary' } })
export const EXPERT_IN = i32('expert', CHOICES, { values: { from: 0, below: 'experts' } })
/** -1: the choice is dropped. */
export const SLOT_IN = i32('slot', CHOICES, { values: { from: -1, below: 'capacity' } })
export const LOGITS = ['batch', 'sequence', 'vocabulary'] as const
export const WEIGHT = ['out', 'in'] as const
export const LOCAL_EXPERTS = { over: ['experts', 'expertParallelSize'] } as const
export const EXPERT_WEIGHT: Size = [LOCAL_EXPERTS, 'out', 'in']
export const ALL_COUNTS = ['worldRanks', 'experts'] as const
export const COUNTS_IN = i32('counts', 'experts', { values: { from: 0 } })
export const ALL_COUNTS_IN = i32('allCounts', ALL_COUNTS, { values: { from: 0 } })
/** Rows before dispatch: a token's choices, less what is beyond the capacity. */
export const SENT: Size = [{ least: [CHOICES, ['experts', 'capacity']] }, 'dim']
/** q | k | v of every token: H + 2 KV heads of d/H values. */
export const QKV: Size = ['batch', 'sequence', { plus: ['heads', [2, 'keyValueHeads']] }, { over: ['dim', 'heads'] }]
export const LSE: Size = ['batch', 'heads', 'sequence']

export const HEADS: readonly AttrName[] = ['batch', 'sequence', 'heads', 'keyValueHeads', 'dim']
export const SHARED_HEADS: Rule = { attr: 'heads', multipleOf: 'keyValueHeads' }
export const HEAD_RULES: readonly Rule[] = [SHARED_HEADS, { attr: 'dim', multipleOf: 'heads' }]
export const ROUTE: readonly AttrName[] = ['rows', 'dim', 'experts', 'topK', 'capacity']

const GROUP: readonly AttrName[] = ['experts', 'capacity', 'rank', 'expertParallelSize']
const WHOLE_EXPERTS: Rule = { attr: 'experts', multipleOf: 'expertParallelSize' }
export const ROUTED = { by: 'allCounts', attrs: GROUP, rules: [WHOLE_EXPERTS] } as const
export const ROUTED_IN_CHUNKS = {
  by: 'allCounts',
  attrs: [...GROUP, 'chunk', 'chunks'],
  rules: [WHOLE_EXPERTS, { attr: 'chunk', atMost: { minus: ['chunks', 1] } }],
} as const

/** An element that is not part of a product costs about as much as this many operations of one. */
export const ELEMENTWISE = 16

export const activation = (inputs: readonly BufferSpec[], output: BufferSpec): OpSpec =>
  compute({
    inputs: [...inputs, { ...ALL_COUNTS_IN, ...OPTIONAL }],
    outputs: [output],
    attrs: ['rows', 'dim'],
    routed: ROUTED_IN_CHUNKS,
    work: [ELEMENTWISE, 'rows', 'dim'],
  })
export const wide = (name: string): BufferSpec => act(name, { routed: [2, 'dim'] })
export const narrow = (name: string): BufferSpec => act(name, { routed: 'dim' })

export const LINEAR_WORK: Size = [2, 'rows', 'in', 'out']
export const SCORES: Size = ['batch', 'sequence', 'sequence', 'dim']
export const ROUTER_WORK: Size = [2, 'rows', 'dim', 'experts']
