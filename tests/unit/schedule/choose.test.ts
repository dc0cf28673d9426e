// Tests of the choice of a schedule from predictions.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { emitEvaluate, emitTrain } from '../../../worker/emit/emit.ts'
import type { Emitted } from '../../../worker/program/program.ts'
import {
  assemble,
  type Choice,
  choices,
  choose,
  describe as describeChoice,
  makespan,
  type Profile,
  schedule,
  type Wish,
} from '../../../worker/schedule/schedule.ts'
import { choiceOf, configOf, job, measured, profileOf, wish } from '../../support/program-arbitraries.ts'

const RANKS = { units: 1, worldSize: 2, expertParallelSize: 2, expertsPerRank: 2 } as const
const AUTO: Wish = { strategy: 'Auto' }
const ROUNDING = 1 + 1e-9

/**
 * The predicted length of a schedule as `scmoe plan` computes it. The predictor shares the clock
 * with the search, but not its shortcuts.
 */
const predicted = (emitted: Emitted, choice: Choice, profile: Profile) =>
  makespan(schedule(emitted, choice, profile), emitted, profile).total

const firstOfEach = (list: readonly Choice[]) =>
  [...Map.groupBy(list, ({ strategy }) => strategy).values()].flatMap(same => same.slice(0, 1))

describe('auto', () => {
  // Seen failing with the slowest or the last of all, with the times of the first rank alone, and
  // where a larger slack counted for more than time.
  it('takes what it was predicted to, and no longer than any fixed choice or any narrower wish', () => {
    fc.assert(
      fc.property(job, measured, wish, (shape, time, wanted) => {
        const config = configOf(shape)
        const emitted = emitTrain(config, 0)
        const profile = profileOf(emitted, config.worldSize, time)
        const fixed = choices(emitted, AUTO)
        const best = choose(emitted, profile, AUTO)
        expect(best.candidates.map(({ choice }) => choice)).toEqual(fixed)
        for (const candidate of best.candidates)
          expect(best.predicted).toBeLessThanOrEqual(ROUNDING * candidate.predicted)
        expect(predicted(emitted, best.choice, profile) / (best.predicted || 1)).toBeCloseTo(best.predicted ? 1 : 0, 9)
        // One choice of each strategy, and one more, as if the user had asked for them.
        const some = [choiceOf(wanted, fixed), ...firstOfEach(fixed)]
        for (const choice of some) {
          const longest = ROUNDING * predicted(emitted, choice, profile)
          expect(best.predicted, describeChoice(choice)).toBeLessThanOrEqual(longest)
        }
        const { strategy } = choiceOf(wanted, fixed)
        expect(best.predicted).toBeLessThanOrEqual(ROUNDING * choose(emitted, profile, { strategy }).predicted)
      }),
      { numRuns: 15 },
    )
  })

  // Seen failing where rank 1 took the last of all.
  it('is the same on every rank, op by op, and the same again from the same times', () => {
    fc.assert(
      fc.property(job, measured, (shape, time) => {
        const config = configOf(shape)
        const profile = profileOf(emitTrain(config, 0), config.worldSize, time)
        const ranks = Array.from({ length: config.worldSize }, (_, rank) =>
          choose(emitTrain(config, rank), profile, AUTO),
        )
        // Ranks write different counts and embeddings, so their programs differ in attributes only.
        const common = ranks.map(({ choice, scheduled: { name, ops } }) => ({
          choice,
          name,
          ops: ops.map(({ op, label, queue, inputs, outputs, waits, attrs }) => {
            const { rank: _, ...rest } = attrs
            return { op, label, queue, inputs, outputs, waits, attrs: rest }
          }),
        }))
        for (const other of common) expect(other).toEqual(common[0])
        const rank = config.worldSize - 1
        const [once, again] = [ranks[rank], choose(emitTrain(config, rank), profile, AUTO)].map(
          plan => plan && JSON.stringify(assemble(plan.scheduled, config, rank)),
        )
        expect(again).toBe(once)
      }),
      { numRuns: 5 },
    )
  })
})

