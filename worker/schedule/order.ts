// The order of compute ops for a choice. The window of a pair is what its data dependencies leave free: backbone parts that neither feed the
// routed experts nor need them. For ScMoE that is MLP, attention and shared expert; for a shared expert alone only that; for Top2 nothing.

import type { Op, Part } from '../program/program.ts'
import { ancestors, descendants } from './dependencies.ts'
import { type Choice, ScheduleError, type Slot } from './types.ts'

/** Parts in the order of their slots: the routed experts run in slot i just before part i, in slot 4 after the last. */
const SLOTS: Record<'forward' | 'backward', readonly Part[]> = {
  forward: ['mlp', 'attn1', 'shared'],
  backward: ['shared', 'attn1', 'mlp'],
}

/** Ops of one pair in one phase, by what the schedule does with them; indices of compute ops. */
interface Group {
  phase: 'forward' | 'backward'
  /** Feeds the experts. */
  ahead: number[]
  /** The experts and their weight gradients. */
  experts: number[]
  window: { part: Part; ops: number[] }[]
  /** Needs the experts. */
  rest: number[]
}

export interface Graph {
  ops: readonly Op[]
  before: readonly number[][]
}

/** Slots this program has, per phase; empty where nothing can run beside the all-to-all. */
export function slots(graph: Graph): { forward: Slot[]; backward: Slot[] } {
  const result: { forward: Slot[]; backward: Slot[] } = { forward: [], backward: [] }
  for (const run of pairRuns(graph.ops)) {
    const { phase, window } = groupOf(graph, run)
    result[phase] = slotsOf(
      phase,
      window.map(({ part }) => part),
    )
  }
  return result
}

function slotsOf(phase: 'forward' | 'backward', parts: Part[]): Slot[] {
  if (parts.length === 0) return []
  const numbers = parts.map(part => SLOTS[phase].indexOf(part) + 1)
  return [...numbers, Math.max(...numbers) + 1].filter((slot): slot is Slot => slot >= 1 && slot <= 4)
}

/** Indices of compute ops in the order in which they run. */
export function computeOrder(graph: Graph, choice: Choice): number[] {
  const all = graph.ops.flatMap((op, index) => (op.queue === 'compute' ? [index] : []))
  if (choice.strategy === 'Sequential') return all
  const order: number[] = []
  let next = 0
  for (const run of pairRuns(graph.ops)) {
    const group = groupOf(graph, run)
    const slot = group.phase === 'forward' ? choice.forwardSlot : choice.backwardSlot
    while (next < all.length && (all[next] ?? 0) < (run[0] ?? 0)) order.push(all[next++] ?? 0)
    const placed = arrange(group, slot)
    order.push(...placed)
    next += placed.length
  }
  return [...order, ...all.slice(next)]
}

function arrange({ phase, ahead, experts, window, rest }: Group, slot: Slot): number[] {
  const allowed = slotsOf(
    phase,
    window.map(({ part }) => part),
  )
  if (allowed.length === 0)
    throw new ScheduleError(
      'this model has nothing to run beside its all-to-all: strategy Shortcut needs kind ScMoE or SharedExpert; use Sequential or Auto',
    )
  if (!allowed.includes(slot))
    throw new ScheduleError(`this model has no ${phase} slot ${slot}; it has ${allowed.join(', ')}`)
  const order = [...ahead]
  for (const { part, ops } of window) {
    if (SLOTS[phase].indexOf(part) + 1 === slot) order.push(...experts)
    order.push(...ops)
  }
  if (slot === allowed.at(-1)) order.push(...experts)
  return [...order, ...rest]
}

/** Consecutive ops of one pair in one phase. */
function pairRuns(ops: readonly Op[]): number[][] {
  const runs: number[][] = []
  let last = ''
  for (const [index, { segment }] of ops.entries()) {
    const key = `${segment.pair} ${segment.phase}`
    if (segment.pair >= 0 && key !== last) runs.push([])
    if (segment.pair >= 0) runs.at(-1)?.push(index)
    last = key
  }
  return runs
}

function groupOf({ ops, before }: Graph, run: readonly number[]): Group {
  const partOf = (index: number) => ops[index]?.segment.part
  const compute = run.filter(index => ops[index]?.queue === 'compute')
  const experts = new Set(compute.filter(index => partOf(index) === 'experts'))
  const needed = ancestors(before, run, experts)
  const needing = descendants(before, run, experts)
  const phase = ops[run[0] ?? 0]?.segment.phase === 'forward' ? 'forward' : 'backward'
  const free = SLOTS[phase].map(part => ({ part, ops: compute.filter(index => partOf(index) === part) }))
  const window = free.filter(({ ops: list }) => list.length > 0 && list.every(i => !needed.has(i) && !needing.has(i)))
  const inWindow = new Set(window.flatMap(part => part.ops))
  const own = (index: number) => partOf(index) === 'experts' || partOf(index) === 'wgrad'
  return {
    phase,
    ahead: compute.filter(index => needed.has(index) && !own(index)),
    experts: compute.filter(own),
    window,
    rest: compute.filter(index => !needed.has(index) && !own(index) && !inWindow.has(index)),
  }
}
