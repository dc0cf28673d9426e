// The last words of a run, and its exit code.

import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { styleText } from 'node:util'
import { z } from 'zod'
import { EXIT, plainText } from '../../crds/contract.ts'
import { readable } from '../cluster/log-line.ts'
import { plural } from '../sentence.ts'
import type { RankEnd } from './gang.ts'
import { newestCheckpoint, resultsIn } from './output-folder.ts'
import { exitCodeOf, type Request } from './stops.ts'

export interface Ended {
  name: string
  output: string
  /** `spec.training.steps`. */
  totalSteps: number
  /** The end that caused the others comes first. */
  ends: readonly RankEnd[]
  /** The signals that this process got. */
  request: Request | undefined
  /** Whether this run did at least one step. */
  trained: boolean
}

export type Outcome = 'done' | 'stopped' | 'killed' | 'failed'

export function outcomeOf({ ends: [first], request }: Pick<Ended, 'ends' | 'request'>): Outcome {
  if (first?.code === EXIT.ok.code) return 'done'
  if (request?.again) return 'killed'
  return first?.code === EXIT.terminated.code ? 'stopped' : 'failed'
}

export function exitCode(ended: Pick<Ended, 'ends' | 'request'>): number {
  const outcome = outcomeOf(ended)
  const wasAsked = outcome === 'stopped' || outcome === 'killed'
  if (wasAsked && ended.request !== undefined) return exitCodeOf(ended.request.signal)
  return ended.ends[0]?.code ?? EXIT.internal.code
}

/** The line that `--json` prints. */
export function asJson(ended: Ended): string {
  const { name, output, trained, ends, request } = ended
  const outcome = outcomeOf(ended)
  const stopped = outcome === 'stopped' || outcome === 'killed'
  return JSON.stringify({
    name,
    exitCode: exitCode(ended),
    outcome,
    output,
    trained,
    ...(stopped && {
      stopped: { signal: request?.signal, step: stepOf(ends), checkpointStep: newestCheckpoint(output) },
    }),
    failure: outcome === 'failed' ? ends[0]?.failure : undefined,
    summary: outcome === 'done' || outcome === 'stopped' ? readSummary(output) : undefined,
  })
}

/** Prints what people need to know. */
export function say(ended: Ended): void {
  const outcome = outcomeOf(ended)
  if (outcome === 'failed') console.error(failureText(ended))
  else console.log(outcome === 'done' ? doneText(ended) : stoppedText(ended, outcome))
}

function doneText({ output, trained }: Ended): string {
  const summary = readSummary(output)
  const did = trained ? '' : 'all steps were done already, by an earlier run, and this one changed nothing: '
  const files = `      ${output}: ${resultsIn(output).join(', ')}`
  const lines = [`${styleText('green', 'done')}  ${did}${summary ? summaryLine(summary) : ''}`, files]
  if (trained) return lines.join('\n')
  const more = summary === undefined ? 'a larger number' : `more than ${summary.steps}`
  return [...lines, `      To train on, give --steps ${more}; to train anew, give another folder with --output.`].join(
    '\n',
  )
}

function stoppedText({ output, totalSteps, ends }: Ended, outcome: Outcome): string {
  const step = stepOf(ends)
  const saved = newestCheckpoint(output)
  const resume =
    saved === undefined
      ? 'there is no checkpoint, so the same command starts again at the first step'
      : `the same command continues from the checkpoint of step ${saved} in ${output}`
  if (outcome === 'killed') return `ended at once, without a checkpoint of the last steps; ${resume}`
  const where = step === undefined || step === 0 ? 'before the first step' : `after step ${step} of ${totalSteps}`
  return `stopped ${where}; ${resume}`
}

const stepOf = (ends: readonly RankEnd[]) => ends.find(({ rank }) => rank === 0)?.progress?.step

function failureText({ output, ends: [first] }: Ended): string {
  const log = join(output, 'logs', `rank-${first?.rank}.log`)
  const why = first === undefined ? 'no rank was started' : (reasonOf(first) ?? `${silentEnd(first)}${lastLines(log)}`)
  const failed = styleText('red', 'failed', { stream: process.stderr })
  return `${failed}  rank ${first?.rank}: ${plainText(why)}\nLog: ${log}`
}

function reasonOf({ failure }: RankEnd): string | undefined {
  if (failure?.reason !== 'portInUse') return failure?.message
  // The worker's advice is about fields and variables that a local run chooses by itself.
  return 'other processes took each port that was chosen for it before it could listen: run the command again'
}

function silentEnd({ code }: RankEnd): string {
  const signal = Object.entries(constants.signals).find(([, number]) => code === 128 + number)?.[0]
  const cause =
    signal === 'SIGKILL' ? '. The kernel does this when memory runs out: `scmoe plan` shows what a rank needs' : ''
  return `ended with code ${code}${signal ? ` (${signal})` : ''} without saying why${cause}`
}

/** The last lines that a process printed, for one that left no termination record. */
function lastLines(path: string): string {
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(-3)
  return lines.map(line => `\n  ${readable(line).slice(0, 200)}`).join('')
}

const Losses = z.object({ first: z.number().optional(), last: z.number().optional(), step: z.number().optional() })
/** The fields of summary.json that are shown. */
const Summary = z.looseObject({
  steps: z.number(),
  /** The step from which the last run that trained continued. */
  resumedAt: z.number().default(0),
  loss: Losses,
  evaluationLoss: Losses,
  tokensPerSecond: z.number().optional(),
  overlapPercent: z.number().optional(),
  schedule: z.string().optional(),
})
type Summary = z.infer<typeof Summary>

const change = ({ first, last }: z.infer<typeof Losses>) => `${first?.toFixed(3) ?? '?'} -> ${last?.toFixed(3) ?? '?'}`

function summaryLine(summary: Summary): string {
  const { steps, resumedAt, loss, evaluationLoss, tokensPerSecond, overlapPercent, schedule } = summary
  const { step = steps } = evaluationLoss
  const parts = [
    `${plural(steps, 'step')}${resumedAt > 0 && resumedAt < steps ? `, from step ${resumedAt} on in the last run` : ''}`,
    `loss ${change(loss)}`,
    `evaluation ${change(evaluationLoss)}${step === steps ? '' : ` at step ${step}`}`,
    tokensPerSecond !== undefined && `${Math.round(tokensPerSecond)} tokens/s`,
    overlapPercent !== undefined && `overlap ${Math.round(overlapPercent)} %`,
    schedule,
  ]
  return parts.filter(Boolean).join('  ')
}

function readSummary(output: string): Summary | undefined {
  try {
    return Summary.parse(JSON.parse(readFileSync(join(output, 'summary.json'), 'utf8')))
  } catch {
    return undefined
  }
}
