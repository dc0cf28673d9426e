// The tensors that each file of a checkpoint must hold, from the index and the model. An index is
// believed only if every element of every tensor lies in exactly one file, and nothing else does.
// Pure.

import { elementsOf, meanOf, type Slice, type Tensor, varianceOf } from '../model/tensors.ts'
import type { CheckpointIndex } from './contents.ts'
import { MAX_HEADER } from './header.ts'

/** A part of a tensor in a file. */
export interface Placed extends Slice {
  /** The shape in the file, which differs from the tensor's in the first axis. */
  shape: number[]
}

export interface FileLayout {
  name: string
  bytes: number
  sha256: string
  /** By name, everything that the file holds. */
  parts: Map<string, Placed>
  /** Experts of the file, as its metadata say it; undefined if it has none. */
  experts: string | undefined
}

type Content = Pick<CheckpointIndex, 'files' | 'tensors'>

/** The files of a checkpoint of a model with `tensors`. Throws an error that says what is wrong. */
export function layoutOf({ files, tensors: where }: Content, tensors: readonly Tensor[]): FileLayout[] {
  const layout = files.map((file): FileLayout => ({ ...file, parts: new Map(), experts: undefined }))
  const listed = new Set<string>()
  for (const { name } of files) {
    if (listed.has(name)) throw new Error(`it lists the file ${name} twice`)
    listed.add(name)
  }
  const names = new Set<string>()
  for (const tensor of tensors) {
    for (const name of [tensor.name, meanOf(tensor.name), varianceOf(tensor.name)]) {
      names.add(name)
      place(layout, { name, tensor, parts: Object.hasOwn(where, name) ? (where[name] ?? []) : [] })
    }
  }
  const other = Object.keys(where).find(name => !names.has(name))
  if (other !== undefined)
    throw new Error(`it lists the tensor ${JSON.stringify(other)}, which its model does not have`)
  for (const file of layout) demandSize(file)
  return layout
}

interface Listed {
  name: string
  tensor: Tensor
  parts: readonly (Slice & { file: number })[]
}

/** Adds the parts of a tensor to the files. Together they are the tensor, once. */
function place(layout: readonly FileLayout[], { name, tensor, parts }: Listed): void {
  const total = elementsOf(tensor.shape)
  const [first = 1, ...rest] = tensor.shape
  const row = elementsOf(rest)
  let next = 0
  for (const { file: number, start, count } of parts.toSorted((a, b) => a.start - b.start)) {
    const what = `elements ${start} to ${start + count - 1} of ${name}`
    const file = layout[number]
    if (file === undefined) throw new Error(`it has ${what} in file ${number} of ${layout.length}`)
    if (start < next) throw new Error(`it has ${what} twice`)
    if (start > next) throw new Error(`it has elements ${next} to ${start - 1} of ${name} in no file`)
    if (file.parts.has(name)) throw new Error(`it has two parts of ${name} in ${file.name}`)
    if (count === 0 || count % row !== 0 || start % row !== 0)
      throw new Error(`it has ${what}, which are no whole rows of its shape ${tensor.shape.join(' x ')}`)
    file.parts.set(name, { start, count, shape: [count / row, ...rest] })
    if (tensor.kind === 'expert') {
      const experts = `${start / row}-${(start + count) / row - 1} of ${first}`
      file.experts ??= experts
      if (file.experts !== experts)
        throw new Error(`it has experts ${experts} of ${name} in ${file.name}, and others of other tensors`)
    }
    next = start + count
  }
  if (next > total) throw new Error(`it has ${next} elements of ${name}, which has ${total}`)
  if (next < total) throw new Error(`it has elements ${next} to ${total - 1} of ${name} in no file`)
}

function demandSize({ name, bytes, parts }: FileLayout): void {
  if (parts.size === 0) throw new Error(`it lists the file ${name}, in which no tensor lies`)
  const data = [...parts.values()].reduce((sum, { count }) => sum + 4 * count, 0)
  if (bytes < data || bytes > data + MAX_HEADER + 8)
    throw new Error(`it says that ${name} has ${bytes} bytes, but its tensors have ${data}`)
}
