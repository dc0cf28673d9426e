import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { API_VERSION, KIND } from '../../../crds/contract.ts'
import { Evaluation, type EvaluationOrder } from '../../../crds/evaluation.ts'
import type { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { type CheckpointIndex, encodeIndex, readIndex } from '../../../worker/checkpoint/contents.ts'
import { BUFFER, emitGradients } from '../../../worker/emit/emit.ts'
import { createEngine } from '../../../worker/engine.ts'
import { evaluate } from '../../../worker/evaluate/run.ts'
import { gradientOf, tensors } from '../../../worker/model/tensors.ts'
import { assemble, schedule } from '../../../worker/schedule/schedule.ts'
import {
  modelOfSpec,
  readTensors,
  smallSpec,
  tokensFor,
  type Weights,
  weightsOf,
  writeTensors,
} from '../../support/eval-files.ts'
import { findPython, run } from '../../support/python.ts'
import { temporaryFolder, tinySpec, trainToEnd } from '../../support/worker-gang.ts'

const ROOT = join(import.meta.dirname, '../../..')

let folder: string
beforeEach(() => {
  folder = temporaryFolder()
})

/** Runs the command `scmoe eval`. */
async function scmoe(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  const command = promisify(execFile)(process.execPath, [join(ROOT, 'cli/scmoe.ts'), 'eval', ...args])
  return command.then(
    ({ stdout, stderr }) => ({ stdout, stderr, code: 0 }),
    ({ stdout, stderr, code }) => ({ stdout, stderr, code }),
  )
}

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

/** An order for `sequences` of 8 tokens with these weights. */
function orderOf(
  spec: ScMoEJobSpec,
  weights: Weights,
  change: Partial<EvaluationOrder> & { count?: number } = {},
): EvaluationOrder {
  const { count = 3, ...rest } = change
  const checkpoint = join(folder, 'weights.safetensors')
  writeTensors(checkpoint, weights)
  return { checkpoint, tokens: write('tokens', tokensFor(count)), spec, threads: 1, ...rest }
}

/** The weights with one element changed by `step`. */
function moved(weights: Weights, { name, at }: { name: string; at: number }, step: number): Weights {
  const tensor = weights.get(name)
  if (!tensor) throw new Error(`no tensor ${name}`)
  const values = tensor.values.slice()
  values[at] = (values[at] ?? 0) + step
  return new Map([...weights, [name, { ...tensor, values }]])
}

const jobFile = (spec: unknown) =>
  write('job.yaml', JSON.stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'job' }, spec }))

const indexOfLargest = (values: Float32Array) =>
  values.reduce((best, value, i) => (Math.abs(value) > Math.abs(values[best] ?? 0) ? i : best), 0)

const distance = (a: Float32Array | undefined, b: Float32Array | undefined) =>
  a?.length === b?.length
    ? Math.max(...(a ?? []).map((value, i) => Math.abs(value - (b?.[i] ?? Number.NaN))))
    : Number.NaN

// Seen failing with sequences that began one token late, and with half of every tensor not read.
test('a checkpoint of two ranks: the loss that the workers found on the text they held out', async () => {
  // The last tenth is held out: one sequence of 32 and its last target. The evaluation repeats it.
  const text = Uint8Array.from({ length: 330 }, (_, i) => (i * i * 31 + 7 * i) % 251)
  const output = join(folder, 'out')
  const spec = tinySpec({ steps: 10, replicas: 2, rest: { data: { path: write('text', text) } } })
  await trainToEnd(spec, output)
  const lines = readFileSync(join(output, 'losses.jsonl'), 'utf8').trim().split('\n')
  const { step, evaluationLoss }: { step: number; evaluationLoss: number } = JSON.parse(lines.at(-1) ?? '')
  expect(step).toBe(10)
  const tokens = write('held-out', text.subarray(297))
  const { stdout, code } = await scmoe('--checkpoint', output, '--tokens', tokens, '--job', jobFile(spec), '--json')
  expect(code).toBe(0)
  const found = Evaluation.parse(JSON.parse(stdout))
  expect(found).toMatchObject({ step: 10, sequences: 1, sequenceLength: 32, auxCoefficient: 0.01 })
  expect(Math.abs(found.crossEntropy - evaluationLoss)).toBeLessThan(2e-6)
  expect(found.loss).toBe(found.crossEntropy + 0.01 * (found.auxLoss ?? 0))
  expect(found.gradientNorm).toBeGreaterThan(0)
  // Without --job, the index of the checkpoint gives the model; text shows the same figures.
  const plain = await scmoe('--checkpoint', join(output, 'checkpoints/step-00000010'), '--tokens', tokens)
  expect(plain.stdout).toContain(`cross-entropy  ${found.crossEntropy.toFixed(6)}`)
  expect(plain.stdout).toContain(`gradient norm  ${found.gradientNorm?.toFixed(6)}`)
})

