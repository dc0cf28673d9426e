// A rank's checkpoints over the life of a run: what to start from, when one is begun, when it has become whole.

import type { Logger } from 'pino'
import { median } from '../median.ts'
import type { RunRecord } from '../report/record.ts'
import type { CheckpointPlace, Held } from './place.ts'
import { restoreCheckpoint } from './restore.ts'
import { type Saved, Saving } from './saving.ts'

export interface Checkpoints {
  /** Absent: none are read or written. */
  place: CheckpointPlace | undefined
  held: readonly Held[]
  record: RunRecord
  log: Logger
}

/** Steps and checkpoints that medians are taken over, the last of each. */
const WINDOW = 500

/** All ranks make the same calls after the same steps. */
export class Checkpointer {
  readonly #options: Checkpoints
  #saving: Saving | undefined
  /** For copies. It is kept between checkpoints: to get it anew takes longer than to copy. */
  #memory: ArrayBuffer | undefined
  readonly #saved: Saved[] = []
  /** Milliseconds of steps, by whether this rank was writing. */
  readonly #steps = { writing: [] as number[], quiet: [] as number[] }

  constructor(options: Checkpoints) {
    this.#options = options
  }

  /** Fills the tensors from the newest usable checkpoint; collective. The steps it had done, 0 without one. */
  async restore(): Promise<number> {
    const { place, held, record, log } = this.#options
    const restored = place && (await restoreCheckpoint(place, held, message => log.warn(message)))
    if (!place || !restored) return 0
    const { step, losses, savedTime, seed, jobUid } = restored.index
    record.resumeAt(step, losses, savedTime)
    log.info({ step, checkpoint: restored.folder }, `continuing after step ${step}`)
    if (jobUid !== place.jobUid)
      log.warn(`that checkpoint is of another job (uid ${jobUid}); to start over, remove ${place.directory}`)
    if (seed !== place.seed) log.warn(`the checkpoint was made with seed ${seed}: the data order changes here`)
    return step
  }

  /** This rank is still at work on one. */
  get pending(): boolean {
    return this.#saving?.pending === true
  }

  /** Begins to save what was reached, or, where training has `ended`, saves it; collective. */
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

  /** Takes the checkpoint that was begun, if any, further; collective, when no rank is at work on it. */
  async advance(): Promise<void> {
    this.#conclude(await this.#saving?.advance())
  }

  /** Makes the checkpoint that was begun, if any, whole; collective. */
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

  /** Takes the time of a step, and whether this rank was writing when it began. */
  stepDone(milliseconds: number, writing: boolean): void {
    keep(this.#steps[writing ? 'writing' : 'quiet'], milliseconds)
  }

  /** What a checkpoint costs this rank, medians; undefined where none was made. */
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
      /** Of a step without a checkpoint beside it. */
      stepMilliseconds: quiet.length > 0 ? median(quiet) : undefined,
      /** Of steps beside a write against the others. */
      stepSlowdownPercent: slowdown && 100 * slowdown,
      stepsBesideOne: writing.length / this.#saved.length,
    }
  }
}

function keep<T>(list: T[], value: T): void {
  list.push(value)
  if (list.length > WINDOW) list.shift()
}
