// scmoe plan: shows what the operator would create for a job and what a rank would execute. Nothing
// is created or run.

import { API_VERSION, KIND } from '../../crds/contract.ts'
import { hasSharedExpert, hasShortcut, resolveModel } from '../../crds/presets.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { warningLines } from '../../crds/warnings.ts'
import type { Job as KubeJob } from '../../operator/objects/wire.ts'
import { budget } from '../../operator/objects/workers.ts'
import { plan, describe as sentences } from '../../operator/plan/plan.ts'
import packageFile from '../../package.json' with { type: 'json' }
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'
import { parameterCounts } from '../../worker/model/tensors.ts'
import { describe } from '../../worker/schedule/schedule.ts'
import { type Job, JobFileError, readJob } from '../job-file.ts'
import { bytes, time } from '../sentence.ts'
import { type Device, deviceOf, type Wished } from './devices.ts'
import { shortage } from './fits.ts'
import { containersText, firstPod, workerOf } from './pods.ts'
import { type Planned, planPrograms } from './programs.ts'
import { restricted } from './restricted.ts'
import { type Measured, readMeasured } from './results.ts'

export interface PlanOptions extends Wished {
  rank: number
  /** Default: the images that tools/images builds here, with the name for GPUs or without. */
  workerImage?: string
  /** The output folder of a run of the job, whose measured times replace the assumed speeds. */
  results?: string | undefined
  json?: boolean | undefined
}

/** The text or, with `json`, the objects and the assembled programs. Throws JobFileError. */
export function planCommand(file: string, options: PlanOptions): string {
  const job = readJob(file)
  const worldSize = worldSizeOf(job.spec)
  if (options.rank >= worldSize)
    throw new JobFileError(`--rank is ${options.rank}, but the job has ranks 0 to ${worldSize - 1}`)
  const { sentences: created, objects } = planObjects(job, options.workerImage)
  const model = modelConfig(job.spec, worldSize)
  const measured = options.results === undefined ? undefined : readMeasured(options.results)
  const device = deviceOf(job.spec, options)
  const planned = planPrograms(model, { ...device.assumed, rank: options.rank, wish: job.spec.overlap, measured })
  const pod = firstPod(objects)
  const [train] = planned.programs
  const needed = train.persistentBytes + train.transientBytes
  const short = shortage(job.spec, needed, { device, worker: workerOf(pod) })
  if (options.json) {
    const found = { warnings: warningLines(job.spec), shortage: short, objects, ...asJson(planned, measured) }
    return JSON.stringify(found, undefined, 2)
  }
  return [
    heading(job, model),
    ...doubts(job.spec),
    ['The operator would', ...created.map(sentence => `  ${sentence}`)].join('\n'),
    pod === undefined ? '' : containersText(pod),
    ...restricted(job.spec),
    [memory(planned, model, options.rank), short].filter(Boolean).join('\n'),
    weighed(planned, device, measured),
    planned.timeline,
  ]
    .filter(Boolean)
    .join('\n\n')
}

function planObjects(job: Job, workerImage: string | undefined) {
  const metadata = {
    name: job.name,
    namespace: job.namespace ?? 'default',
    uid: '00000000-0000-0000-0000-000000000000',
    generation: 1,
  }
  const object: KubeJob = { apiVersion: API_VERSION, kind: KIND, metadata, spec: job.spec }
  const nothing = { pods: [], service: undefined, budget: undefined, watchedSince: 0 }
  const local = (name: string) => workerImage ?? `localhost/scmoe/${name}:${packageFile.version}`
  const images = { workerImage: local('worker'), gpuWorkerImage: local('worker-gpu') }
  const settings = { ...images, scheduler: { provider: 'none' as const } }
  const planned = plan({ ...nothing, ...settings, job: object }, 0)
  const objects = planned.actions.flatMap(action => ('object' in action ? [action.object] : []))
  // The operator creates the budget when the gang runs.
  return {
    sentences: sentences(planned),
    objects: [...objects, budget({ ...metadata, spec: job.spec }, job.spec.workers.replicas - 1)],
  }
}

/** The warnings, which a reader should see before anything else. */
function doubts(spec: Job['spec']): string[] {
  const lines = warningLines(spec).map(line => `  ${line}`)
  return lines.length === 0 ? [] : [['Warnings', ...lines].join('\n')]
}

function heading({ name, namespace, spec }: Job, model: ModelConfig): string {
  const { total, perRank, active } = parameterCounts(model)
  const { training } = spec
  const parts = training.microBatches === 1 ? '' : `${training.microBatches} times `
  return [
    `${namespace ?? 'default'}/${name}: ${architecture(model)}`,
    sizes(spec.model),
    `${amount(total)} parameters, of which a token uses ${amount(active)} and a rank holds ${amount(perRank)}`,
    `${ranks(model)}; ${parts}${model.batch} sequences of ${model.sequence} tokens per rank and step; ${training.steps} steps in ${model.precision}`,
  ].join('\n')
}