describe('gradients', () => {
  // Seen failing with the z-loss left out of the loss.
  test("are the engine's, and the slope of the loss", async () => {
    const spec = smallSpec()
    const weights = weightsOf(spec)
    const gradients = join(folder, 'gradients.safetensors')
    const order = orderOf(spec, weights, { batch: 3 })
    const found = await evaluate({ ...order, gradients })
    const written = readTensors(gradients)
    const expected = await engineGradients(spec, weights)
    expect([...written.keys()]).toEqual([...expected.keys()])
    for (const [name, { shape, values, dtype }] of written) {
      expect([name, dtype, shape, values]).toEqual([name, 'F32', weights.get(name)?.shape, expected.get(name)])
    }
    const squares = [...written.values()].flatMap(({ values }) => [...values].map(value => value * value))
    expect(found.gradientNorm).toBeCloseTo(Math.sqrt(squares.reduce((a, b) => a + b)), 10)
    for (const name of [
      'wte',
      'blocks.0.attn.qkv.weight',
      'blocks.1.moe.experts.up.weight',
      'blocks.1.moe.router.weight',
      'blocks.1.shared.gate.weight',
    ]) {
      const values = written.get(name)?.values ?? new Float32Array()
      const at = indexOfLargest(values)
      const loss = async (step: number) =>
        (await evaluate({ ...orderOf(spec, moved(weights, { name, at }, step), { batch: 3 }), lossOnly: true })).loss
      const slope = ((await loss(STEP)) - (await loss(-STEP))) / (2 * STEP)
      expect(Math.abs(slope / (values[at] ?? 0) - 1), `${name}[${at}]`).toBeLessThan(0.01)
    }
  })

  // Seen failing with a last, smaller batch that counted as much as the others, in losses or in
  // gradients, and with losses of a batch that stayed for the next.
  test('of sequences in batches, the last one smaller, are the mean of those of each sequence', async () => {
    const spec = smallSpec({ model: { balanceLossCoefficient: '0' } })
    const weights = weightsOf(spec)
    const gradients = join(folder, 'gradients.safetensors')
    const order = orderOf(spec, weights, { batch: 2 })
    const whole = await evaluate({ ...order, gradients })
    const together = readTensors(gradients)
    const mean = new Map([...together].map(([name, { values }]) => [name, new Float32Array(values.length)]))
    let loss = 0
    for (let sequence = 0; sequence < 3; sequence++) {
      const tokens = write('one', tokensFor(3).subarray(8 * sequence, 8 * sequence + 9))
      loss += (await evaluate({ ...order, tokens, gradients })).loss / 3
      for (const [name, { values }] of readTensors(gradients))
        for (const [i, value] of values.entries()) mean.get(name)?.set([(mean.get(name)?.[i] ?? 0) + value / 3], i)
    }
    expect(Math.abs(whole.loss - loss)).toBeLessThan(2e-6)
    for (const [name, values] of mean) expect(distance(together.get(name)?.values, values), name).toBeLessThan(2e-6)
    const losses = await evaluate({ ...order, lossOnly: true })
    expect(losses.gradientNorm).toBeUndefined()
    expect(Math.abs(losses.loss - whole.loss)).toBeLessThan(1e-6)
  })
})

const STEP = 2e-3

