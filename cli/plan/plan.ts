// scmoe plan: shows what the operator would create for a job and what a rank would execute. Nothing
// is created or run.

import { z } from 'zod'
import { API_VERSION, CONTAINER, KIND } from '../../crds/contract.ts'
import { resolveModel } from '../../crds/presets.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import { warningLines } from '../../crds/warnings.ts'
import type { Job as KubeJob } from '../../operator/objects/wire.ts'
import { budget } from '../../operator/objects/workers.ts'
import { plan, describe as sentences } from '../../operator/plan/plan.ts'
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'
import { parameterCounts } from '../../worker/model/tensors.ts'
import { describe } from '../../worker/schedule/schedule.ts'
import { type Job, JobFileError, readJob } from '../job-file.ts'
import { type Assumed, type Planned, planPrograms } from './programs.ts'
import { type Measured, readMeasured } from './results.ts'

export interface PlanOptions extends Assumed {
  rank: number
  workerImage: string
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
  const planned = planPrograms(model, { ...options, wish: job.spec.overlap, measured })
  if (options.json)
    return JSON.stringify({ warnings: warningLines(job.spec), objects, ...asJson(planned, measured) }, undefined, 2)
  return [
    heading(job, model),
    ...doubts(job.spec),
    ['The operator would', ...created.map(sentence => `  ${sentence}`), ...containerLines(objects)].join('\n'),
    memory(planned, model, options.rank),
    weighed(planned, options, measured),
    planned.timeline,
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
  const nothing = { pods: [], service: undefined, budget: undefined, watchedSince: 0 }
  const settings = { workerImage, gpuWorkerImage: workerImage, scheduler: { provider: 'none' as const } }
  const planned = plan({ ...nothing, ...settings, job: object }, 0)
  const objects = planned.actions.flatMap(action => ('object' in action ? [action.object] : []))
  // The operator creates the budget when the gang runs.
  return {
    sentences: sentences(planned),
    objects: [...objects, budget({ ...metadata, spec: job.spec }, job.spec.workers.replicas - 1)],
  }
}

/** What a reader should look at before anything else. */
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
  const hasShortcut = kind === 'ScMoE' || kind === 'DGMoE'
  const hasGate = kind === 'ScMoE' || kind === 'SharedExpert'
  const parts = [kind, hasShortcut && `shortcut position ${shortcutPosition}`, hasGate && gateText(coefficientGate)]
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
const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
const milliseconds = (microseconds: number) => `${(microseconds / 1000).toFixed(1)} ms`

/** The containers of the first pod, since all pods of a job have the same. */
function containerLines(objects: readonly { kind: string }[]): string[] {
  const [pod] = objects.filter(({ kind }) => kind === 'Pod')
  const { containers = [], initContainers = [] } = PodSpec.safeParse(pod).data?.spec ?? {}
  const told = ({ name, image, resources }: z.infer<typeof Container>) => {
    const { requests, limits } = resources ?? {}
    const amounts = (of: Record<string, unknown>) =>
      Object.entries(of)
        .map(([resource, value]) => `${resource} ${String(value)}`)
        .join(', ')
    const parts = [requests && `requests ${amounts(requests)}`, limits && `limits ${amounts(limits)}`].filter(Boolean)
    return `${name}: ${image ?? 'no image'}, ${parts.join('; ') || 'no requests or limits'}`
  }
  return [
    ...initContainers.map(container => `    init container ${told(container)}`),
    ...containers.map(
      container =>
        `    ${container.name === CONTAINER ? 'trains in container' : 'container beside it'} ${told(container)}`,
    ),
  ]
}

const Amounts = z.record(z.string(), z.unknown()).optional()
const Container = z.looseObject({
  name: z.string(),
  image: z.string().optional(),
  resources: z.looseObject({ requests: Amounts, limits: Amounts }).optional(),
})
const PodSpec = z.looseObject({
  spec: z.looseObject({ containers: z.array(Container), initContainers: z.array(Container).optional() }),
})

/** Shown per token, because transient memory is nearly all activations of one micro-batch. */
function memory({ programs: [train] }: Planned, model: ModelConfig, rank: number): string {
  const perToken = train.transientBytes / (model.batch * model.sequence) / 1024
  const again = model.recompute ? ', most activations computed again' : ''
  const isDropless =
    model.kind !== 'Dense' && model.capacity >= model.batch * model.sequence && model.expertParallelSize > 1
  const dropless = isDropless
    ? `, with room for the tokens of all ${model.expertParallelSize} ranks, because no token is dropped`
    : ''
  return `Memory of rank ${rank}: ${mebibytes(train.persistentBytes)} that stay (parameters, gradients, moments), ${mebibytes(train.transientBytes)} within a step (${perToken.toFixed(1)} KiB per token${again}${dropless})`
}

/** Schedules that are shown, besides the best of each strategy and the one that ran. */
const SHOWN = 8

function weighed({ candidates, choice }: Planned, assumed: Assumed, measured: Measured | undefined): string {
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
      return isShown ? [`  ${[milliseconds(predicted).padStart(12), text, ...marks].join('  ')}`] : []
    })
  const hidden = candidates.length - rows.length
  return [
    `Schedules of one step, predicted from ${sourceText(assumed, measured)}`,
    ...rows,
    ...(hidden > 0 ? [`  and ${hidden} more, which --json lists`] : []),
  ].join('\n')
}

const sourceText = (assumed: Assumed, measured: Measured | undefined) =>
  measured
    ? `the times in ${measured.file}`
    : `${assumed.gigaflops} Gflop/s, ${assumed.megabytesPerSecond} MB/s and ${assumed.latencyMicroseconds} us per message`

const ranText = ({ milliseconds: ran }: Measured) => ran !== undefined && `(measured ${ran.toFixed(1)} ms)`

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
