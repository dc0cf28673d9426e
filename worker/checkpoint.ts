// Writing checkpoints: one file per rank of the first expert-data-parallel replica, rank 0's also with the dense tensors, then index.json.
// Everything is written under a temporary name, fsynced and renamed: a folder with its final name is whole, whenever a process dies.

import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  type CheckpointIndex,
  encodeIndex,
  folderOf,
  INDEX,
  type Losses,
  listSteps,
  modelFields,
} from './checkpoint-index.ts'
import { errnoText, WorkerFailure } from './failure.ts'
import { type ModelConfig, meanOf, type Slice, sliceOf, type Tensor, tensors, varianceOf } from './model.ts'
import { type Tensor as FileTensor, writeSafetensors } from './safetensors.ts'
import { everywhere, type Reduce } from './together.ts'

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
  /** For how much of it all, up to the rename, this rank's training stood still. */
  stalledMilliseconds: number
}

interface State {
  held: readonly Held[]
  losses: Losses
}

/** A checkpoint that is written while training goes on. All ranks start and finish it after the same steps. */
export class Saving {
  readonly #place: CheckpointPlace
  readonly #step: number
  readonly #state: State
  readonly #temporary: string
  readonly #written: Promise<number[]>
  readonly #begun = performance.now()
  #stalled = 0
  #snapshot = 0
  #write = 0
  #pending = true

  private constructor(place: CheckpointPlace, step: number, state: State, written: readonly Held[]) {
    this.#place = place
    this.#step = step
    this.#state = state
    this.#temporary = join(place.directory, `.tmp-${folderOf(step)}`)
    this.#written = this.#writeOwn(written)
    // A failure is looked at in finish(); until then it is not unhandled.
    this.#written.catch(() => undefined)
  }

  /** Copies what this rank writes and begins to write it; collective. Where a rank has no room for the copy, all wait until it is written. */
  static async start(place: CheckpointPlace, step: number, state: State): Promise<Saving> {
    const entered = performance.now()
    const own = writtenBy(place.rank, state.held, place.model)
    const bytes = own.reduce((total, { data }) => total + data.byteLength, 0)
    const cramped = (await place.reduce(Float64Array.of(process.availableMemory() < 2 * bytes ? 1 : 0)))[0] !== 0
    const saving = new Saving(place, step, state, cramped ? own : own.map(copied))
    saving.#snapshot = saving.#begun - entered
    if (cramped) await everywhere(place.reduce, () => saving.#written)
    saving.#stalled = performance.now() - entered
    return saving
  }

  /** This rank's part is still being written. */
  get pending(): boolean {
    return this.#pending
  }

  /**
   * Waits for every rank's part and gives the checkpoint its name; collective. All ranks return, or all throw a `checkpoint` failure and the
   * previous checkpoint stays.
   */
  async finish(): Promise<Saved> {
    const entered = performance.now()
    const { model, rank, reduce } = this.#place
    // Per writer: bytes, then the SHA-256 as eight 32-bit numbers. Everyone else adds zeros, so the sum is exact.
    const sums = new Float64Array(9 * model.expertParallelSize)
    await together(this.#place, this.#temporary, async () => {
      const own = await this.#written
      if (own.length > 0) sums.set(own, 9 * rank)
    })
    const files = filesFrom(await reduce(sums), model)
    await together(this.#place, this.#temporary, async () => {
      if (rank === 0)
        await publish(this.#place, this.#temporary, indexOf(this.#place, { step: this.#step, files, ...this.#state }))
    })
    const now = performance.now()
    return {
      step: this.#step,
      bytes: files.reduce((total, file) => total + file.bytes, 0),
      snapshotMilliseconds: rounded(this.#snapshot),
      writeMilliseconds: rounded(this.#write),
      stalledMilliseconds: rounded(this.#stalled + now - entered),
    }
  }

  /** Bytes and checksum of this rank's file; nothing on a rank without one. */
  async #writeOwn(held: readonly Held[]): Promise<number[]> {
    try {
      return held.length > 0 ? await writeShard(this.#place, this.#temporary, { step: this.#step, held }) : []
    } finally {
      this.#pending = false
      this.#write = performance.now() - this.#begun
    }
  }
}

const rounded = (milliseconds: number) => Math.round(10 * milliseconds) / 10

/** With memory of its own, which training does not change. */
const copied = (item: Held): Held => Object.assign({}, item, { data: item.data.slice() })

/** Runs `work` on every rank; when it fails anywhere, all ranks throw, the failing one with its own error. */
async function together(place: CheckpointPlace, temporary: string, work: () => Promise<void>): Promise<void> {
  const outcome = await everywhere(place.reduce, work)
  const failed = new Float64Array(place.model.worldSize)
  failed[place.rank] = 'error' in outcome ? 1 : 0
  const peer = (await place.reduce(failed)).findIndex(value => value > 0)
  if (peer < 0) return
  if (place.rank === 0) await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
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
  { step, held }: { step: number; held: readonly Held[] },
): Promise<number[]> {
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
  const { bytes, sha256 } = await writeSafetensors(join(temporary, fileOf(rank, model)), files, metadata)
  return [bytes, ...(sha256.match(/.{8}/g) ?? []).map(word => Number.parseInt(word, 16))]
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