/** The gradients of three sequences in one batch, from the program that computes only gradients. */
async function engineGradients(spec: ScMoEJobSpec, weights: Weights): Promise<Map<string, Float32Array>> {
  const model = { ...modelOfSpec(spec), batch: 3, capacity: 24 }
  const engine = createEngine({
    rank: 0,
    worldSize: 1,
    expertParallelSize: 1,
    computeThreads: 1,
    timeoutMilliseconds: 1000,
  })
  try {
    engine.load(assemble(schedule(emitGradients(model, 0), { strategy: 'Sequential' }), model, 0))
    for (const [name, { values }] of weights) engine.view(name).set(values)
    const tokens = tokensFor(3)
    const rows = [0, 8, 16].flatMap(start => [...tokens.subarray(start, start + 9)])
    engine.view(BUFFER.tokens).set(rows)
    await engine.run('gradients')
    return new Map(tensors(model).map(({ name }) => [name, Float32Array.from(engine.view(gradientOf(name)))]))
  } finally {
    engine.close()
  }
}

let interpreter: ReturnType<typeof findPython>
beforeAll(() => {
  interpreter = findPython()
})
const CONVERT = `
import json, sys
import numpy as np
from safetensors.numpy import save_file
given = json.load(open(sys.argv[1]))
save_file({name: np.array(values, np.float32).reshape(shape) for name, (shape, values) in given.items()}, sys.argv[2])
`

describe('weights of another program', () => {
  test('in several files, and tokens of other widths, give the same loss as in one', async () => {
    const spec = smallSpec()
    const weights = [...weightsOf(spec)]
    const one = await evaluate(orderOf(spec, new Map(weights)))
    const split = temporaryFolder()
    const files = [0, 1].map(i => join(split, `part-${i}.safetensors`))
    for (const [i, part] of [weights.slice(0, 5), weights.slice(5)].entries())
      writeTensors(files[i] ?? '', new Map(part.toReversed()))
    const tokens = write('wide', new Uint8Array(Uint16Array.from(tokensFor(3)).buffer))
    const order = { checkpoint: split, tokens, spec, threads: 1, type: 'uint16' } as const
    const data = { path: tokens, type: 'uint16', because: 'as --type says', tokens: 25 }
    expect(await evaluate(order)).toEqual({ ...one, data, checkpoint: files.join(', ') })
  })

  test("written by Python's safetensors give the same loss", async context => {
    const { python = '', problem } = interpreter
    context.skip(problem !== undefined, problem)
    const spec = smallSpec()
    const weights = weightsOf(spec)
    const one = await evaluate(orderOf(spec, weights))
    const lists = [...weights].map(([name, { shape, values }]) => [name, [shape, [...values]]])
    const json = write('weights.json', JSON.stringify(Object.fromEntries(lists)))
    const checkpoint = join(folder, 'python.safetensors')
    expect(run(python, '-c', CONVERT, json, checkpoint).problem).toBeUndefined()
    const order = { ...orderOf(spec, weights), checkpoint }
    expect(await evaluate(order)).toEqual({ ...one, checkpoint })
  })

  // Seen failing with the value before the gate, and with keys before queries, in the page's code.
  test("of Hugging Face's Llama, converted as docs/checkpoints.md says, give its loss", async context => {
    const { python = '', problem } = interpreter
    context.skip(problem !== undefined, problem)
    const script = [join(ROOT, 'tests/support/eval-llama.py'), join(ROOT, 'docs/checkpoints.md'), folder]
    const { output, problem: failed } = run(python, ...script)
    expect(failed).toBeUndefined()
    const model = {
      kind: 'Dense',
      blocks: 3,
      moeLayerFrequency: 1,
      hiddenSize: 32,
      feedForwardSize: 48,
      tieEmbeddings: false,
    }
    const spec = smallSpec({ model, training: { sequenceLength: 16 } })
    const [checkpoint, tokens] = [join(folder, 'llama.safetensors'), join(folder, 'llama.tokens')]
    const { crossEntropy } = await evaluate({ checkpoint, tokens, spec, threads: 1 })
    expect(Math.abs(crossEntropy - Number(output))).toBeLessThan(1e-5)
  })
})

