// A rank's checkpoints over the life of a run: the one it starts from, and the ones it writes.

import type { Logger } from 'pino'
import { median } from '../median.ts'
import type { RunRecord } from '../report/record.ts'
import type { Trained } from './contents.ts'
import type { CheckpointPlace, Held } from './place.ts'
import { restoreCheckpoint } from './restore.ts'
import { type Saved, Saving } from './saving.ts'

export interface Checkpoints {
  /** Undefined if no checkpoints are read or written. */
  place: CheckpointPlace | undefined
  held: readonly Held[]
  record: RunRecord
  log: Logger
}

/** Medians are taken over this many of the last steps and of the last checkpoints. */
const WINDOW = 500

/** All ranks make the same calls after the same steps. */
export class Checkpointer {
  readonly #options: Checkpoints
  #saving: Saving | undefined
  #trained: Trained | undefined
  /**
   * Memory for copies, kept between checkpoints because allocating it takes longer than copying.
   */
  #memory: ArrayBuffer | undefined
  readonly #saved: Saved[] = []
  /** Milliseconds of steps, by whether this rank was writing a checkpoint. */
  readonly #steps = { writing: [] as number[], quiet: [] as number[] }

  constructor(options: Checkpoints) {
    this.#options = options
  }

  /**
   * Fills the tensors from the newest usable checkpoint and returns the steps it had done; 0 if
   * there is none. Collective.
   */
  async restore(): Promise<number> {
    const { place, held, record, log } = this.#options
    const restored = place && (await restoreCheckpoint(place, held, message => log.warn(message)))
    if (!place || !restored) return 0
    const { step, losses, savedTime, seed, jobUid, trained } = restored.index
    this.#trained = trained
    record.resumeAt(step, losses, savedTime)
    log.info({ step, checkpoint: restored.folder }, `continuing after step ${step}`)
    if (jobUid !== place.jobUid)
      log.warn(`the checkpoint was written by another job (uid ${jobUid}); to start over, remove ${place.directory}`)
    if (seed !== place.seed)
      log.warn(`the checkpoint was written with seed ${seed}, not ${place.seed}: the order of the data changes here`)
    return step
  }

  /** The words of the restored checkpoint about its training; undefined if it has none. */
  get trained(): Trained | undefined {
    return this.#trained
  }

  /** Whether this rank is still at work on a checkpoint. */
  get pending(): boolean {
    return this.#saving?.pending === true
  }

  /** Begins a checkpoint, and finishes it at once if training has `ended`; collective. */
  async start(step: number, ended: boolean): Promise<void> {
    const { place, held, record } = this.#options
    await this.finish()
    if (!place || record.checkpointStep === step) return
    this.#saving = await Saving.start(place, step, {
      held,
      losses: record.losses,
      memory: this.#memory,
      last: ended,
    })
    this.#memory = undefined
  }

  /** Advances the checkpoint that was begun, if any; collective, when no rank is at work on it. */
  async advance(): Promise<void> {
    this.#conclude(await this.#saving?.advance())
  }

  /** Finishes the checkpoint that was begun, if any; collective. */
  async finish(): Promise<void> {
    this.#conclude(await this.#saving?.finish())
  }

  #conclude(saved: Saved | undefined): void {
    const { place, record, log } = this.#options
    if (!saved) return
    this.#memory = this.#saving?.memory
    this.#saving = undefined
    keep(this.#saved, saved)
    record.checkpointed(saved.step)
    if (place?.rank === 0) log.info(saved, 'checkpoint written')
  }

  /** Takes the time of a step, and whether this rank was writing a checkpoint when it began. */
  stepDone(milliseconds: number, writing: boolean): void {
    keep(this.#steps[writing ? 'writing' : 'quiet'], milliseconds)
  }

  /** The cost of a checkpoint on this rank, as medians; undefined if none was written. */
  get cost() {
    const last = this.#saved.at(-1)
    if (last === undefined) return undefined
    const { writing, quiet } = this.#steps
    const slowdown = writing.length > 0 && quiet.length > 0 ? median(writing) / median(quiet) - 1 : undefined
    return {
      bytes: last.bytes,
      snapshotMilliseconds: median(this.#saved.map(each => each.snapshotMilliseconds)),
      writeMilliseconds: median(this.#saved.map(each => each.writeMilliseconds)),
      stalledMilliseconds: median(this.#saved.map(each => each.stalledMilliseconds)),
      /** Time of a step while no checkpoint is being written. */
      stepMilliseconds: quiet.length > 0 ? median(quiet) : undefined,
      /** How much longer steps take while a checkpoint is being written. */
      stepSlowdownPercent: slowdown && 100 * slowdown,
      stepsBesideOne: writing.length / this.#saved.length,
    }
  }
}

function keep<T>(list: T[], value: T): void {
  list.push(value)
  if (list.length > WINDOW) list.shift()
}