describe('with measured times', () => {
  /** Times of compute, of all-to-alls and of sums over ranks, each a list that is repeated. */
  const list = (most: number) => fc.array(fc.nat(most), { minLength: 1, maxLength: 13 })
  const times = fc.record({ compute: list(100), exchange: list(1000), sum: list(500) })
  const shapes = fc.record({
    kind: fc.constantFrom('ScMoE' as const, 'DGMoE' as const, 'SharedExpert' as const),
    units: fc.integer({ min: 2, max: 3 }),
  })

  // Seen failing with weight gradients moved whether it helps or not, and with all sums at the end
  // or where they are ready first.
  it('a schedule is not predicted to take longer than without', () => {
    fc.assert(
      fc.property(shapes, times, wish, (shape, { compute, exchange, sum }, wanted) => {
        const emitted = emitTrain(configOf({ ...RANKS, ...shape }), 0)
        const own = Float64Array.from(emitted.ops, ({ op, queue }, at) => {
          const kind = queue === 'compute' ? compute : op === 'all_reduce' ? sum : exchange
          return kind[at % kind.length] ?? 0
        })
        const profile = { times: [own], contention: 0, latency: 0 }
        const choice = choiceOf(wanted, choices(emitted, { strategy: 'Shortcut' }))
        const { total } = makespan(schedule(emitted, choice), emitted, profile)
        expect(predicted(emitted, choice, profile)).toBeLessThanOrEqual(ROUNDING * total)
      }),
      { numRuns: 100 },
    )
  })
})

/** The microseconds of the parts of one unit in the forward pass. */
interface Parts {
  dispatch: number
  combine: number
  mlp: number
  attn1: number
  shared: number
  experts: number
}
const WINDOW = ['mlp', 'attn1', 'shared'] as const

function forward(kind: 'ScMoE' | 'Top2', parts: Parts): { emitted: Emitted; profile: Profile } {
  const emitted = emitEvaluate(configOf({ ...RANKS, kind }), 0)
  const known = new Map<string, number>(Object.entries(parts))
  const count = (part: string) => emitted.ops.filter(op => op.segment.part === part).length
  const times = Float64Array.from(emitted.ops, ({ segment: { part } }) => (known.get(part) ?? 0) / count(part))
  return { emitted, profile: { times: [times], contention: 0, latency: 0 } }
}

describe('the choice', () => {
  const time = fc.integer({ min: 0, max: 20 })
  const anyParts = fc.record({ dispatch: time, combine: time, mlp: time, attn1: time, shared: time, experts: time })

  // From the formulas alone: makespan(K) and the least slack. Seen failing with the smaller slack,
  // and with the later of equal ones.
  it('is the slot of the shortest step; of equal ones that with the larger least slack, then the first', () => {
    fc.assert(
      fc.property(anyParts, parts => {
        const { emitted, profile } = forward('ScMoE', parts)
        const { choice, slack } = choose(emitted, profile, { strategy: 'Shortcut', chunks: 1 })
        const sum = (list: readonly (keyof Parts)[]) => list.reduce((all, part) => all + parts[part], 0)
        const slots = [1, 2, 3, 4].map(slot => {
          const ahead = sum(WINDOW.slice(0, slot - 1)) - parts.dispatch
          const behind = sum(WINDOW.slice(slot - 1)) - parts.combine
          return { slot, exposed: Math.max(0, -ahead) + Math.max(0, -behind), least: Math.min(ahead, behind) }
        })
        const [best] = slots.toSorted((a, b) => a.exposed - b.exposed || b.least - a.least || a.slot - b.slot)
        expect(choice).toEqual({ strategy: 'Shortcut', forwardSlot: best?.slot, backwardSlot: 1, chunks: 1 })
        expect(slack).toBeCloseTo(best?.least ?? Number.NaN, 9)
      }),
    )
  })

  // Seen failing with more chunks.
  it('is that with fewer chunks where more are of no use', () => {
    // The times are so long that the microsecond which a chunk costs is lost in rounding.
    const parts = { dispatch: 8e13, combine: 8e13, mlp: 9e13, attn1: 9e13, shared: 9e13, experts: 9e13 }
    const { emitted, profile } = forward('ScMoE', parts)
    const { choice, candidates } = choose(emitted, profile, { strategy: 'Shortcut', slot: 2 })
    expect(new Set(candidates.map(({ predicted: total }) => total.toPrecision(9))).size).toBe(1)
    expect(choice).toMatchObject({ chunks: 1 })
  })

  // Seen failing without pipelining.
  it('splits where the window is too short for what travels, and does not where it is long enough', () => {
    const long = { dispatch: 100e3, combine: 100e3, experts: 60e3 }
    const few = { mlp: 10e3, attn1: 10e3, shared: 10e3 }
    const chosen = (kind: 'ScMoE' | 'Top2', parts: Parts) => {
      const { emitted, profile } = forward(kind, parts)
      return choose(emitted, profile, AUTO).choice
    }
    const split = chosen('ScMoE', { ...long, ...few })
    expect(split).toMatchObject({ strategy: 'Shortcut' })
    expect(split).not.toMatchObject({ chunks: 1 })
    expect(chosen('Top2', { ...long, ...few })).toMatchObject({ strategy: 'Pipelined' })
    expect(chosen('ScMoE', { ...few, dispatch: 9e3, combine: 9e3, experts: 60e3 })).toEqual({
      strategy: 'Shortcut',
      forwardSlot: 2,
      backwardSlot: 1,
      chunks: 1,
    })
  })
})

