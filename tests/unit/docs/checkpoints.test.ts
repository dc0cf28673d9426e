// docs/checkpoints.md names the tensors that models have, each with its shape.

import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import type { ModelConfig } from '../../../worker/model/config.ts'
import { tensors } from '../../../worker/model/tensors.ts'
import { configOf, type Job, job } from '../../support/program-arbitraries.ts'

const page = readFileSync('docs/checkpoints.md', 'utf8')

interface Row {
  name: string
  shape: string[]
  where: string[]
}

const rows: Row[] = [...page.matchAll(/^\| `([^`]+)` \| \[([^\]]+)\] \| (.+) \|$/gm)].map(
  ([, name = '', shape = '', where = '']) => ({ name, shape: shape.split(', '), where: where.split(', ') }),
)

const isMoe = ({ kind, blocksPerUnit }: ModelConfig, block: number) =>
  kind !== 'Dense' && (block + 1) % blocksPerUnit === 0

/** The values of the last column, as the page explains them. */
const CONDITIONS: Record<string, (config: ModelConfig, block: number) => boolean> = {
  always: () => true,
  'every block': () => true,
  'plain block': (config, block) => !isMoe(config, block),
  'MoE block': isMoe,
  'positions Learned': ({ positions }) => positions === 'Learned',
  'norm LayerNorm': ({ norm }) => norm === 'LayerNorm',
  'tieEmbeddings false': ({ tieEmbeddings }) => !tieEmbeddings,
  'biases true': ({ bias }) => bias,
  'kind SharedExpert or ScMoE': ({ kind }) => kind === 'SharedExpert' || kind === 'ScMoE',
  'kind ScMoE': ({ kind }) => kind === 'ScMoE',
  'coefficientGate CG1': ({ coefficientGate }) => coefficientGate === 'CG1',
  'coefficientGate CG2': ({ coefficientGate }) => coefficientGate === 'CG2',
}

function holds(where: readonly string[], config: ModelConfig, block: number): boolean {
  return where.every(word => {
    const condition = CONDITIONS[word]
    if (!condition) throw new Error(`the page says "${word}", which is none of ${Object.keys(CONDITIONS).join(', ')}`)
    return condition(config, block)
  })
}

function sizeOf(letter: string, config: ModelConfig): number {
  const { vocabulary, sequence, dim, feedForward, experts, heads, keyValueHeads, activation } = config
  const sizes: Record<string, number> = {
    V: vocabulary,
    T: sequence,
    d: dim,
    F: feedForward,
    U: activation === 'SwiGLU' ? 2 * feedForward : feedForward,
    E: experts,
    Q: ((heads + 2 * keyValueHeads) * dim) / heads,
    2: 2,
  }
  const size = sizes[letter]
  if (size === undefined) throw new Error(`the page has the letter "${letter}", which it does not explain`)
  return size
}

/** Names and shapes that the page gives this model, sorted. */
function documented(config: ModelConfig): string[] {
  const blocks = Array.from({ length: config.units * config.blocksPerUnit }, (_, block) => block)
  const list = rows.flatMap(({ name, shape, where }) => {
    const named = name.includes('<i>') ? blocks : [0]
    return named
      .filter(block => holds(where, config, block))
      .map(block => `${name.replace('<i>', String(block))} [${shape.map(letter => sizeOf(letter, config)).join(', ')}]`)
  })
  return list.toSorted()
}

const actual = (config: ModelConfig) =>
  tensors(config)
    .map(({ name, shape }) => `${name} [${shape.join(', ')}]`)
    .toSorted()

const JOB = { units: 2, worldSize: 1, expertParallelSize: 1, expertsPerRank: 4 } as const
const LLAMA: Job = { ...JOB, kind: 'ScMoE', llama: true, gate: 'CG2', blocksPerUnit: 3 }

test('the table is read', () => {
  expect(rows.length).toBeGreaterThan(30)
  expect(rows.map(({ name }) => name)).toContain('blocks.<i>.attn.qkv.weight')
})

// Failed when the page had U for the width of down, and when it left out head.bias.
test.each<[string, Job]>([
  ['a dense model', { ...JOB, kind: 'Dense' }],
  ['ScMoE with the layers of Llama', LLAMA],
  ['ScMoE with a tied head', { ...JOB, kind: 'ScMoE', tied: true }],
])('%s has the tensors of the table and no other', (_, made) => {
  expect(documented(configOf(made))).toEqual(actual(configOf(made)))
})

test('so does every other model', () => {
  fc.assert(
    fc.property(job, made => {
      expect(documented(configOf(made))).toEqual(actual(configOf(made)))
    }),
  )
})
