// Writing checkpoints: one file per rank of the first expert-data-parallel replica, rank 0's also with the dense tensors, then index.json.
// Everything is written under a temporary name, fsynced and renamed: a folder with its final name is whole, whenever a process dies. Training
// waits for a copy of the tensors; they are written, and the checkpoint gets its name, while it goes on.

import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoText, WorkerFailure } from '../failure.ts'
import { type ModelConfig, meanOf, type Slice, sliceOf, type Tensor, tensors, varianceOf } from '../model.ts'
import { everywhere, type Reduce } from '../ranks/together.ts'
import { type CheckpointIndex, encodeIndex, folderOf, INDEX, type Losses, listSteps, modelFields } from './contents.ts'
import { encodeHeader, type Tensor as FileTensor, type Written, writeSafetensors } from './safetensors.ts'
import { writeBeside } from './thread.ts'

export interface CheckpointPlace {
  /** `<output>/checkpoints`, the same folder for all ranks. */
  directory: string
  keep: number
  model: ModelConfig
  rank: number
  jobUid: string
  seed: number
  reduce: Reduce
}

/** A parameter or one of its two moments, as this rank holds it. */
export interface Held {
  name: string
  tensor: Tensor
  slice: Slice
  data: Float32Array
}

/** Everything a checkpoint of this rank consists of, over the memory that `view` gives. */
export function heldTensors(model: ModelConfig, rank: number, view: (name: string) => Float32Array): Held[] {
  return tensors(model).flatMap(tensor =>
    [tensor.name, meanOf(tensor.name), varianceOf(tensor.name)].map(name => ({
      name,
      tensor,
      slice: sliceOf(tensor, model, rank),
      data: view(name),
    })),
  )
}

/** What of it this rank writes: experts on the first replica, the dense tensors on rank 0. */
function writtenBy(rank: number, held: readonly Held[], model: ModelConfig): Held[] {
  if (rank >= model.expertParallelSize) return []
  return held.filter(({ tensor }) => rank === 0 || tensor.kind === 'expert')
}

const fileOf = (rank: number, model: ModelConfig) => `shard-${rank}-of-${model.expertParallelSize}.safetensors`

export interface Saved {
  step: number
  /** Of all files. */
  bytes: number
  /** Of this rank: making the copy that is written, while training stands still. */
  snapshotMilliseconds: number
  /** Of this rank: from then on until its file is on the disk, while training goes on. */
  writeMilliseconds: number
  /** For how much of it all, up to the checkpoint's name, this rank's training stood still. */
  stalledMilliseconds: number
}

interface State {
  held: readonly Held[]
  losses: Losses
  /** Memory of an earlier checkpoint, for the copy. */
  memory?: ArrayBuffer | undefined
  /** Training has ended, on all ranks: nothing is copied, and all wait. */
  last?: boolean
}

/** What this rank writes. */
interface Part {
  held: readonly Held[]
  /** Holds all of it, one after another, where it was copied. */
  memory: ArrayBuffer | undefined
}

/**
 * A checkpoint that is written while training goes on: first every rank's part, then, by rank 0, the index and the name. All ranks start,
 * advance and finish it after the same steps.
 */
export class Saving {
  readonly #place: CheckpointPlace
  readonly #step: number
  readonly #state: State
  readonly #temporary: string
  readonly #begun = performance.now()
  #memory: ArrayBuffer | undefined
  /** Of the present phase: of this rank's file bytes and checksum, or nothing. */
  #work: Promise<number[]>
  #pending = true
  #files: CheckpointIndex['files'] | undefined
  #stalled = 0
  #snapshot = 0
  #write = 0

  private constructor(place: CheckpointPlace, step: number, state: State, part: Part) {
    this.#place = place
    this.#step = step
    this.#state = state
    this.#temporary = join(place.directory, `.tmp-${folderOf(step)}`)
    this.#work = this.#begin(() => this.#writeOwn(part))
  }