describe('what cannot be evaluated is said in one error', () => {
  const refused = async (order: EvaluationOrder, message: RegExp) => {
    await expect(evaluate(order)).rejects.toThrow(message)
  }

  // Failed when extra tensors were passed over.
  test('tensors that are missing, extra, misshapen and of another type, all at once, by the command', async () => {
    const spec = smallSpec()
    const weights = weightsOf(spec)
    const up = weights.get('blocks.1.moe.experts.up.weight')
    weights.delete('norm.gamma')
    weights.set('head.weight', { shape: [64, 16], values: new Float32Array(1024) })
    weights.set('wte', { shape: [32, 32], values: new Float32Array(1024) })
    weights.set('blocks.1.moe.experts.up.weight', { shape: [16, 48, 4], values: new Float32Array(up?.values ?? []) })
    weights.set('blocks.0.attn.norm.gamma', { dtype: 'BF16', shape: [16], values: new Float32Array(8) })
    const { checkpoint, tokens } = orderOf(spec, weights)
    const { stdout, stderr, code } = await scmoe('--checkpoint', checkpoint, '--tokens', tokens, '--job', jobFile(spec))
    expect([stdout, code]).toEqual(['', 1])
    expect(stderr.trim().split('\n')).toEqual([
      "The weights are not those of the job's model (docs/checkpoints.md):",
      "  wte: found F32 [32, 32] in weights.safetensors, expected F32 [64, 16]: write it in that shape, or correct the job's spec.model and sequenceLength",
      '  norm.gamma: not there, expected F32 [16]: write it',
      '  blocks.0.attn.norm.gamma: found BF16 [16] in weights.safetensors, expected F32 [16]: convert it to float32',
      '  blocks.1.moe.experts.up.weight: found F32 [16, 48, 4] in weights.safetensors, expected F32 [4, 48, 16]: transpose it',
      '  head.weight: found F32 [64, 16] in weights.safetensors, expected no such tensor: the head is wte; leave it out, or set spec.model.tieEmbeddings to false',
    ])
  })

  test('of many tensors the first eight are named', async () => {
    const spec = smallSpec()
    const order = orderOf(spec, new Map([...weightsOf(spec)].slice(0, 1)))
    const missing = weightsOf(spec).size - 1
    await refused(order, new RegExp(`(\\n  \\S+: not there.*){8}\\n  and ${missing - 8} more$`))
  })

  test('weights without a job, of values that are not finite, and files that are none', async () => {
    const spec = smallSpec()
    const order = orderOf(spec, weightsOf(spec))
    const { spec: _, ...jobless } = order
    await refused(jobless, /nothing says which model the weights belong to: give a job with that model by --job/)
    await refused(
      { ...order, checkpoint: write('w.safetensors', 'text') },
      /w\.safetensors cannot be read: not a safetensors file.*Write it again/,
    )
    await refused(
      { ...order, checkpoint: join(folder, 'none') },
      /none cannot be read: ENOENT: no such file or directory\. Give the folder/,
    )
    await refused({ ...order, checkpoint: temporaryFolder() }, /holds no checkpoint: give a folder with/)
    const first = { name: 'blocks.0.attn.qkv.weight', at: 0 }
    await refused(orderOf(spec, moved(weightsOf(spec), first, Number.NaN)), /loss is NaN.*weights are not finite/)
  })

  test('tokens that do not fit, and gradients that cannot be written', async () => {
    const spec = smallSpec()
    const order = orderOf(spec, weightsOf(spec))
    await refused(
      { ...order, sequences: 4 },
      /has 25 bytes, but 4 sequences of 8 and the last target need 33: use a longer file, or fewer --sequences/,
    )
    await refused({ ...order, tokens: write('short', 'abc') }, /has 3 bytes, but 1 sequence of 8 .* need 9/)
    await refused({ ...order, tokens: write('text', 'some text.') }, /token 115 at place 0 \(byte 0\), but spec\.model/)
    await refused({ ...order, tokens: join(folder, 'none') }, /none cannot be read: ENOENT/)
    await refused(
      { ...order, gradients: join(folder, 'none/g.safetensors') },
      /--gradients: .*none\/g\.safetensors cannot be written: ENOENT.*Give another file/,
    )
    const both = ['--checkpoint', order.checkpoint, '--tokens', order.tokens, '--loss-only', '--gradients', 'g']
    expect((await scmoe(...both)).stderr).toMatch(/^--gradients needs the backward pass.*give one of them\n$/)
  })

  test('a checkpoint of another model, and one that is damaged', async () => {
    const output = join(folder, 'out')
    const spec = tinySpec({ steps: 1, replicas: 2 })
    await trainToEnd(spec, output)
    const step = join(output, 'checkpoints/step-00000001')
    const order = { checkpoint: output, tokens: write('tokens', 'x'.repeat(40)), threads: 1 }
    await refused(
      { ...order, spec: smallSpec() },
      /step-00000001 was made with spec\.model\.hiddenSize 32, the job has 16: give the job of the checkpoint, or leave --job out/,
    )
    const index = await readIndex(step)
    const { model } = index
    // Seen failing with an index that listed nothing and was read as zeros: perplexity 256.000.
    const changes: [Partial<CheckpointIndex>, RegExp][] = [
      [{ files: [] }, /index\.json: it has elements 0 to 8191 of wte in file 0 of 0\. Give the folder/],
      [{ files: [], tensors: {} }, /index\.json: it has elements 0 to 8191 of wte in no file\. Give the folder/],
      [{ model: { ...model, shortcutPosition: 1 } }, /shard-0-of-2\.safetensors: it belongs to another checkpoint/],
      [{ model: { ...model, dim: 0 } }, /holds a model that no job can have: spec\.model\.hiddenSize is 0: .*Give the/],
      [
        { model: { ...model, heads: 3 } },
        /no job can have: .*model\.heads is 3, which does not divide .*hiddenSize 32/,
      ],
    ]
    for (const [change, reason] of changes) {
      writeFileSync(join(step, 'index.json'), encodeIndex({ ...index, ...change }))
      await refused(order, reason)
    }
    writeFileSync(join(step, 'index.json'), encodeIndex(index))
    const shard = join(step, 'shard-1-of-2.safetensors')
    writeFileSync(shard, readFileSync(shard).with(5000, 1))
    await refused(
      order,
      /step-00000001 is not usable: shard-1-of-2\.safetensors: its checksum differs.*Give the folder of another step/,
    )
    writeFileSync(join(step, 'index.json'), '{}')
    await refused(order, /step-00000001 is not usable: index\.json/)
  })
})

