// Files for `scmoe eval` as another program would make them: safetensors that are written and read
// without the worker's code, with weights and tokens to fill them.

import { readFileSync, writeFileSync } from 'node:fs'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { type ModelConfig, modelConfig } from '../../worker/model/config.ts'
import { wholeModel } from './model-world.ts'

export interface FileTensor {
  shape: readonly number[]
  values: Float32Array
  /** Default: F32. The values are written as they are, whatever the type. */
  dtype?: string
}
export type Weights = Map<string, FileTensor>

export function writeTensors(path: string, weights: Weights): void {
  const header: Record<string, object> = {}
  let at = 0
  for (const [name, { shape, values, dtype = 'F32' }] of weights) {
    header[name] = { dtype, shape, data_offsets: [at, at + values.byteLength] }
    at += values.byteLength
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const parts = [...weights.values()].map(({ values }) =>
    Buffer.from(values.buffer, values.byteOffset, values.byteLength),
  )
  writeFileSync(path, Buffer.concat([length, json, ...parts]))
}

/** Values and shapes by name; `__metadata__` left out. */
export function readTensors(path: string): Weights {
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE(0))
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    bytes.subarray(8, 8 + length).toString(),
  )
  const entries = Object.entries(header).filter(([name]) => name !== '__metadata__')
  return new Map(
    entries.map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [start, end],
        },
      ]) => {
        const values = new Float32Array(
          bytes.buffer.slice(bytes.byteOffset + 8 + length + start, bytes.byteOffset + 8 + length + end),
        )
        return [name, { shape, values, dtype }]
      },
    ),
  )
}

/** A very small ScMoE with the layers of Llama, a tied head and z-loss. No token is dropped. */
export function smallSpec(change: { model?: object; training?: object } = {}): ScMoEJobSpec {
  return ScMoEJobSpec.parse({
    model: {
      kind: 'ScMoE',
      blocks: 2,
      hiddenSize: 16,
      heads: 4,
      keyValueHeads: 2,
      feedForwardSize: 24,
      vocabularySize: 64,
      experts: 4,
      tieEmbeddings: true,
      norm: 'RMSNorm',
      activation: 'SwiGLU',
      positions: 'RoPE',
      biases: false,
      capacityFactor: 'none',
      routerZLossCoefficient: '0.01',
      ...change.model,
    },
    training: { steps: 1, sequenceLength: 8, globalBatchSequences: 4, ...change.training },
  })
}

export const modelOfSpec = (spec: ScMoEJobSpec): ModelConfig => modelConfig(spec, 1)

/** Weights with such a large deviation that gradients are not tiny. */
export const weightsOf = (spec: ScMoEJobSpec): Weights => wholeModel(modelOfSpec(spec), 8)

/** Tokens below 64 for `sequences` sequences of length 8 and the last target. */
export const tokensFor = (sequences: number): Uint8Array =>
  Uint8Array.from({ length: 8 * sequences + 1 }, (_, i) => (i * i * 7 + 3 * i) % 64)
