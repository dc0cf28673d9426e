// scmoe eval: the losses of a checkpoint over a file of tokens. A process of the worker
// (worker/evaluate/process.ts) computes them.

import { type ChildProcess, spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import { styleText } from 'node:util'
import { createLogUpdate } from 'log-update'
import { plainText } from '../crds/contract.ts'
import {
  type Evaluation,
  EvaluationMessage,
  type EvaluationOrder,
  type EvaluationProgress,
} from '../crds/evaluation.ts'
import type { ScMoEJobSpec } from '../crds/scmoejob.ts'
import { JobFileError, readJob } from './job-file.ts'

export interface EvalOptions {
  checkpoint: string
  tokens: string
  /** The file with the job that has the model of the checkpoint. */
  job?: string | undefined
  type?: ScMoEJobSpec['data']['tokens'] | undefined
  sequences?: number | undefined
  batch?: number | undefined
  threads?: number | undefined
  lossOnly?: boolean | undefined
  gradients?: string | undefined
  json?: boolean | undefined
}

const LINE_EVERY_MILLISECONDS = 100
const EVALUATE = join(import.meta.dirname, '../worker/evaluate/process.ts')

/** Returns the text, or the figures as JSON. Throws JobFileError. */
export async function evalCommand(options: EvalOptions): Promise<string> {
  const { job, json, lossOnly, checkpoint, tokens, gradients, ...numbers } = options
  if (lossOnly && gradients !== undefined)
    throw new JobFileError('--gradients needs the backward pass, which --loss-only leaves out: give one of them')
  const found = await evaluated({
    ...numbers,
    lossOnly,
    checkpoint: resolve(checkpoint),
    tokens: resolve(tokens),
    ...(gradients !== undefined && { gradients: resolve(gradients) }),
    ...(job !== undefined && { spec: readJob(job).spec }),
  })
  return json ? JSON.stringify(found) : text(found)
}

async function evaluated(order: EvaluationOrder): Promise<Evaluation> {
  const child = spawn(process.execPath, [EVALUATE], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const line = process.stderr.isTTY ? createLogUpdate(process.stderr) : undefined
  let shown = 0
  const show = ({ done, sequences }: EvaluationProgress) => {
    if (Date.now() - shown < LINE_EVERY_MILLISECONDS) return
    shown = Date.now()
    line?.(`${done} of ${sequences} sequences`)
  }
  try {
    child.send(order)
    return await answerOf(child, show)
  } finally {
    line?.clear()
    line?.done()
    child.kill('SIGKILL')
  }
}

function answerOf(child: ChildProcess, progress: (at: EvaluationProgress) => void): Promise<Evaluation> {
  return new Promise((done, reject) => {
    child.on('message', received => {
      const message = EvaluationMessage.parse(received)
      if ('result' in message) done(message.result)
      else if ('error' in message) reject(new JobFileError(message.error))
      else progress(message)
    })
    child.once('error', reject)
    child.once('exit', (code, signal) => reject(new Error(`${EVALUATE} ended early: ${code ?? signal}`)))
  })
}

const digits = (value: number) => value.toFixed(6)

function text(found: Evaluation): string {
  const { step, sequences, sequenceLength, batchSequences, data, vocabulary, precision } = found
  const rows: [string, number | undefined, string][] = [
    ['loss', found.loss, ''],
    ['cross-entropy', found.crossEntropy, `perplexity ${Math.exp(found.crossEntropy).toFixed(3)}`],
    ['aux loss', found.auxLoss, `times ${found.auxCoefficient}`],
    ['z loss', found.zLoss, `times ${found.zCoefficient}`],
    ['gradient norm', found.gradientNorm, ''],
  ]
  return [
    `${styleText('bold', plainText(found.checkpoint))}${step === undefined ? '' : `  step ${step}`}`,
    `${plainText(data.path)}  ${data.tokens} tokens, read as ${data.type} ${data.because}; vocabulary ${vocabulary}`,
    `${sequences} ${sequences === 1 ? 'sequence' : 'sequences'} of ${sequenceLength} tokens, ${sequences * sequenceLength} predicted, ${batchSequences} at a time, in ${precision}`,
    ...rows.flatMap(([name, value, more]) =>
      value === undefined ? [] : [`  ${name.padEnd(14)} ${digits(value)}${more && styleText('dim', `  ${more}`)}`],
    ),
    ...(found.gradients === undefined ? [] : [`gradients: ${found.gradients}`]),
  ].join('\n')
}
