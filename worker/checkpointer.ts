// A rank's checkpoints over the life of a run: what to start from, when one is begun, when it has become whole.

import type { Logger } from 'pino'
import { type CheckpointPlace, type Held, type Saved, Saving } from './checkpoint.ts'
import { restoreCheckpoint } from './checkpoint-restore.ts'
import { median, type RunRecord } from './record.ts'

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

  /** This rank is still writing one. */
  get pending(): boolean {
    return this.#saving?.pending === true
  }

  /** Begins to save what was reached; collective. */
  async start(step: number): Promise<void> {
    const { place, held, record } = this.#options
    await this.finish()
    if (!place || record.checkpointStep === step) return
    this.#saving = await Saving.start(place, step, { held, losses: record.losses })
  }

  /** Makes the checkpoint that was begun, if any, whole; collective. */
  async finish(): Promise<void> {
    const { place, record, log } = this.#options
    const saved = await this.#saving?.finish()
    this.#saving = undefined
    if (!saved) return
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
    if (this.#saved.length === 0) return undefined
    const { writing, quiet } = this.#steps
    const slowdown = writing.length > 0 && quiet.length > 0 ? median(writing) / median(quiet) - 1 : undefined
    return {
      snapshotMilliseconds: median(this.#saved.map(each => each.snapshotMilliseconds)),
      writeMilliseconds: median(this.#saved.map(each => each.writeMilliseconds)),
      stalledMilliseconds: median(this.#saved.map(each => each.stalledMilliseconds)),
      /** Of steps beside a write against the others. */
      stepSlowdownPercent: slowdown && 100 * slowdown,
    }
  }
}

function keep<T>(list: T[], value: T): void {
  list.push(value)
  if (list.length > WINDOW) list.shift()
}