  /** Copies what this rank writes and begins to write it; collective. At the end, or where a rank has no room for a copy, all wait until it is written. */
  static async start(place: CheckpointPlace, step: number, state: State): Promise<Saving> {
    const entered = performance.now()
    const own = writtenBy(place.rank, state.held, place.model)
    const bytes = own.reduce((total, { data }) => total + data.byteLength, 0)
    const reused = state.memory?.byteLength === bytes ? state.memory : undefined
    const short = state.last === true || (reused === undefined && process.availableMemory() < 2 * bytes)
    const waits = (await place.reduce(Float64Array.of(short ? 1 : 0)))[0] !== 0
    const part = waits ? { held: own, memory: undefined } : copied(own, reused ?? new ArrayBuffer(bytes))
    const saving = new Saving(place, step, state, part)
    saving.#snapshot = saving.#begun - entered
    if (waits) await everywhere(place.reduce, () => saving.#work)
    saving.#stalled = performance.now() - entered
    return saving
  }

  /** This rank is still at work on it. */
  get pending(): boolean {
    return this.#pending
  }

  /** Once its part is written: the memory that held the copy, for the next checkpoint. */
  get memory(): ArrayBuffer | undefined {
    return this.#memory
  }

  /**
   * To be called when no rank is pending; collective. Undefined: there is more to do. All ranks go on, or all throw a `checkpoint` failure and
   * the previous checkpoint stays.
   */
  async advance(): Promise<Saved | undefined> {
    const entered = performance.now()
    try {
      return await this.#advance()
    } finally {
      this.#stalled += performance.now() - entered
    }
  }

  /** Waits until the checkpoint has its name; collective. Throws like `advance`. */
  async finish(): Promise<Saved> {
    const entered = performance.now()
    for (;;) {
      await everywhere(this.#place.reduce, () => this.#work)
      const saved = await this.#advance()
      if (saved === undefined) continue
      return { ...saved, stalledMilliseconds: rounded(this.#stalled + performance.now() - entered) }
    }
  }

  async #advance(): Promise<Saved | undefined> {
    const { model, rank } = this.#place
    const own = await agreed(this.#place, this.#temporary, this.#work)
    if (this.#files === undefined) {
      const files = filesFrom(own, model)
      this.#files = files
      this.#work = this.#begin(async () => {
        const state = { step: this.#step, files, ...this.#state }
        if (rank === 0) await publish(this.#place, this.#temporary, indexOf(this.#place, state))
        return []
      })
      return undefined
    }
    return {
      step: this.#step,
      bytes: this.#files.reduce((total, file) => total + file.bytes, 0),
      snapshotMilliseconds: rounded(this.#snapshot),
      writeMilliseconds: rounded(this.#write),
      stalledMilliseconds: rounded(this.#stalled),
    }
  }

  #begin(work: () => Promise<number[]>): Promise<number[]> {
    this.#pending = true
    const begun = work().finally(() => {
      this.#pending = false
    })
    // A failure is looked at in advance(); until then it is not unhandled.
    begun.catch(() => undefined)
    return begun
  }

  /** Bytes and checksum of this rank's file; nothing on a rank without one. */
  async #writeOwn(part: Part): Promise<number[]> {
    if (part.held.length === 0) return []
    const written = await writeShard(this.#place, this.#temporary, { step: this.#step, part })
    this.#write = performance.now() - this.#begun
    this.#memory = written.body
    return [written.bytes, ...(written.sha256.match(/.{8}/g) ?? []).map(word => Number.parseInt(word, 16))]
  }
}

const rounded = (milliseconds: number) => Math.round(10 * milliseconds) / 10

/** In memory of its own, which training does not change. */
function copied(own: readonly Held[], memory: ArrayBuffer): Part {
  let offset = 0
  const held = own.map(item => {
    const data = new Float32Array(memory, offset, item.data.length)
    data.set(item.data)
    offset += data.byteLength
    return { ...item, data }
  })
  return { held, memory }
}

/**
 * The numbers of every writer's work, nine of each, one after another; collective, when no rank is at work any more. Where it failed anywhere,
 * all ranks throw, the failing one with its own error.
 */
async function agreed(place: CheckpointPlace, temporary: string, work: Promise<number[]>): Promise<Float64Array> {
  const { rank, model, reduce } = place
  const outcome = await work.then(
    value => ({ value }),
    (error: unknown) => ({ error }),
  )
  const numbers = 9 * model.expertParallelSize
  // Bytes, then the SHA-256 as eight 32-bit numbers. Everyone else adds zeros, so the sum is exact. Then a place for every rank that failed.
  const sums = new Float64Array(numbers + model.worldSize)
  if ('error' in outcome) sums[numbers + rank] = 1
  else if (outcome.value.length > 0) sums.set(outcome.value, 9 * rank)
  const all = await reduce(sums)
  const peer = all.subarray(numbers).findIndex(value => value > 0)
  if (peer < 0) return all
  if (rank === 0) await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
  if ('error' in outcome) {
    throw new WorkerFailure(
      'checkpoint',
      `The checkpoint ${temporary} could not be written: ${errnoText(outcome.error)}. The previous checkpoint is intact; check the volume's free space and permissions.`,
    )
  }
  throw new WorkerFailure(
    'checkpoint',
    `Rank ${peer} could not write its part of the checkpoint ${temporary}; its log says why.`,
    { peer },
  )
}

async function writeShard(
  place: CheckpointPlace,
  temporary: string,
  { step, part: { held, memory } }: { step: number; part: Part },
): Promise<Written & { body?: ArrayBuffer }> {
  const { model, rank } = place
  await mkdir(temporary, { recursive: true })
  const perRank = model.experts / model.expertParallelSize
  const files: FileTensor[] = held.map(({ name, tensor, data }) => ({
    name,
    shape: tensor.kind === 'dense' ? tensor.shape : [perRank, ...tensor.shape.slice(1)],
    data,
  }))
  const metadata = {
    format: 'scmoe-1',
    step: String(step),
    experts: `${rank * perRank}-${(rank + 1) * perRank - 1} of ${model.experts}`,
  }
  const path = join(temporary, fileOf(rank, model))
  return memory === undefined
    ? writeSafetensors(path, files, metadata)
    : writeBeside(path, encodeHeader(files, metadata), memory)
}

function filesFrom(sums: Float64Array, model: ModelConfig): CheckpointIndex['files'] {
  return Array.from({ length: model.expertParallelSize }, (_, rank) => {
    const [bytes = 0, ...words] = sums.subarray(9 * rank, 9 * rank + 9)
    return { name: fileOf(rank, model), bytes, sha256: words.map(word => word.toString(16).padStart(8, '0')).join('') }
  })
}

function indexOf(
  place: CheckpointPlace,
  made: State & { step: number; files: CheckpointIndex['files'] },
): CheckpointIndex {
  const { model } = place
  const where: CheckpointIndex['tensors'] = {}
  for (const { name, tensor } of made.held) {
    const writers = tensor.kind === 'dense' ? 1 : model.expertParallelSize
    where[name] = Array.from({ length: writers }, (_, file) => ({ file, ...sliceOf(tensor, model, file) }))
  }
  return {
    version: 2,
    step: made.step,
    jobUid: place.jobUid,
    savedTime: new Date().toISOString(),
    seed: place.seed,
    globalBatchSequences: model.batch * model.worldSize,
    worldSize: model.worldSize,
    expertParallelSize: model.expertParallelSize,
    model: modelFields(model),
    losses: made.losses,
    files: made.files,
    tensors: where,
  }
}

/** Rank 0, when all files are written: checks that it sees them, writes the index, gives the folder its name and drops what is too old. */
async function publish(place: CheckpointPlace, temporary: string, index: CheckpointIndex): Promise<void> {
  for (const { name, bytes } of index.files) {
    const seen = await stat(join(temporary, name)).catch(() => undefined)
    if (seen?.size !== bytes)
      throw new Error(
        `${name}, written by another rank, is not visible to rank 0: every worker must mount the same volume`,
      )
  }
  await writeFile(join(temporary, INDEX), encodeIndex(index), { flag: 'wx', flush: true })
  await syncFolder(temporary)
  const folder = join(place.directory, folderOf(index.step))
  await discard(folder)
  await rename(temporary, folder)
  await syncFolder(place.directory)
  await syncFolder(dirname(place.directory))
  for (const step of (await listSteps(place.directory)).slice(place.keep))
    await discard(join(place.directory, folderOf(step)))
}

/** Removes a folder so that a death in between leaves nothing that looks like a checkpoint. */
async function discard(folder: string): Promise<void> {
  const going = join(dirname(folder), `.tmp-old-${Date.now()}-${process.pid}`)
  try {
    await rename(folder, going)
  } catch {
    return
  }
  await rm(going, { recursive: true, force: true })
}

/** Removes what earlier processes left half-done. Rank 0, before anything is written. */
export async function removeLeftovers(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => [])
  for (const name of names)
    if (name.startsWith('.tmp-')) await rm(join(directory, name), { recursive: true, force: true })
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
