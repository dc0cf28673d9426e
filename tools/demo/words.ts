// The sentences and tables of the demo. Pure.

import { fixed, table } from '../../bench/report.ts'
import type { Taken } from '../../bench/turns/load.ts'
import { isQuiet, LIMIT_PERCENT } from '../../bench/turns/watch.ts'
import type { Job } from './follow.ts'
import type { Ask, Comparison, Side, Turn } from './plan.ts'
import { PAIRS } from './plan.ts'

const NAMES: Record<Side, string> = { sequential: 'top-2, in sequence', shortcut: 'ScMoE, shortcut' }

export const askLine = ({ side, mbit }: Ask, turn: number): string =>
  `turn ${turn}: ${NAMES[side]}, links of ${mbit} Mbit/s`

const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const taking = ({ others, stolen }: Taken) =>
  `others took ${percent(others)} of the processors, the hypervisor ${percent(stolen)}`

export function turnLine(turn: Turn): string {
  const { tokensPerSecond, sharePercent, hiddenPercent, taken } = turn
  const figures = `${tokensPerSecond} tokens/s, all-to-all ${sharePercent} % of MoE time, ${hiddenPercent} % hidden`
  return `${figures}; ${taking(taken)}${isQuiet(taken) ? '' : ': DISTURBED, does not count'}`
}

/** A row of medians for each side. */
export function comparisonTable({ sides }: Comparison): string[] {
  const head = ['', 'TOK/S', 'STEP-MS', 'ALL-TO-ALL-MS', 'OF MOE', 'HIDDEN', 'SCHEDULE']
  const rows = (['sequential', 'shortcut'] as const).map(side => {
    const { tokensPerSecond, stepMilliseconds, allToAllMilliseconds, sharePercent, hiddenPercent, schedule } =
      sides[side]
    const numbers = [tokensPerSecond, stepMilliseconds, allToAllMilliseconds].map(value => fixed(value, 0))
    return [NAMES[side], ...numbers, `${sharePercent} %`, `${hiddenPercent} %`, schedule]
  })
  return table(head, rows).split('\n')
}

const nats = (milli: number | undefined): string => (milli === undefined ? '?' : (milli / 1000).toFixed(2))

/** The first of the three closing lines. */
export function trainedLine({ spec, status }: Job): string {
  const { initialEvaluationLossMilli: before, evaluationLossMilli: after, step = 0 } = status?.progress ?? {}
  return (
    `1. It works here: a real Kubernetes trained a language model on ${spec.workers?.replicas ?? '?'} pods. ` +
    `In ${step} steps its loss on unseen text fell from ${nats(before)} to ${nats(after)}.`
  )
}

const NOT_COMPARED = '2. Speed was not compared, because --only-training was given.'

/** The second one: how much faster, or why that cannot be said. */
export function speedLine(turns: readonly Turn[], comparison: Comparison | undefined): string {
  if (turns.length === 0) return NOT_COMPARED
  if (comparison === undefined) return notItsOwn(turns)
  const { ratio, lowest, highest, sides, mbit } = comparison
  const { sequential, shortcut } = sides
  return (
    `2. Here ScMoE has ${ratio.toFixed(2)} x the tokens/s of a usual model (${lowest.toFixed(2)} to ${highest.toFixed(2)} in ` +
    `${PAIRS} pairs of turns), where the usual model's expert layers wait ${sequential.sharePercent} % of their time for ` +
    `the network (${mbit} Mbit/s); ScMoE hides ${shortcut.hiddenPercent} % of that traffic behind computation.`
  )
}

function notItsOwn(turns: readonly Turn[]): string {
  const disturbed = turns.filter(({ taken }) => !isQuiet(taken))
  const most = (value: (taken: Taken) => number) => Math.max(...disturbed.map(({ taken }) => value(taken)))
  const taken = { others: most(each => each.others), stolen: most(each => each.stolen) }
  return (
    `2. There is no ratio, because this machine was not its own: in ${disturbed.length} of ${turns.length} turns ${taking(taken)} ` +
    `at most, and a turn counts up to ${LIMIT_PERCENT} %. Stop other programs and run it again.`
  )
}

/** The third one. */
export function lastLine(kept: { kubeconfig: string } | undefined, output: string | undefined): string {
  const end =
    kept === undefined
      ? 'Everything that ran is gone again.'
      : `The cluster is kept: export KUBECONFIG=${kept.kubeconfig} (npm run demo:down ends it).`
  const files = output === undefined ? '' : ` Its checkpoints and a trace for https://ui.perfetto.dev are in ${output}.`
  return `3. ${end}${files} The next step, your own cluster, is in README.md.`
}
