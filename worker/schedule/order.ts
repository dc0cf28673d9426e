// The order of compute ops for a choice. The window of a unit is what its data dependencies leave free: backbone parts that neither feed the
// routed experts nor need them. For ScMoE at position 2 that is MLP, attention and shared expert; for a shared expert alone only that; for Top2
// nothing. Slot 1 lies before the window's first part, slot 2 before its second, and so on; the last after its last.

import { collectiveOf } from '../program/effects.ts'
import type { Op, Part } from '../program/program.ts'
import type { Split } from './chunks.ts'
import { ancestors, dependencies, descendants } from './dependencies.ts'
import { type Choice, ScheduleError, type Slot, type Times } from './types.ts'

type Phase = 'forward' | 'backward'

/** Parts that can lie in a window, in the order in which they run. */
const BACKBONE: Record<Phase, readonly Part[]> = {
  forward: ['attn0', 'mlp', 'attn1', 'shared'],
  backward: ['shared', 'attn1', 'mlp', 'attn0'],
}

/** Ops with what each must follow, and what a schedule may do with them. */
export interface Graph extends Split {
  before: readonly number[][]
  runs: readonly Run[]
}

/** Consecutive ops of one unit in one phase, or outside all units. */
interface Run {
  compute: readonly number[]
  /** Where the unit has experts. */
  group?: Group
}

/** Ops of one unit in one phase, by what the schedule does with them; compute ops but for the last two. */
interface Group {
  phase: Phase
  /** Feeds the experts; then what else feeds the window. */
  ahead: readonly number[]
  /** The experts and their weight gradients. */
  experts: readonly number[]
  /** Those weight gradients. */
  gradients: readonly number[]
  window: readonly (readonly number[])[]
  /** The others: most need the experts. */
  rest: readonly number[]
  /** All-to-alls that the experts need, and those that need the experts. */
  arrivals: readonly number[]
  returns: readonly number[]
}

export function graphOf(program: Split): Graph {
  const { ops } = program
  const before = dependencies(ops)
  const runs = stretches(ops).map((members): Run => {
    const compute = members.filter(index => ops[index]?.queue === 'compute')
    const experts = compute.filter(index => ops[index]?.segment.part === 'experts')
    return experts.length === 0 ? { compute } : { compute, group: groupOf({ ops, before }, members, experts) }
  })
  return { ...program, before, runs }
}

/** Slots this program has, per phase; empty where nothing can run beside the all-to-all. */
export function slots(graph: Graph): Record<Phase, Slot[]> {
  const result: Record<Phase, Slot[]> = { forward: [], backward: [] }
  for (const { group } of graph.runs) if (group) result[group.phase] = slotsOf(group)
  return result
}

const slotsOf = ({ window }: Group): Slot[] =>
  window.length === 0 ? [] : [...window.keys(), window.length].map(i => i + 1)

/**
 * Indices of compute ops in the order in which they run. With `times` (microseconds per op of the graph) weight gradients of the parts before a
 * slot go behind the experts where they are of more use there.
 */
export function computeOrder(graph: Graph, choice: Choice, times?: Times): number[] {
  return graph.runs.flatMap(({ compute, group }) => {
    if (choice.strategy !== 'Shortcut' || !group) return compute
    const slot = group.phase === 'forward' ? choice.forwardSlot : choice.backwardSlot
    demandSlot(group, slot)
    const early = group.window.slice(0, slot - 1).flat()
    const late = group.window.slice(slot - 1).flat()
    const moved = times ? movable(graph, { group, compute, early, late }, times) : new Set<number>()
    return [
      ...group.ahead,
      ...early.filter(index => !moved.has(index)),
      ...group.experts,
      ...early.filter(index => moved.has(index)),
      ...late,
      ...group.rest,
    ]
  })
}

/**
 * The order with weight gradients of experts behind all else of the backward pass, in the unit that comes last there: beside sums of dense
 * gradients, for which nothing else is left to compute. Of one unit alone, because what they read stays in memory until then.
 */
export function withLateGradients({ ops, runs, before }: Graph, order: readonly number[]): number[] {
  const own = runs.findLast(({ group }) => group?.phase === 'backward')?.group?.gradients ?? []
  const update = order.findIndex(index => ops[index]?.segment.phase === 'update')
  const [head, tail] = update < 0 ? [order, []] : [order.slice(0, update), order.slice(update)]
  const late = new Set<number>()
  for (const index of own.toReversed())
    if (!head.some(other => !late.has(other) && before[other]?.includes(index))) late.add(index)
  return [...head.filter(index => !late.has(index)), ...own.filter(index => late.has(index)), ...tail]
}

