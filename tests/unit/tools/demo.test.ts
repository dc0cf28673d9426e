// Tests of the decisions of the demo: its turns, the rate of the links that it looks for, when a
// turn does not count, and what it says at the end.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { manifestOf } from '../../../tools/demo/compare.ts'
import { type Ask, comparisonOf, next, PAIRS, type Turn } from '../../../tools/demo/plan.ts'
import { figuresOf } from '../../../tools/demo/result.ts'
import { comparisonTable, lastLine, speedLine, trainedLine, turnLine } from '../../../tools/demo/words.ts'

const QUIET = { others: 0.01, stolen: 0 }
const BUSY = { others: 0.4, stolen: 0.02 }

/**
 * A machine whose sequential job spends `half` Mbit/s worth of transfers as long as computation:
 * at this rate the share is 50 %, at half of it 67 %.
 */
interface Machine {
  half: number
  /** The tokens per second of a side in its n-th turn. */
  speed?: (side: Turn['side'], turn: number) => number
  taken?: (turn: number) => Turn['taken']
}

function turnOn({ half, speed, taken = () => QUIET }: Machine, ask: Ask, turn: number): Turn {
  const share = half / (half + ask.mbit)
  return {
    ...ask,
    tokensPerSecond: speed?.(ask.side, turn) ?? (ask.side === 'sequential' ? 5000 : 8000),
    stepMilliseconds: 1000,
    allToAllMilliseconds: 400,
    sharePercent: Math.round(100 * share),
    hiddenPercent: ask.side === 'sequential' ? 0 : 98,
    schedule: ask.side === 'sequential' ? 'sequential' : 'shortcut K=3',
    taken: taken(turn),
  }
}

function all(machine: Machine): Turn[] {
  const turns: Turn[] = []
  for (let ask = next(turns); ask !== undefined; ask = next(turns)) {
    turns.push(turnOn(machine, ask, turns.length + 1))
    expect(turns.length).toBeLessThan(30)
  }
  return turns
}

const sidesOf = (turns: readonly Turn[]) => turns.map(({ side }) => (side === 'sequential' ? 'q' : 'k')).join('')

describe('the rate of the links', () => {
  it.each([120, 300, 675, 2000, 20_000])(
    'is found where all-to-alls take three fifths of the time, on a machine where %i Mbit/s make it a half',
    half => {
      const comparison = comparisonOf(all({ half }))
      expect(comparison?.sides.sequential.sharePercent).toBeGreaterThanOrEqual(57)
      expect(comparison?.sides.sequential.sharePercent).toBeLessThanOrEqual(63)
    },
  )

  it('is not looked for any longer where a cluster does not limit its links', () => {
    const fixed = (ask: Ask, turn: number) => ({ ...turnOn({ half: 1 }, ask, turn), sharePercent: 12 })
    const turns: Turn[] = []
    for (let ask = next(turns); ask !== undefined; ask = next(turns)) turns.push(fixed(ask, turns.length + 1))
    expect(sidesOf(turns)).toBe('qqkkqqk')
    expect(comparisonOf(turns)?.sides.sequential.sharePercent).toBe(12)
  })
})

