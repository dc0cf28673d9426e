// scmoe run: trains a job on this machine, one process per rank, without Kubernetes.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { styleText } from 'node:util'
import { createLogUpdate } from 'log-update'
import { z } from 'zod'
import { EXIT, Progress } from '../../crds/contract.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { brokenRules, brokenText } from '../../crds/rules.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { warningLines } from '../../crds/warnings.ts'
import { JobFileError, readJob } from '../job-file.ts'
import { causeOf, nats } from '../sentence.ts'
import { demandWritable, mergeTraces, removeTraces } from '../trace-file.ts'
import { changesSince } from './earlier-job.ts'
import { Gang, type GangOptions, type RankEnd } from './gang.ts'
import { lockOutput } from './output-lock.ts'

export interface RunOptions {
  /** The folder for checkpoints, losses and the trace. Default: ./scmoe-out/<name>. */
  output?: string | undefined
  /** Replaces spec.workers.replicas. */
  replicas?: number | undefined
  /** Replaces spec.training.steps. */
  steps?: number | undefined
  /** The file for a Chrome trace of the last step of all ranks. */
  trace?: string | undefined
  /** Print one JSON object at the end instead of text. */
  json?: boolean | undefined
}

/**
 * Trains to the end, from the newest checkpoint in the output folder if there is one. Returns the
 * exit code. Throws JobFileError.
 */
export async function runCommand(file: string, options: RunOptions = {}): Promise<number> {
  const { name, spec } = localJob(file, options)
  const output = resolve(options.output ?? join('scmoe-out', name))
  makeFolder(output)
  const unlock = lockOutput(output)
  const scratch = mkdtempSync(join(tmpdir(), 'scmoe-run-'))
  try {
    for (const change of changesSince(output, spec)) console.error(`other than before in ${output}: ${change}`)
    for (const warning of warningLines(spec)) console.error(`warning: ${warning}`)
    const ranks = worldSizeOf(spec)
    removeTraces(output)
    if (options.trace !== undefined) demandWritable(options.trace)
    const before = summaryTime(output)
    const ends = await follow({ name, spec, output, scratch }, options)
    const trained = summaryTime(output) !== before
    const code = conclude(ends, { name, output, trained, json: options.json === true })
    const hasEnded = code === EXIT.ok.code || code === EXIT.terminated.code
    if (options.trace !== undefined && hasEnded) mergeTraces({ output, ranks, file: options.trace })
    return code
  } finally {
    rmSync(scratch, { recursive: true, force: true })
    unlock()
  }
}

/** Runs the gang to its end, shows its progress and passes signals on to it. */
async function follow(job: GangOptions, options: RunOptions): Promise<RankEnd[]> {
  const gang = await Gang.start(job)
  const view = new LiveView(job.name, options.json ? 'silent' : process.stdout.isTTY ? 'terminal' : 'lines')
  const stop = () => {
    view.note('stopping after this step, with a checkpoint; press Ctrl-C again to kill the workers')
    gang.stop()
  }
  for (const signal of STOP_SIGNALS) process.on(signal, stop)
  const watching = watchProgress(gang.progressPort, progress => view.show(progress))
  try {
    return await gang.finished()
  } finally {
    watching.stop()
    view.close()
    for (const signal of STOP_SIGNALS) process.off(signal, stop)
  }
}

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

function makeFolder(output: string): void {
  try {
    makeBelow(output)
  } catch (error) {
    throw new JobFileError(
      `the output folder ${output} cannot be created (${causeOf(error)}): give another with --output`,
    )
  }
}

/**
 * Creates a folder and its parents. Node's own recursive mkdir never returns on a file system that
 * cannot hold folders, such as /proc.
 */
function makeBelow(folder: string): void {
  const found = statSync(folder, { throwIfNoEntry: false })
  if (found?.isDirectory()) return
  if (found === undefined) makeBelow(dirname(folder))
  mkdirSync(folder)
}

/** The job of a file with the options applied and checked again. */
function localJob(file: string, options: RunOptions): { name: string; spec: ScMoEJobSpec } {
  const { name, spec: written } = readJob(file)
  const { steps = written.training.steps, replicas = written.workers.replicas } = options
  const spec = ScMoEJobSpec.parse({
    ...written,
    training: { ...written.training, steps },
    workers: { ...written.workers, replicas },
    suspend: false,
  })
  const broken = brokenRules(spec, name)
  if (broken.length > 0) throw new JobFileError(brokenText(broken))
  return { name, spec }
}

