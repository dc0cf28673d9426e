// Rules that compare a job with the machines it runs on, in the form of the rules between its own
// fields (rules.ts). Only a program that starts or is a rank can ask them.

import { ENV } from './contract.ts'
import { type BackendName, worldSizeOf } from './ranks.ts'
import { fill, term } from './rule.ts'
import type { Broken } from './rules.ts'
import type { ScMoEJobSpec } from './scmoejob.ts'

export interface Environment {
  /** The number of ranks that there are. */
  worldSize: number
  /** The device that these ranks compute on. */
  backend: BackendName
  /** An imperative: what the user of this program does to compute on GPUs. */
  useGpus: string
}

interface EnvironmentRule {
  field: string
  /** With `{terms}`, and with the fields of Environment in braces. */
  message: string
  holds(spec: ScMoEJobSpec, environment: Environment): boolean
}

const ENVIRONMENT_RULES: readonly EnvironmentRule[] = [
  {
    field: ENV.worldSize,
    message: `${ENV.worldSize} is {worldSize}, but workers.replicas {replicas} and workers.gpusPerWorker {gpusPerWorker} make {ranks} ranks: start {ranks} ranks`,
    holds: (spec, { worldSize }) => worldSize === worldSizeOf(spec),
  },
  {
    field: 'spec.training.precision',
    message:
      'training.precision is {precision}, but the ranks here compute on CPUs, which know float32 alone: {useGpus}, or use precision float32',
    holds: (spec, { backend }) => backend === 'cuda' || spec.training.precision === 'float32',
  },
]

/** The rules that the job breaks in this environment; rules of its own are not asked. */
export function brokenByEnvironment(spec: ScMoEJobSpec, environment: Environment): Broken[] {
  const values = new Map<string, string | number>(Object.entries(environment))
  return ENVIRONMENT_RULES.filter(({ holds }) => !holds(spec, environment)).map(({ field, message }) => ({
    field,
    message: fill(message, name => String(values.get(name) ?? term(name).of(spec))),
  }))
}