describe('a wish', () => {
  const emitted = emitTrain(configOf({ ...RANKS, kind: 'ScMoE' }), 0)

  // Seen failing with slot or chunks ignored.
  it('leaves the schedules that it names', () => {
    fc.assert(
      fc.property(
        job,
        fc.constantFrom('Auto' as const, 'Sequential' as const, 'Pipelined' as const, 'Shortcut' as const),
        fc.constantFrom(undefined, 1, 2, 3, 4, 5),
        fc.constantFrom(undefined, 1, 2, 4, 8),
        (shape, strategy, slot, chunks) => {
          const program = emitTrain(configOf(shape), 0)
          const all = choices(program, AUTO)
          const asked = { strategy, slot, chunks }
          const list = attempt(() => choices(program, asked))
          if (list === undefined) return
          expect(list.length).toBeGreaterThan(0)
          const isMeant = (choice: Choice) =>
            (strategy === 'Auto' || choice.strategy === strategy) &&
            (slot === undefined || choice.strategy !== 'Shortcut' || choice.forwardSlot === slot) &&
            (chunks === undefined || choice.strategy === 'Sequential' || choice.chunks === chunks)
          expect(list).toEqual(all.filter(isMeant))
        },
      ),
    )
  })

  // Rules refuse jobs with such wishes (tests/unit/crds/agreement.test.ts).
  it.each([
    ['Shortcut', 'Top2'],
    ['Shortcut', 'Dense'],
    ['Pipelined', 'Dense'],
  ] as const)('for %s is an error for %s', (strategy, kind) => {
    const program = emitTrain(configOf({ ...RANKS, kind }), 0)
    expect(() => choices(program, { strategy })).toThrow(/has no schedule/)
  })

  it('for chunks or a slot that are not there is refused by the schedule itself', () => {
    const shortcut = (forwardSlot: number, chunks: number) =>
      schedule(emitted, { strategy: 'Shortcut', forwardSlot, backwardSlot: 1, chunks })
    expect(() => shortcut(6, 1)).toThrow(/forward slot is 6, but this model has 4 slots: use one from 1 to 4/)
    expect(() => shortcut(1, 0)).toThrow(/no schedules in 0 chunks/)
  })
})

/** Undefined if the model has no such schedule. */
function attempt<T>(run: () => T): T | undefined {
  try {
    return run()
  } catch (error) {
    if (error instanceof Error && error.name === 'ScheduleError') return undefined
    throw error
  }
}
