// The order of compute ops for a choice. The window of a unit has the backbone parts that neither
// feed the routed experts nor need them. For ScMoE at position 2 these are MLP, attention and
// shared expert; for a model with only a shared expert, that expert; for Top2 there are none. The
// experts run in a slot of the window: slot 1 lies before its first part, slot 2 before its second
// part, and so on; the last slot lies after its last part.

import { collectiveOf } from '../program/effects.ts'
import type { Op, Part } from '../program/program.ts'
import type { Split } from './chunks.ts'
import { ancestors, dependencies, descendants } from './dependencies.ts'
import { type Choice, ScheduleError, type Slot, type Times } from './types.ts'

type Phase = 'forward' | 'backward'

/** The parts that can be in a window, in the order in which they run. */
const BACKBONE: Record<Phase, readonly Part[]> = {
  forward: ['attn0', 'mlp', 'attn1', 'shared'],
  backward: ['shared', 'attn1', 'mlp', 'attn0'],
}

/** Ops with their dependencies, and with the parts of which a schedule is made. */
export interface Graph extends Split {
  /** For each op, the indices of the earlier ops that it must follow. */
  before: readonly number[][]
  runs: readonly Run[]
}

/** Consecutive ops of one unit in one phase, or consecutive ops outside all units. */
interface Run {
  compute: readonly number[]
  /** Present if the unit has experts. */
  group?: Group
}

/**
 * The ops of one unit in one phase, by what a schedule does with them. All but the last two fields
 * have compute ops.
 */
interface Group {
  phase: Phase
  /** Ops that feed the experts, then other ops that feed the window. */
  ahead: readonly number[]
  /** Ops of the experts and of their weight gradients. */
  experts: readonly number[]
  /** The weight gradients of the experts. */
  gradients: readonly number[]
  /** The parts of the window, in the order in which they run. */
  window: readonly (readonly number[])[]
  /** All other ops. Most of them need the experts. */
  rest: readonly number[]
  /** All-to-alls that the experts need. */
  arrivals: readonly number[]
  /** All-to-alls that need the experts. */
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

/** The slots of this program in each phase; none if nothing can run beside the all-to-all. */
export function slots(graph: Graph): Record<Phase, Slot[]> {
  const result: Record<Phase, Slot[]> = { forward: [], backward: [] }
  for (const { group } of graph.runs) if (group) result[group.phase] = slotsOf(group)
  return result
}

const slotsOf = ({ window }: Group): Slot[] =>
  window.length === 0 ? [] : [...window.keys(), window.length].map(i => i + 1)

/**
 * The indices of compute ops in the order in which they run. With `times` (microseconds for each op
 * of the graph), weight gradients of the parts before a slot go behind the experts if they hide
 * more communication there.
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
 * Moves the weight gradients of the experts to the end of the backward pass, where they run beside
 * sums of dense gradients, for which nothing else is left to compute. Only the unit that comes last
 * in the backward pass is changed, because what its weight gradients read stays in memory until
 * then.
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
  if (!allowed.includes(slot))
    throw new ScheduleError(
      `the ${group.phase} slot is ${slot}, but this model has ${allowed.length} slots: use one from 1 to ${allowed.length}, or another strategy`,
    )
}

interface Halves {
  group: Group
  compute: readonly number[]
  /** Ops of the window before the slot. */
  early: readonly number[]
  /** Ops of the window after the slot. */
  late: readonly number[]
}

/**
 * The ops before the slot that had better run behind the experts, from the last to the first. They
 * are ops that no other op of the unit needs (weight gradients). They move while the all-to-all
 * before the experts is hidden without them and the one after the experts is not.
 */
function movable({ before }: Graph, { group, compute, early, late }: Halves, times: Times): Set<number> {
  const sum = (list: readonly number[]) => list.reduce((total, index) => total + (times[index] ?? 0), 0)
  const needed = new Set(compute.flatMap(index => before[index] ?? []))
  // The weight gradients of the experts run beside the second all-to-all.
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

/** Indices of consecutive ops of one unit in one phase, or of consecutive ops outside all units. */
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
  // In DGMoE, the other branch's gradients of the same weights come first and move along.
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
