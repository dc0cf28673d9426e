// A checkpoint while it is being written: the files of the ranks that hold something of their own,
// then index.json. Everything is written under a temporary name, fsynced and renamed, so
// that a folder with its final name is complete whenever a process dies. Training waits only for a
// copy of the tensors; they are written, and the checkpoint gets its name, while training goes on.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoText, WorkerFailure } from '../failure.ts'
import type { ModelConfig } from '../model/config.ts'
import { everywhere, gathered, together } from '../ranks/together.ts'
import type { Losses } from '../report/losses.ts'
import { demandClaim } from './claim.ts'
import { type CheckpointIndex, folderOf, type Identity, markOf } from './contents.ts'
import { type CheckpointPlace, type Held, writersOf } from './place.ts'
import { identityOf, indexOf, publish } from './publish.ts'
import type { Written } from './safetensors.ts'
import { copied, type Part, shardName, writeShard, writtenBy } from './shard.ts'
import { temporaryOf } from './temporary.ts'

/** A finished checkpoint. The times are this rank's. */
export interface Saved {
  step: number
  /** Size of all files together. */
  bytes: number
  /** Time to copy the tensors, while training stands still. */
  snapshotMilliseconds: number
  /** Time from the copy until this rank's file is on the disk, while training goes on. */
  writeMilliseconds: number
  /** Time that training stood still from the start until the checkpoint had its name. */
  stalledMilliseconds: number
}

interface State {
  held: readonly Held[]
  losses: Losses
  /** Memory of an earlier checkpoint, to be used for the copy. */
  memory?: ArrayBuffer | undefined
  /** Training has ended on all ranks: nothing is copied, and all ranks wait. */
  last?: boolean
}

/**
 * A checkpoint in two phases: first every rank writes its part, then rank 0 writes the index and
 * gives the folder its name. All ranks start, advance and finish it after the same steps.
 */
export class Saving {
  readonly #place: CheckpointPlace
  readonly #step: number
  readonly #state: State
  readonly #temporary: string
  /** As it is at the start, so that the index agrees with the marks of the files. */
  readonly #identity: Identity
  readonly #begun = performance.now()
  #memory: ArrayBuffer | undefined
  /** This rank's work in the present phase; the file it wrote, if any. */
  #work: Promise<Written | undefined>
  #pending = true
  #files: CheckpointIndex['files'] | undefined
  #stalled = 0
  #snapshot = 0
  #write = 0

  private constructor(place: CheckpointPlace, step: number, state: State, part: Part) {
    this.#place = place
    this.#step = step
    this.#state = state
    this.#identity = identityOf(place, step)
    this.#temporary = join(place.directory, temporaryOf(place, folderOf(step)))
    this.#work = this.#begin(() => this.#writeOwn(part))
  }

  /**
   * Copies the tensors that this rank writes and begins to write them; collective. At the end of
   * training, or if any rank has no room for a copy, all ranks wait until everything is written.
   */
  static async start(place: CheckpointPlace, step: number, state: State): Promise<Saving> {
    const entered = performance.now()
    const own = writtenBy(place.rank, state.held, place.model)
    const bytes = own.reduce((total, { data }) => total + data.byteLength, 0)
    const reused = state.memory?.byteLength === bytes ? state.memory : undefined
    const hasNoRoom = reused === undefined && process.availableMemory() < 2 * bytes
    const { waits } = await together(place.reduce, { waits: state.last === true || hasNoRoom })
    const part = waits ? { held: own, memory: undefined } : copied(own, reused ?? new ArrayBuffer(bytes))
    const saving = new Saving(place, step, state, part)
    saving.#snapshot = saving.#begun - entered
    if (waits) await everywhere(place.reduce, () => saving.#work)
    saving.#stalled = performance.now() - entered
    return saving
  }

  /** Whether this rank is still at work on the checkpoint. */
  get pending(): boolean {
    return this.#pending
  }

  /** The memory that held the copy, for the next checkpoint, once this rank's part is written. */
  get memory(): ArrayBuffer | undefined {
    return this.#memory
  }

  /**
   * Enters the next phase; collective, to be called when no rank is pending. Undefined if the
   * checkpoint is not finished yet. All ranks go on, or all throw a `checkpoint` failure and the
   * previous checkpoint stays.
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
    const written = await agreed(this.#place, this.#temporary, this.#work)
    if (this.#files === undefined) {
      const files = filesOf(written, model)
      this.#files = files
      this.#work = this.#begin(async () => {
        const content = { identity: this.#identity, files, ...this.#state }
        if (rank === 0) await publish(this.#place, this.#temporary, indexOf(this.#place, content))
        return undefined
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

  #begin(work: () => Promise<Written | undefined>): Promise<Written | undefined> {
    this.#pending = true
    const begun = work().finally(() => {
      this.#pending = false
    })
    // advance() looks at a failure later. Without a handler until then, it would end the process.
    begun.catch(() => undefined)
    return begun
  }

  async #writeOwn(part: Part): Promise<Written | undefined> {
    if (part.held.length === 0) return undefined
    if (this.#place.rank === 0) await demandClaim(this.#place)
    const mark = markOf(this.#identity)
    const { body, ...written } = await writeShard(this.#place, this.#temporary, { step: this.#step, mark, part })
    this.#write = performance.now() - this.#begun
    this.#memory = body
    return written
  }
}

const rounded = (milliseconds: number) => Math.round(10 * milliseconds) / 10

/**
 * The files of all ranks, by rank; collective, when no rank is at work any more. If the work of any
 * rank failed, all ranks throw, the failing one with its own error.
 */
async function agreed(
  place: CheckpointPlace,
  temporary: string,
  work: Promise<Written | undefined>,
): Promise<Written[]> {
  const { rank, model, reduce } = place
  const outcome = await work.then(
    value => ({ value }),
    (error: unknown) => ({ error }),
  )
  const failed = 'error' in outcome
  const own = [Number(failed), ...numbersOf(failed ? undefined : outcome.value)]
  const all = await gathered(reduce, { rank, worldSize: model.worldSize }, own)
  const peer = all.findIndex(([hasFailed = 0]) => hasFailed > 0)
  if (peer < 0) return all.map(numbers => writtenFrom(numbers.subarray(1)))
  if (rank === 0) await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
  if (failed) {
    if (outcome.error instanceof WorkerFailure) throw outcome.error
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

const SHA256_WORDS = 8

/**
 * A file as numbers that a sum over ranks keeps exactly: bytes, then the SHA-256 as 32-bit words.
 */
function numbersOf(written: Written = { bytes: 0, sha256: '0'.repeat(8 * SHA256_WORDS) }): number[] {
  const words = written.sha256.match(/.{8}/g) ?? []
  return [written.bytes, ...words.map(word => Number.parseInt(word, 16))]
}

function writtenFrom([bytes = 0, ...words]: Float64Array): Written {
  return { bytes, sha256: words.map(word => word.toString(16).padStart(8, '0')).join('') }
}

const filesOf = (written: readonly Written[], model: ModelConfig): CheckpointIndex['files'] =>
  written.slice(0, writersOf(model)).map((file, rank) => ({ name: shardName(rank, model), ...file }))