describe('the turns of the comparison', () => {
  it('alternate, the second pair in the other order, and the trial that found the rate is the first of them', () => {
    const turns = all({ half: 675 })
    expect(sidesOf(turns)).toBe('qkkqqk')
    expect(new Set(turns.map(({ mbit }) => mbit))).toEqual(new Set([450]))
    expect(turns.map(({ slot }) => slot)).toEqual([undefined, undefined, 3, undefined, undefined, 3])
  })

  // Seen failing with every turn counted.
  it('do not count while others use the machine, and are run again', () => {
    const turns = all({
      half: 675,
      taken: turn => (turn === 2 || turn === 4 ? BUSY : QUIET),
      speed: (side, turn) => (turn === 2 ? 100 : side === 'sequential' ? 5000 : 8000),
    })
    expect(sidesOf(turns)).toBe('qkkkkqqk')
    expect(comparisonOf(turns)).toMatchObject({ ratio: 1.6, lowest: 1.6, highest: 1.6 })
  })

  it('give no ratio but say why, if the machine stays busy', () => {
    const turns = all({ half: 675, taken: turn => (turn > 3 ? BUSY : QUIET) })
    expect(turns.length).toBe(3 + 5)
    expect(comparisonOf(turns)).toBeUndefined()
    expect(speedLine(turns, undefined)).toBe(
      '2. There is no ratio, because this machine was not its own: in 5 of 8 turns others took 40.0 % of the processors, ' +
        'the hypervisor 2.0 % at most, and a turn counts up to 5 %. Stop other programs and run it again.',
    )
    expect(turnLine(turns[4] ?? turnOn({ half: 1 }, { side: 'shortcut', mbit: 1 }, 1))).toContain(
      'DISTURBED, does not count',
    )
  })

  it('give the ratio of the medians with the lowest and highest of the pairs', () => {
    const speeds = { sequential: [5000, 5200, 4000], shortcut: [8000, 7800, 8200] }
    const counts = { sequential: 0, shortcut: 0 }
    const turns = all({ half: 675, speed: side => speeds[side][counts[side]++] ?? 0 })
    const comparison = comparisonOf(turns)
    expect(comparison).toMatchObject({ ratio: 1.6, lowest: 1.5, highest: 2.05, mbit: 450 })
    expect(comparison && figuresOf(comparison)[0]).toMatchObject({ value: 1.6, unit: 'x', low: 1.5, high: 2.05 })
    expect(speedLine(turns, comparison)).toBe(
      `2. Here ScMoE has 1.60 x the tokens/s of a usual model (1.50 to 2.05 in ${PAIRS} pairs of turns), where the usual ` +
        "model's expert layers wait 60 % of their time for the network (450 Mbit/s); ScMoE hides 98 % of that traffic behind computation.",
    )
    expect(comparison && comparisonTable(comparison)).toEqual([
      '                    TOK/S  STEP-MS  ALL-TO-ALL-MS  OF MOE  HIDDEN  SCHEDULE',
      'top-2, in sequence   5000     1000            400    60 %     0 %  sequential',
      'ScMoE, shortcut      8000     1000            400    60 %    98 %  shortcut K=3',
    ])
  })
})

it('each turn is a job that the API accepts, with the rate, the slot and fewer steps if it has nothing to choose', () => {
  const steps = (ask: Ask) => /steps: (\d+)/.exec(manifestOf(ask, 'turn'))?.[1]
  expect(steps({ side: 'shortcut', mbit: 1 })).toBe('28')
  expect(steps({ side: 'shortcut', mbit: 1, slot: 3 })).toBe('10')
  expect(manifestOf({ side: 'shortcut', mbit: 1, slot: 3 }, 'turn')).toContain('slot: 3')
  for (const side of ['sequential', 'shortcut'] as const) {
    const { metadata, spec } = parse(manifestOf({ side, mbit: 321 }, `turn-1-${side}`))
    expect(metadata.name).toBe(`turn-1-${side}`)
    const parsed = ScMoEJobSpec.parse(spec)
    expect(parsed.training.steps).toBe(parsed.training.evaluation.everySteps)
    expect(JSON.stringify(spec)).toContain('"kubernetes.io/ingress-bandwidth":"321M"')
  }
})

describe('the three lines at the end', () => {
  const job = {
    metadata: { name: 'moby-dick' },
    spec: { workers: { replicas: 2 } },
    status: { progress: { step: 200, initialEvaluationLossMilli: 5566, evaluationLossMilli: 2436 } },
  }

  it('say that it works, how much faster it is, and what is next', () => {
    expect(trainedLine(job)).toBe(
      '1. It works here: a real Kubernetes trained a language model on 2 pods. In 200 steps its loss on unseen text fell from 5.57 to 2.44.',
    )
    expect(speedLine([], undefined)).toContain('--only-training')
    expect(lastLine(undefined, 'scmoe-out/demo/moby-dick')).toMatch(
      /^3\. Everything that ran is gone again\. .*README\.md\.$/,
    )
    expect(lastLine({ kubeconfig: '/k' }, undefined)).toContain('export KUBECONFIG=/k')
    expect(readFileSync('README.md', 'utf8')).toContain('## In your cluster')
  })
})