// Seen failing with bytes as the default: exit code 0, and the perplexity of another text.
test('a checkpoint of token numbers: its own kind is read and said, and what cannot be right is refused', async () => {
  const numbers = Uint16Array.from({ length: 4000 }, (_, i) => 300 + ((i * i) % 600))
  const data = write('tokens.bin', new Uint8Array(numbers.buffer))
  const text = write('text', 'It was the best of times, it was the worst of times. '.repeat(40))
  const model = { blocks: 2, hiddenSize: 16, heads: 2, feedForwardSize: 16, experts: 2, vocabularySize: 50_257 }
  const training = { steps: 2, globalBatchSequences: 4, sequenceLength: 16 }
  const spec = { model, training, data: { path: data, tokens: 'uint16' }, workers: { replicas: 1 } } as const
  await trainToEnd({ ...spec, checkpoint: { volume: { emptyDir: {} } } }, folder)
  const found = Evaluation.parse(JSON.parse((await scmoe('--checkpoint', folder, '--tokens', data, '--json')).stdout))
  expect(found).toMatchObject({
    step: 2,
    sequences: 249,
    data: { path: data, type: 'uint16', because: 'as in training', tokens: 4000 },
    vocabulary: 50_257,
    precision: 'float32',
  })
  const said = await scmoe('--checkpoint', folder, '--tokens', data, '--loss-only')
  expect(said.stdout).toContain(`${data}  4000 tokens, read as uint16 as in training; vocabulary 50257`)
  expect(said.stdout).toContain('249 sequences of 16 tokens, 3984 predicted, 8 at a time, in float32')
  for (const [args, says] of [
    [['--tokens', text], 'is text, but spec.data.tokens is uint16'],
    [['--tokens', text, '--type', 'bytes'], 'was trained on uint16'],
  ] as const) {
    const refused = await scmoe('--checkpoint', folder, ...args)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain(says)
  }
})
