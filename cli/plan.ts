// scmoe plan: what the operator would create for a job, and what its first rank would execute. Nothing is run.

import { API_VERSION, KIND } from '../crds/contract.ts'
import type { Job as KubeJob } from '../operator/objects.ts'
import { plan, describe as sentences } from '../operator/plan.ts'
import { type ModelConfig, modelConfig, tensors } from '../worker/model.ts'
import { emitEvaluate, emitTrain } from '../worker/program/emit.ts'
import {
  assemble,
  choose,
  describe,
  estimateTimes,
  type Machine,
  makespan,
  schedule,
  timeline,
} from '../worker/schedule/schedule.ts'
import { type Job, JobFileError, readJob } from './job-file.ts'

export interface PlanOptions {
  rank: number
  workerImage: string
  /** Assumed of one worker; a running job measures instead. */
  gigaflops: number
  megabytesPerSecond: number
  latencyMicroseconds: number
  json?: boolean | undefined
}

/** The text or, with `json`, the objects and the assembled programs. Throws JobFileError, and ScheduleError or ModelError of the worker. */
export function planCommand(file: string, options: PlanOptions): string {
  const job = readJob(file)
  const { replicas } = job.spec.workers
  if (options.rank >= replicas)
    throw new JobFileError(`--rank is ${options.rank}, but the job has ranks 0 to ${replicas - 1}`)
  const { planned, objects } = planObjects(job, options.workerImage)
  const model = modelConfig(job.spec, replicas)
  const program = planProgram(job, model, options)
  if (options.json) {
    const schedules = program.candidates.map(({ choice, predicted }) => ({
      schedule: describe(choice),
      predictedMilliseconds: predicted / 1000,
    }))
    return JSON.stringify(
      { objects, schedule: describe(program.choice), schedules, programs: [program.train, program.evaluate] },
      undefined,
      2,
    )
  }
  return [
    heading(job, model),
    ['The operator would', ...planned.map(sentence => `  ${sentence}`)].join('\n'),
    memory(program.train, options.rank),
    weighed(program, options),
    program.text,
  ].join('\n\n')
}

function planObjects(job: Job, workerImage: string) {
  const metadata = {
    name: job.name,
    namespace: job.namespace ?? 'default',
    uid: '00000000-0000-0000-0000-000000000000',
    generation: 1,
  }
  const object: KubeJob = { apiVersion: API_VERSION, kind: KIND, metadata, spec: job.spec }
  const planned = plan({ job: object, pods: [], service: undefined, budget: undefined, workerImage }, 0)
  const objects = planned.actions.flatMap(action => (action.kind === 'delete' ? [] : [action.object]))
  return { planned: sentences(planned), objects }
}

function planProgram(job: Job, model: ModelConfig, options: PlanOptions) {
  const { rank } = options
  const { strategy, slot } = job.spec.overlap
  const emitted = emitTrain(model, rank)
  const times = estimateTimes(emitted, machineOf(options))
  const { candidates, choice, scheduled } = choose(emitted, times, strategy, slot)
  return {
    candidates,
    choice,
    train: assemble(scheduled, model, rank),
    evaluate: assemble(schedule(emitEvaluate(model, rank), choice), model, rank),
    text: timeline(scheduled, {
      title: `${model.kind}   ${describe(choice)}`,
      rank,
      worldSize: model.worldSize,
      predicted: makespan(scheduled, emitted, times),
    }),
  }
}

const machineOf = ({ gigaflops, megabytesPerSecond, latencyMicroseconds }: PlanOptions): Machine => ({
  flopsPerSecond: gigaflops * 1e9,
  bytesPerSecond: megabytesPerSecond * 1e6,
  latencySeconds: latencyMicroseconds / 1e6,
})

function heading({ name, namespace, spec }: Job, model: ModelConfig): string {
  const sizes = tensors(model).map(({ shape, kind }) => ({
    kind,
    size: shape.reduce((product, length) => product * length, 1),
  }))
  const total = sizes.reduce((sum, { size }) => sum + size, 0)
  const active = sizes.reduce(
    (sum, { kind, size }) => sum + (kind === 'expert' ? (size * model.topK) / model.experts : size),
    0,
  )
  return [
    `${namespace ?? 'default'}/${name}: ${model.kind}, ${millions(total)} parameters, of which a token uses ${millions(active)}`,
    `${model.worldSize} ranks in groups of ${model.expertParallelSize} that share ${model.experts} experts; ${model.batch} sequences of ${model.sequence} tokens per rank and step; ${spec.training.steps} steps`,
  ].join('\n')
}

const millions = (count: number) => `${(count / 1e6).toPrecision(3)} million`
const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`

const memory = (
  { persistentBytes, transientBytes }: { persistentBytes: number; transientBytes: number },
  rank: number,
) =>
  `Memory of rank ${rank}: ${mebibytes(persistentBytes)} that stay (parameters, gradients, moments), ${mebibytes(transientBytes)} within a step`

function weighed(
  { candidates, choice }: Pick<ReturnType<typeof planProgram>, 'candidates' | 'choice'>,
  options: PlanOptions,
): string {
  const { gigaflops, megabytesPerSecond, latencyMicroseconds } = options
  const best = describe(choice)
  const rows = candidates
    .toSorted((a, b) => a.predicted - b.predicted)
    .map(({ choice: each, predicted }) => {
      const text = describe(each)
      return `  ${(predicted / 1000).toFixed(1).padStart(9)} ms  ${text}${text === best ? '  <- chosen' : ''}`
    })
  return [
    `Schedules of one step, predicted from ${gigaflops} Gflop/s, ${megabytesPerSecond} MB/s and ${latencyMicroseconds} us per message`,
    ...rows,
  ].join('\n')
}