function demandSlot(group: Group, slot: Slot): void {
  const allowed = slotsOf(group)
  if (allowed.length === 0)
    throw new ScheduleError(
      'overlap.strategy is Shortcut, but this model has nothing to run beside its all-to-all: use Auto, Sequential or Pipelined, or model.kind ScMoE',
    )
  if (!allowed.includes(slot))
    throw new ScheduleError(
      `the ${group.phase} slot is ${slot}, but this model has the slots ${allowed.join(', ')}: use one of them`,
    )
}

interface Halves {
  group: Group
  compute: readonly number[]
  /** Of the window, before and after the slot. */
  early: readonly number[]
  late: readonly number[]
}

/**
 * Ops before the slot that no other op of the unit needs (weight gradients) and that better run behind the experts, from the last to the first:
 * the all-to-all before the experts is covered without them, the one after is not.
 */
function movable({ before }: Graph, { group, compute, early, late }: Halves, times: Times): Set<number> {
  const sum = (list: readonly number[]) => list.reduce((total, index) => total + (times[index] ?? 0), 0)
  const needed = new Set(compute.flatMap(index => before[index] ?? []))
  // The experts' own weight gradients run beside the second all-to-all.
  const own = group.experts.filter(
    index => !needed.has(index) && !group.returns.some(other => before[other]?.includes(index)),
  )
  let ahead = sum(early) - sum(group.arrivals)
  let behind = sum(late) + sum(own) - sum(group.returns)
  const moved = new Set<number>()
  for (const index of early.toReversed()) {
    const time = times[index] ?? 0
    if (needed.has(index) || ahead < time || behind >= 0) continue
    moved.add(index)
    ahead -= time
    behind += time
  }
  return moved
}

/** Consecutive ops of one unit in one phase, or outside all units. */
function stretches(ops: readonly Op[]): number[][] {
  const found: number[][] = []
  let last = ''
  for (const [index, { segment }] of ops.entries()) {
    const key = segment.unit < 0 ? 'outside' : `${segment.unit} ${segment.phase}`
    if (key !== last) found.push([])
    found.at(-1)?.push(index)
    last = key
  }
  return found
}

function groupOf(
  { ops, before }: Pick<Graph, 'ops' | 'before'>,
  members: readonly number[],
  routed: readonly number[],
): Group {
  const partOf = (index: number) => ops[index]?.segment.part
  const compute = members.filter(index => ops[index]?.queue === 'compute')
  const exchanges = members.filter(index => collectiveOf(ops[index]) === 'exchange')
  const phase = ops[members[0] ?? 0]?.segment.phase === 'forward' ? 'forward' : 'backward'
  const feeds = ancestors(before, members, new Set(routed))
  const needs = descendants(before, members, new Set(routed))
  const window = BACKBONE[phase]
    .map(part => compute.filter(index => partOf(index) === part && !feeds.has(index)))
    .filter(part => part.length > 0 && !part.some(index => needs.has(index)))
  const feedsWindow = ancestors(before, members, new Set(window.flat()))
  const inWindow = new Set(window.flat())
  const ahead = compute.filter(
    index => (feeds.has(index) || feedsWindow.has(index)) && !inWindow.has(index) && partOf(index) !== 'experts',
  )
  // Gradients of the same weights by DGMoE's other branch were added before: they go with them.
  const gradients = ancestors(before, members, new Set(compute.filter(index => partOf(index) === 'wgrad')))
  const placed = new Set([...ahead, ...routed, ...inWindow])
  const own = compute.filter(index => gradients.has(index) && !placed.has(index))
  return {
    phase,
    ahead: [...ahead.filter(index => feeds.has(index)), ...ahead.filter(index => !feeds.has(index))],
    experts: [...routed, ...own],
    gradients: own,
    window,
    rest: compute.filter(index => !placed.has(index) && !own.includes(index)),
    arrivals: exchanges.filter(index => feeds.has(index) && !needs.has(index)),
    returns: exchanges.filter(index => needs.has(index)),
  }
}