/** e.g. `ScMoE, shortcut position 2, coefficient gate CG1`. */
function architecture({ kind, shortcutPosition, coefficientGate }: ModelConfig): string {
  const shortcut = hasShortcut(kind) && `shortcut position ${shortcutPosition}`
  const parts = [kind, shortcut, hasSharedExpert(kind) && gateText(coefficientGate)]
  return parts.filter(Boolean).join(', ')
}

const gateText = (gate: ModelConfig['coefficientGate']) =>
  gate === 'DirectAdd' ? 'shared and routed experts added' : `coefficient gate ${gate}`

function sizes(written: Job['spec']['model']): string {
  const model = resolveModel(written)
  const isDense = model.kind === 'Dense'
  const { heads, keyValueHeads, moeLayerFrequency: every } = model
  const where = every === 1 ? 'in every block' : every === 2 ? 'in every second block' : `in one block of ${every}`
  return [
    `${model.blocks} blocks of width ${model.hiddenSize}`,
    `${heads} heads${keyValueHeads === heads ? '' : ` over ${keyValueHeads} of keys and values`}`,
    `feed-forward ${model.feedForwardSize}`,
    ...(isDense ? [] : [`${model.experts} experts ${where}, ${routing(model)}`]),
    `vocabulary ${model.vocabularySize}${model.tieEmbeddings ? ', tied' : ''}`,
    `${model.norm}, ${model.activation}, ${model.positions}${model.biases ? '' : ', no biases'}`,
  ].join('; ')
}

const routing = ({ topK, capacityFactor }: ReturnType<typeof resolveModel>) =>
  `top-${topK}, ${capacityFactor === null ? 'no token dropped' : `capacity factor ${capacityFactor}`}`

function ranks({ kind, worldSize, expertParallelSize, experts }: ModelConfig): string {
  if (worldSize === 1) return '1 rank'
  return kind === 'Dense'
    ? `${worldSize} ranks`
    : `${worldSize} ranks in groups of ${expertParallelSize} that share ${experts} experts`
}

const amount = (count: number) =>
  count < 1e9 ? `${(count / 1e6).toPrecision(3)} million` : `${(count / 1e9).toPrecision(3)} billion`

/** Shown per token, because transient memory is nearly all activations of one micro-batch. */
function memory({ programs: [train] }: Planned, model: ModelConfig, rank: number): string {
  const perToken = train.transientBytes / (model.batch * model.sequence)
  const again = model.recompute ? ', most activations computed again' : ''
  const isDropless =
    model.kind !== 'Dense' && model.capacity >= model.batch * model.sequence && model.expertParallelSize > 1
  const dropless = isDropless
    ? `, with room for the tokens of all ${model.expertParallelSize} ranks, because no token is dropped`
    : ''
  return `Memory of rank ${rank}: ${bytes(train.persistentBytes)} that stay (parameters, gradients, moments), ${bytes(train.transientBytes)} within a step (${bytes(perToken)} per token${again}${dropless})`
}

/** Schedules that are shown, besides the best of each strategy and the one that ran. */
const SHOWN = 8

function weighed({ candidates, choice }: Planned, device: Device, measured: Measured | undefined): string {
  const best = describe(choice)
  const strategies = new Set<string>()
  const rows = candidates
    .map(each => ({ text: describe(each.choice), strategy: each.choice.strategy, predicted: each.predicted }))
    // Among equal predictions the chosen schedule comes first.
    .toSorted((a, b) => a.predicted - b.predicted || Number(b.text === best) - Number(a.text === best))
    .flatMap(({ text, strategy, predicted }, place) => {
      const isShown = place < SHOWN || !strategies.has(strategy) || text === best || text === measured?.schedule
      strategies.add(strategy)
      const marks = [text === best && '<- chosen', text === measured?.schedule && ranText(measured)].filter(Boolean)
      return isShown ? [`  ${[time(predicted).padStart(12), text, ...marks].join('  ')}`] : []
    })
  const hidden = candidates.length - rows.length
  return [
    `Schedules of one step, predicted from ${sourceText(device, measured)}`,
    ...rows,
    ...(hidden > 0 ? [`  and ${hidden} more, which --json lists`] : []),
  ].join('\n')
}

const sourceText = ({ text }: Device, measured: Measured | undefined) =>
  measured ? `the times in ${measured.file}` : text

const ranText = ({ milliseconds: ran }: Measured) => ran !== undefined && `(measured ${time(1000 * ran)})`

function asJson({ candidates, choice, programs }: Planned, measured: Measured | undefined): object {
  const { schedule, milliseconds: ran } = measured ?? {}
  return {
    schedule: describe(choice),
    ...(ran !== undefined && { measured: { schedule, milliseconds: ran } }),
    schedules: candidates.map(each => ({
      schedule: describe(each.choice),
      predictedMilliseconds: each.predicted / 1000,
    })),
    programs,
  }
}