function watchProgress(port: number, show: (progress: Progress) => void): { stop: () => void } {
  let stopped = false
  const ask = async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/progress`, { signal: AbortSignal.timeout(2000) })
    const parsed = Progress.safeParse(await answer.json())
    if (parsed.success && !stopped) show(parsed.data)
  }
  // Requests fail before rank 0 listens and after it has ended; then there is nothing to show.
  const timer = setInterval(() => void ask().catch(() => undefined), 500)
  return {
    stop: () => {
      stopped = true
      clearInterval(timer)
    },
  }
}

const LINE_EVERY_MILLISECONDS = 5000

/** Shows progress as one line that is updated on a terminal, or as a line every few seconds. */
class LiveView {
  readonly #name: string
  readonly #mode: 'terminal' | 'lines' | 'silent'
  readonly #update = createLogUpdate(process.stdout)
  #lastLine = 0

  constructor(name: string, mode: 'terminal' | 'lines' | 'silent') {
    this.#name = name
    this.#mode = mode
  }

  show(progress: Progress): void {
    if (progress.step === 0 && this.#mode !== 'terminal') return
    if (this.#mode === 'terminal') this.#update(`${styleText('bold', this.#name)}  ${progressLine(progress)}`)
    else if (this.#mode === 'lines' && Date.now() - this.#lastLine >= LINE_EVERY_MILLISECONDS) {
      this.#lastLine = Date.now()
      console.log(`${this.#name}  ${progressLine(progress)}`)
    }
  }

  note(text: string): void {
    if (this.#mode === 'terminal') this.#update.clear()
    console.error(text)
  }

  close(): void {
    if (this.#mode === 'terminal') this.#update.done()
  }
}

function progressLine(progress: Progress): string {
  const { step, totalSteps, lossMilli, evaluationLossMilli, evaluationStep, tokensPerSecond, overlapPercent } = progress
  const parts = [
    `step ${step}/${totalSteps}`,
    lossMilli !== undefined && `loss ${nats(lossMilli)}`,
    evaluationLossMilli !== undefined &&
      `evaluation ${nats(evaluationLossMilli)}${evaluationStep === step ? '' : ` at step ${evaluationStep ?? '?'}`}`,
    tokensPerSecond !== undefined && `${tokensPerSecond} tokens/s`,
    overlapPercent !== undefined && `overlap ${overlapPercent} %`,
    progress.schedule,
    progress.estimatedRemainingSeconds !== undefined && `${progress.estimatedRemainingSeconds} s left`,
  ]
  return parts.filter(Boolean).join('  ')
}

interface Conclusion {
  name: string
  output: string
  /** Whether this run did at least one step. */
  trained: boolean
  json: boolean
}

/** Prints the summary, or the failure of the rank that failed first. Returns the exit code. */
function conclude(ends: readonly RankEnd[], run: Conclusion): number {
  const first = ends[0]
  const code = first?.code ?? EXIT.internal.code
  const summary = code === 0 || code === EXIT.terminated.code ? readSummary(run.output) : undefined
  if (run.json) {
    const failure = code === 0 ? undefined : first?.failure
    console.log(
      JSON.stringify({ name: run.name, exitCode: code, output: run.output, trained: run.trained, failure, summary }),
    )
  } else if (code === 0) {
    const did = run.trained
      ? ''
      : 'all steps were done already; to train on, at the learning rate of the last step, give --steps a larger number: '
    console.log(`${styleText('green', 'done')}  ${did}${summary ? summaryLine(summary) : ''}`)
    console.log(`      ${run.output}: summary.json, losses.jsonl, trace-rank<rank>.json, checkpoints/`)
  } else if (code === EXIT.terminated.code) {
    console.log(`stopped; the same command continues from the checkpoint in ${run.output}`)
  } else {
    const log = join(run.output, 'logs', `rank-${first?.rank}.log`)
    const why = first?.failure?.message ?? `ended with code ${code} without saying why${lastLines(log)}`
    console.error(`${styleText('red', 'failed', { stream: process.stderr })}  rank ${first?.rank}: ${why}`)
    console.error(`Log: ${log}`)
  }
  return code
}

/** The last lines that a process printed, for one that left no termination record. */
function lastLines(path: string): string {
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(-3)
  return lines.map(line => `\n  ${line.slice(0, 200)}`).join('')
}

const Losses = z.object({ first: z.number().optional(), last: z.number().optional() })
/** The fields of summary.json that are shown. */
const Summary = z.looseObject({
  steps: z.number(),
  loss: Losses,
  evaluationLoss: Losses.extend({ step: z.number().optional() }),
  tokensPerSecond: z.number().optional(),
  overlapPercent: z.number().optional(),
  schedule: z.string().optional(),
})
type Summary = z.infer<typeof Summary>

const change = ({ first, last }: z.infer<typeof Losses>) => `${first?.toFixed(3) ?? '?'} -> ${last?.toFixed(3) ?? '?'}`

function summaryLine({ steps, loss, evaluationLoss, tokensPerSecond, overlapPercent, schedule }: Summary): string {
  const parts = [
    `${steps} steps`,
    `loss ${change(loss)}`,
    `evaluation ${change(evaluationLoss)}${(evaluationLoss.step ?? steps) === steps ? '' : ` at step ${evaluationLoss.step}`}`,
    tokensPerSecond !== undefined && `${Math.round(tokensPerSecond)} tokens/s`,
    overlapPercent !== undefined && `overlap ${Math.round(overlapPercent)} %`,
    schedule,
  ]
  return parts.filter(Boolean).join('  ')
}

/** A run that does at least one step writes the summary again; other runs leave it alone. */
const summaryTime = (output: string) => statSync(join(output, 'summary.json'), { throwIfNoEntry: false })?.mtimeMs

function readSummary(output: string): Summary | undefined {
  try {
    return Summary.parse(JSON.parse(readFileSync(join(output, 'summary.json'), 'utf8')))
  } catch {
    return undefined
  }
}
