// scmoe run: trains a job on this machine, one process per rank, without Kubernetes.

import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { plainText } from '../../crds/contract.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { brokenRules, brokenText } from '../../crds/rules.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { warningsOf } from '../../crds/warnings.ts'
import { JobFileError, readJob, withDataPath } from '../job-file.ts'
import { causeOf } from '../sentence.ts'
import { demandWritable, mergeTraces, removeTraces } from '../trace-file.ts'
import { asJson, type Ended, exitCode, outcomeOf, say } from './conclusion.ts'
import { changesSince, demandOwnPlace } from './earlier-job.ts'
import { type GangOptions, type RankEnd, runGang } from './gang.ts'
import { LiveView, watchProgress } from './live-view.ts'
import { makeFolder, newestCheckpoint, removeUnfinished } from './output-folder.ts'
import { lockOutput } from './output-lock.ts'
import { Stops } from './stops.ts'

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
  const stops = new Stops()
  let scratch: string | undefined
  try {
    scratch = makeScratch()
    if (options.trace !== undefined) demandWritable(options.trace)
    demandOwnPlace(file, output)
    tell({ spec, output })
    return await trained({ name, spec, output, scratch }, options, stops)
  } finally {
    stops.close()
    if (scratch !== undefined) rmSync(scratch, { recursive: true, force: true })
    removeUnfinished(output)
    unlock()
  }
}

function makeScratch(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'scmoe-run-'))
  } catch (error) {
    throw new JobFileError(
      `the temporary folder ${tmpdir()} cannot be written (${causeOf(error)}): set TMPDIR to another folder`,
    )
  }
}

/** Trains, says how it went and returns the exit code. */
async function trained(job: GangOptions, options: RunOptions, stops: Stops): Promise<number> {
  const { name, spec, output } = job
  const start = Date.now()
  const before = summaryTime(output)
  const ends = await follow(job, options, stops)
  const ended: Ended = {
    name,
    output,
    totalSteps: spec.training.steps,
    ends,
    request: stops.request,
    trained: summaryTime(output) !== before,
  }
  // Traces of an earlier run, which may have had more ranks, are not beside those of this one.
  if (ended.trained) removeTraces(output, start)
  if (options.json) console.log(asJson(ended))
  else say(ended)
  const outcome = outcomeOf(ended)
  const hasTrace = outcome === 'done' || (outcome === 'stopped' && ended.trained)
  if (options.trace !== undefined && hasTrace) mergeTraces({ output, ranks: worldSizeOf(spec), file: options.trace })
  return exitCode(ended)
}

/** Runs the gang to its end, shows its progress and passes signals on to it. */
async function follow(job: GangOptions, options: RunOptions, stops: Stops): Promise<RankEnd[]> {
  const view = new LiveView(job.name, options.json ? 'silent' : process.stdout.isTTY ? 'terminal' : 'lines')
  stops.listen(({ again }) => {
    if (!again) view.note('stopping after this step, with a checkpoint; press Ctrl-C again to end at once')
  })
  try {
    return await runGang(job, { stops, watch: port => watchProgress(port, progress => view.show(progress)) })
  } finally {
    view.close()
  }
}

/** Fields that a run without pods does not use. */
const ONLY_IN_PODS = /^spec\.(checkpoint\.volume|workers\.template)/

/**
 * Says what a reader should know before the first step. Training that goes on with other settings
 * than it began with is legitimate, but must not go unnoticed.
 */
function tell({ spec, output }: Pick<GangOptions, 'spec' | 'output'>): void {
  const step = newestCheckpoint(output)
  if (step !== undefined) {
    const since = step < spec.training.steps ? `from step ${step} on` : 'but all steps were done before'
    for (const change of changesSince(output, spec)) console.error(plainText(`note: ${change}, ${since} (${output})`))
  }
  for (const { path, message } of warningsOf(spec))
    if (!ONLY_IN_PODS.test(path)) console.error(plainText(`warning: ${path}: ${message}`))
}

/** The job of a file with the options applied and checked again. */
function localJob(file: string, options: RunOptions): { name: string; spec: ScMoEJobSpec } {
  const { name, spec: written } = readJob(file)
  const { steps = written.training.steps, replicas = written.workers.replicas } = options
  const spec = ScMoEJobSpec.parse({
    ...withDataPath(written, file, text => console.error(plainText(`note: ${text}`))),
    training: { ...written.training, steps },
    workers: { ...written.workers, replicas },
    suspend: false,
  })
  const broken = brokenRules(spec, name)
  if (broken.length > 0) throw new JobFileError(brokenText(broken))
  return { name, spec }
}

/** A run that does at least one step writes the summary again; other runs leave it alone. */
const summaryTime = (output: string) => statSync(join(output, 'summary.json'), { throwIfNoEntry: false })?.mtimeMs
