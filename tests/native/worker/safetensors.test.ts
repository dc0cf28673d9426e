// Tests that open the files of a checkpoint with Python's own safetensors library.

import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { readFloats, readHeader } from '../../../worker/checkpoint/safetensors/file.ts'
import { modelConfig } from '../../../worker/model/config.ts'
import { meanOf, type Tensor, tensors, varianceOf } from '../../../worker/model/tensors.ts'
import { findPython, run } from '../../support/python.ts'
import { temporaryFolder, tinySpec, trainToEnd } from '../../support/worker-gang.ts'

/** A Python program that prints the contents of the files that it is given, as JSON. */
const SCRIPT = `
import hashlib, json, sys
from safetensors import safe_open
found = []
for path in sys.argv[1:]:
    with safe_open(path, framework="numpy") as file:
        found.append({"metadata": file.metadata(), "tensors": {
            name: {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
            for name in file.keys() for value in [file.get_tensor(name)]}})
print(json.dumps(found))
`

const Found = z.array(
  z.strictObject({
    metadata: z.record(z.string(), z.string()),
    tensors: z.record(
      z.string(),
      z.strictObject({ shape: z.array(z.int()), dtype: z.string(), sha256: z.string().length(64) }),
    ),
  }),
)

/** The part of every tensor and of its two moments that rank `rank` of `ranks` writes. */
function expectedShapes(list: readonly Tensor[], rank: number, ranks: number): Record<string, number[]> {
  const written = list.filter(({ kind }) => rank === 0 || kind === 'expert')
  return Object.fromEntries(
    written.flatMap(({ name, kind, shape: [first = 0, ...rest] }) =>
      [name, meanOf(name), varianceOf(name)].map(each => [each, [kind === 'expert' ? first / ranks : first, ...rest]]),
    ),
  )
}

async function hashesOf(path: string): Promise<Record<string, string>> {
  const file = await open(path)
  const { entries } = await readHeader(file)
  const hashes: Record<string, string> = {}
  for (const [name, { start, end }] of entries) {
    const values = new Float32Array((end - start) / 4)
    await readFloats(file, start, values)
    hashes[name] = createHash('sha256').update(values).digest('hex')
  }
  await file.close()
  return hashes
}

const LLAMA = {
  kind: 'Top2',
  norm: 'RMSNorm',
  activation: 'SwiGLU',
  positions: 'RoPE',
  biases: false,
  keyValueHeads: 1,
}

let found: ReturnType<typeof findPython>
beforeAll(() => {
  found = findPython()
})

// Broken once by moments with the shape of the whole model on every rank, by offsets that began
// with the header, and by an expert tensor's name.
test.for<[string, object]>([
  ['ScMoE', {}],
  ['Llama-style', LLAMA],
])(
  "Python's safetensors opens a checkpoint, with the names, shapes and values of the model: %s",
  async ([, change], context) => {
    const { python = '', problem } = found
    context.skip(problem !== undefined, problem)
    const output = temporaryFolder()
    const model = { blocks: 2, hiddenSize: 32, heads: 2, feedForwardSize: 64, experts: 4, ...change }
    const spec = tinySpec({ steps: 2, replicas: 2, rest: { model } })
    await trainToEnd(spec, output)
    const paths = [0, 1].map(rank => join(output, `checkpoints/step-00000002/shard-${rank}-of-2.safetensors`))
    const { output: json, problem: failed } = run(python, '-c', SCRIPT, ...paths)
    expect(failed).toBeUndefined()
    const files = Found.parse(JSON.parse(json))
    const list = tensors(modelConfig(ScMoEJobSpec.parse(spec), 2))
    for (const [rank, path] of paths.entries()) {
      const { metadata, tensors: inFile = {} } = files[rank] ?? {}
      expect(metadata).toEqual({
        format: 'scmoe-1',
        step: '2',
        experts: rank === 0 ? '0-1 of 4' : '2-3 of 4',
        checkpoint: expect.stringMatching(/^[0-9a-f]{64}$/),
      })
      const column = (pick: (tensor: (typeof inFile)[string]) => unknown) =>
        Object.fromEntries(Object.entries(inFile).map(([name, tensor]) => [name, pick(tensor)]))
      expect(column(({ shape }) => shape)).toEqual(expectedShapes(list, rank, 2))
      expect(new Set(Object.values(column(({ dtype }) => dtype)))).toEqual(new Set(['float32']))
      expect(column(({ sha256 }) => sha256)).toEqual(await hashesOf(path))
    }
  },
)
