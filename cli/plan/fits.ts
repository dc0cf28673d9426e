// Whether the memory that a rank needs is there: on its GPU, or within its container's limit. Pure.

import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { bytes } from '../sentence.ts'
import { type Device, GPUS, withArticle } from './devices.ts'
import type { Container } from './pods.ts'

/** Part of a GPU's memory that CUDA, NCCL and the driver leave to a program. */
const USABLE = 0.95
/** The memory of a process of Node without the buffers of a model. */
const PROCESS = 150 * 2 ** 20

const LESS =
  'use more replicas with a larger parallelism.expertParallelSize, more training.microBatches or training.recompute, or a smaller model'

/** A sentence about memory that is missing; undefined if the plan fits, or if nothing is known. */
export function shortage(
  spec: ScMoEJobSpec,
  needed: number,
  { device, worker }: { device: Device; worker: Container | undefined },
) {
  if (device.gpu !== undefined) return gpuShortage(spec, needed, device.gpu)
  const limit = quantity(worker?.limits['memory'])
  if (limit === undefined || needed + PROCESS <= limit) return undefined
  return `Memory is short: a rank needs ${bytes(needed)} and about ${bytes(PROCESS)} for its process, but the limit of container ${worker?.name} is ${worker?.limits['memory']}: raise resources.limits.memory in workers.template, or ${LESS}.`
}

function gpuShortage(spec: ScMoEJobSpec, needed: number, gpu: (typeof GPUS)[number]): string | undefined {
  const room = (memory: number) => memory * 1e9 * USABLE
  if (needed <= room(gpu.memory)) return undefined
  const precision = spec.training.precision === 'float32' ? ', or training.precision bfloat16' : ''
  const larger = GPUS.filter(({ memory }) => needed <= room(memory)).toSorted((a, b) => a.memory - b.memory)[0]
  const most = GPUS.reduce((a, b) => (a.memory >= b.memory ? a : b))
  const others =
    larger === undefined
      ? `and no other GPU known here has more than ${most.memory} GB (${most.name})`
      : `while ${withArticle(larger)} has ${larger.memory} GB`
  return `Memory is short: a rank needs ${bytes(needed)}, but ${withArticle(gpu)} has ${gpu.memory} GB, of which about ${100 * USABLE} % can be used, ${others}: ${LESS}${precision}.`
}

const SUFFIXES: Readonly<Record<string, number>> = {
  '': 1,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
}

/** A quantity of Kubernetes as a number; undefined for one that is not understood. */
export function quantity(text: string | undefined): number | undefined {
  const [, number, suffix = ''] = /^([0-9.]+(?:[eE][0-9]+)?)(\w*)$/.exec(text ?? '') ?? []
  const factor = Object.hasOwn(SUFFIXES, suffix) ? SUFFIXES[suffix] : undefined
  return number === undefined || factor === undefined ? undefined : Number(number) * factor
}
