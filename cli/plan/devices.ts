// The speed and the memory that `scmoe plan` assumes for a rank before anything was measured.

import { record } from '../../crds/json.ts'
import { worldSizeOf } from '../../crds/ranks.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { bandwidth, flops } from '../sentence.ts'

/** Figures of NVIDIA's data sheets, without sparsity. */
interface Gpu {
  name: string
  /** Matches the label `nvidia.com/gpu.product` of nodes with these GPUs. */
  product: RegExp
  /** Tflop/s of products in bfloat16 on tensor cores, and in float32 without TF32. */
  peak: Readonly<Record<ScMoEJobSpec['training']['precision'], number>>
  /** 1e9 bytes. */
  memory: number
  /** GB/s of NVLink in one direction; 0 without NVLink. */
  link: number
}

/** A name that several products match stands for the first of them. */
export const GPUS: readonly Gpu[] = [
  { name: 'B200', product: /B200/, peak: { bfloat16: 2250, float32: 75 }, memory: 180, link: 900 },
  { name: 'H200', product: /H200/, peak: { bfloat16: 989, float32: 67 }, memory: 141, link: 450 },
  { name: 'H100-PCIe', product: /H100.*PCIe/i, peak: { bfloat16: 756, float32: 51 }, memory: 80, link: 0 },
  { name: 'H100', product: /H100/, peak: { bfloat16: 989, float32: 67 }, memory: 80, link: 450 },
  { name: 'A100-40GB', product: /A100.*40GB/i, peak: { bfloat16: 312, float32: 19.5 }, memory: 40, link: 300 },
  { name: 'A100', product: /A100/, peak: { bfloat16: 312, float32: 19.5 }, memory: 80, link: 300 },
  { name: 'L40S', product: /L40S/, peak: { bfloat16: 362, float32: 91.6 }, memory: 48, link: 0 },
  { name: 'L4', product: /\bL4\b/, peak: { bfloat16: 121, float32: 30.3 }, memory: 24, link: 0 },
]
/** e.g. `an H100`, `a B200`. */
export const withArticle = ({ name }: Pick<Gpu, 'name'>): string => `${name.startsWith('B') ? 'a' : 'an'} ${name}`
export const GPU_NAMES = GPUS.map(({ name }) => name)
const USUAL = 'H100'

/**
 * The part of the peak that whole training steps reach. Well-tuned frameworks report 35 to 50 % for
 * dense models of a size that fills the GPU; small models reach less.
 */
const SHARE = 0.4
/** PCIe 4.0 with 16 lanes, and a network of 200 Gbit/s for each GPU. */
const PCIE = 25
const NETWORK = 25
/** The part of a link's peak that a large all-to-all reaches. */
const LINK_SHARE = 0.7

const CPU = { gigaflops: 50, megabytesPerSecond: 1000, latencyMicroseconds: 50 }
const GPU_LATENCY = 20

/** Assumed speeds of one rank. A running job measures instead. */
export interface Assumed {
  gigaflops: number
  megabytesPerSecond: number
  latencyMicroseconds: number
}

/** The speeds that the user gives; the others are taken from the job's device. */
export type Wished = { [K in keyof Assumed]?: Assumed[K] | undefined } & { device?: string | undefined }

export interface Device {
  assumed: Assumed
  /** The speeds and where they are from, for people. */
  text: string
  gpu: Gpu | undefined
}

const PRODUCT_LABEL = 'nvidia.com/gpu.product'

export function deviceOf(spec: ScMoEJobSpec, wished: Wished): Device {
  const { gigaflops, megabytesPerSecond, latencyMicroseconds } = wished
  const said = { gigaflops, megabytesPerSecond, latencyMicroseconds }
  if (spec.workers.gpusPerWorker === 0) {
    const assumed = withSaid(CPU, said)
    return { assumed, gpu: undefined, text: speeds(assumed) }
  }
  const { gpu, source } = gpuOf(spec, wished.device)
  const { precision } = spec.training
  const assumed = withSaid(
    {
      gigaflops: SHARE * gpu.peak[precision] * 1000,
      megabytesPerSecond: linkOf(spec, gpu) * 1000,
      latencyMicroseconds: GPU_LATENCY,
    },
    said,
  )
  const compute =
    gigaflops === undefined
      ? `: ${100 * SHARE} % of the ${gpu.peak[precision]} Tflop/s that ${withArticle(gpu)} has in ${precision}`
      : ''
  const network = megabytesPerSecond === undefined ? ` (${linkText(spec, gpu)})` : ''
  const guess = `a guess for ${withArticle(gpu)} (${source})${compute}${network}; --results predicts from measured times`
  return { assumed, gpu, text: `${speeds(assumed)}, ${guess}` }
}

function withSaid(usual: Assumed, said: Wished): Assumed {
  return {
    gigaflops: said.gigaflops ?? usual.gigaflops,
    megabytesPerSecond: said.megabytesPerSecond ?? usual.megabytesPerSecond,
    latencyMicroseconds: said.latencyMicroseconds ?? usual.latencyMicroseconds,
  }
}

const speeds = ({ gigaflops, megabytesPerSecond, latencyMicroseconds }: Assumed) =>
  `${flops(gigaflops)}, ${bandwidth(megabytesPerSecond)} and ${latencyMicroseconds} us per message`

/** The GPU that the user names, otherwise that of the node selector, otherwise a usual one. */
function gpuOf({ workers }: ScMoEJobSpec, wished: string | undefined): { gpu: Gpu; source: string } {
  const named = GPUS.find(({ name }) => name === wished)
  if (named !== undefined) return { gpu: named, source: '--device' }
  const label = selectorOf(workers.template)[PRODUCT_LABEL]
  const selected = typeof label === 'string' ? GPUS.find(({ product }) => product.test(label)) : undefined
  if (selected !== undefined) return { gpu: selected, source: `the node selector's ${PRODUCT_LABEL}` }
  const usual = GPUS.find(({ name }) => name === USUAL)
  if (usual === undefined) throw new Error(`the table of GPUs lacks ${USUAL}`)
  return { gpu: usual, source: 'assumed; --device names another' }
}

function selectorOf(template: unknown): Readonly<Record<string, unknown>> {
  return record(record(record(template)['spec'])['nodeSelector'])
}

/** GB/s of one GPU in one direction. */
function linkOf(spec: ScMoEJobSpec, { link }: Gpu): number {
  if (spec.workers.replicas > 1) return NETWORK * LINK_SHARE
  return (link === 0 ? PCIE : link) * LINK_SHARE
}

function linkText(spec: ScMoEJobSpec, { link }: Gpu): string {
  const share = `${100 * LINK_SHARE} % of`
  if (worldSizeOf(spec) === 1) return 'no network is used'
  if (spec.workers.replicas > 1) return `${share} a network of 200 Gbit/s for each GPU`
  return link === 0 ? `${share} PCIe 4.0` : `${share} NVLink`
}
