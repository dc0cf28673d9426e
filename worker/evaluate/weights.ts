// Weights that another program wrote: safetensors files with the tensors that docs/checkpoints.md
// lists, without an index and moments. All tensors are checked before any is read.

import type { FileHandle } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Entry } from '../checkpoint/header.ts'
import { openFile, readFloats, readHeaderOfAny } from '../checkpoint/safetensors.ts'
import { errnoText, WorkerFailure } from '../failure.ts'
import type { Tensor } from '../model/tensors.ts'

/** A tensor as a file's header describes it, with the name of the file. */
export type Found = Pick<Entry, 'dtype' | 'shape'> & { file: string }

/** At most so many problems are named in an error. The others are counted. */
const NAMED = 8

const shapeText = (shape: readonly number[]) => `[${shape.join(', ')}]`
const isSame = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((n, i) => n === b[i])

/**
 * A line for each tensor of the model that is missing, in two files, misshapen or not of F32, in
 * the order of the model; then a line for each tensor that the model does not have.
 */
export function weightProblems(
  expected: readonly Pick<Tensor, 'name' | 'shape'>[],
  found: ReadonlyMap<string, Found[]>,
): string[] {
  const names = new Set(expected.map(({ name }) => name))
  const own = expected.flatMap(({ name, shape }) => {
    const [first, second] = found.get(name) ?? []
    const wanted = `expected F32 ${shapeText(shape)}`
    if (first === undefined) return [`${name}: not there, ${wanted}: write it`]
    const is = `${name}: found ${first.dtype} ${shapeText(first.shape)} in ${first.file}`
    if (second !== undefined) return [`${is} and again in ${second.file}: leave one of them out`]
    if (!isSame(first.shape, shape)) return [`${is}, ${wanted}: ${remedy(first.shape, shape)}`]
    return first.dtype === 'F32' ? [] : [`${is}, ${wanted}: convert it to float32`]
  })
  const others = [...found].flatMap(([name, [first]]) => {
    if (names.has(name) || first === undefined) return []
    return [
      `${name}: found ${first.dtype} ${shapeText(first.shape)} in ${first.file}, expected no such tensor: ${unknown(name, names)}`,
    ]
  })
  return [...own, ...others]
}

function remedy(found: readonly number[], expected: readonly number[]): string {
  return isSame(found.toReversed(), expected)
    ? 'transpose it'
    : "write it in that shape, or correct the job's spec.model and sequenceLength"
}

function unknown(name: string, names: ReadonlySet<string>): string {
  if (/\.[mv]$/.test(name) && names.has(name.slice(0, -2))) return 'leave out the moments of the optimizer'
  if (name === 'head.weight') return 'the head is wte; leave it out, or set spec.model.tieEmbeddings to false'
  return 'leave it out, or name it as docs/checkpoints.md does'
}

/**
 * Fills the memory that `view` gives from `files`. Throws a `badConfig` failure that lists the
 * tensors with problems, or names the file that cannot be read.
 */
export async function readWeights(
  files: readonly string[],
  expected: readonly Pick<Tensor, 'name' | 'shape'>[],
  view: (name: string) => Float32Array,
): Promise<void> {
  const opened: FileHandle[] = []
  try {
    const places = new Map<string, (Found & Entry & { handle: FileHandle })[]>()
    for (const path of files) {
      await reading(path, async () => {
        const handle = await openFile(path)
        opened.push(handle)
        const { entries } = await readHeaderOfAny(handle)
        for (const [name, entry] of entries)
          places.set(name, [...(places.get(name) ?? []), { ...entry, file: basename(path), handle }])
      })
    }
    demandAll(expected, places)
    for (const { name } of expected)
      for (const { file, handle, start } of places.get(name) ?? [])
        await reading(file, () => readFloats(handle, start, view(name)))
  } finally {
    for (const handle of opened) await handle.close()
  }
}

function demandAll(expected: readonly Pick<Tensor, 'name' | 'shape'>[], found: ReadonlyMap<string, Found[]>): void {
  const problems = weightProblems(expected, found)
  if (problems.length === 0) return
  const more = problems.length > NAMED ? [`and ${problems.length - NAMED} more`] : []
  const lines = [...problems.slice(0, NAMED), ...more].map(line => `\n  ${line}`)
  throw new WorkerFailure(
    'badConfig',
    `The weights are not those of the job's model (docs/checkpoints.md):${lines.join('')}`,
  )
}

async function reading(path: string, act: () => Promise<void>): Promise<void> {
  try {
    await act()
  } catch (error) {
    const text = errnoText(error).replaceAll(/\s+/g, ' ').slice(0, 300)
    throw new WorkerFailure('badConfig', `${path} cannot be read: ${text}. Write it again, as F32 safetensors.`)
  }
}
