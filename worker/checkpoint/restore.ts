// Reading checkpoints. All ranks load the same step or none: rank 0 proposes a step, every rank
// verifies the files that it would read, and if any rank finds an unusable file, all ranks go on to
// the next older checkpoint.

import { open, rename, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { errnoCode, errnoText, WorkerFailure } from '../failure.ts'
import { everywhere, together } from '../ranks/together.ts'
import { type CheckpointIndex, folderOf, INDEX, listSteps, modelDifference, readIndex } from './contents.ts'
import { type CheckpointPlace, type Held, removeLeftovers } from './place.ts'
import { type Header, hashFile, readFloats, readHeader } from './safetensors.ts'

export interface Restored {
  index: CheckpointIndex
  folder: string
}

interface Problem {
  folder: string
  text: string
}

/** The result of one rank's look at one checkpoint. A later field takes precedence. */
interface Finding {
  index?: CheckpointIndex
  /** The checkpoint is damaged or incomplete, so an older one is tried. */
  problem?: string
  /** The checkpoint is of another model, so the job fails for good. */
  difference?: string
  /** This rank cannot read a checkpoint that may be usable. Skipping it would lose work. */
  unreadable?: string
}

/**
 * Fills `held` from the newest checkpoint that every rank can read; collective. Returns undefined
 * if there is none; `held` may then hold anything. Throws `badConfig` if the newest readable
 * checkpoint is of another model, and `checkpoint` if a rank cannot read one that may be usable.
 */
export async function restoreCheckpoint(
  place: CheckpointPlace,
  held: readonly Held[],
  warn: (message: string) => void,
): Promise<Restored | undefined> {
  const steps = place.rank === 0 ? await candidates(place) : []
  const problems: Problem[] = []
  for (let i = 0; ; i++) {
    // Only rank 0 knows the steps; the others add 0.
    const { step } = await together(place.reduce, { step: place.rank === 0 ? (steps[i] ?? -1) : 0 })
    if (step < 0) return conclude(place, problems, { warn, restored: undefined })
    const folder = join(place.directory, folderOf(step))
    const outcome = await everywhere(place.reduce, () => examine(place, folder, held))
    const found: Finding = 'value' in outcome ? outcome.value : { unreadable: errnoText(outcome.error) }
    const verdict = await together(place.reduce, {
      problem: found.problem !== undefined,
      difference: found.difference !== undefined,
      unreadable: found.unreadable !== undefined,
    })
    if (verdict.difference) {
      throw new WorkerFailure(
        'badConfig',
        `The checkpoint ${folder} was made with ${found.difference ?? 'another model'}: use another output folder or volume, or the model of the checkpoint.`,
      )
    }
    if (verdict.unreadable) {
      const reason = found.unreadable ?? 'the log of another rank says why'
      throw new WorkerFailure('checkpoint', `The checkpoint ${folder} cannot be read: ${reason}.`)
    }
    if (!verdict.problem && found.index)
      return conclude(place, problems, { warn, restored: { index: found.index, folder } })
    problems.push({ folder, text: found.problem ?? 'another rank cannot read it; its log says why' })
  }
}

async function candidates(place: CheckpointPlace): Promise<number[]> {
  await removeLeftovers(place.directory)
  return listSteps(place.directory).catch((error: unknown) => {
    throw new WorkerFailure(
      'checkpoint',
      `The checkpoint folder ${place.directory} cannot be listed: ${errnoText(error)}.`,
    )
  })
}

async function examine(place: CheckpointPlace, folder: string, held: readonly Held[]): Promise<Finding> {
  let file = INDEX
  try {
    await stat(folder)
  } catch (error) {
    return { unreadable: `${errnoText(error)}; rank 0 sees it, so every worker must mount the same volume` }
  }
  try {
    const index = await readIndex(folder)
    if (folderOf(index.step) !== basename(folder)) throw new Error(`it is of step ${index.step}`)
    const difference = modelDifference(index.model, place.model)
    if (difference !== undefined) return { difference }
    await readHeld(folder, { index, held }, name => {
      file = name
    })
    return { index }
  } catch (error) {
    const text = `${file}: ${errnoText(error).replaceAll(/\s+/g, ' ').slice(0, 300)}`
    const code = errnoCode(error)
    return code === undefined || code === 'ENOENT' ? { problem: text } : { unreadable: text }
  }
}

/**
 * Verifies every file that has a part of `held` and copies that part. Calls `opening` with the name
 * of each file before reading it, so that the caller can tell which file an error is about.
 */
export async function readHeld(
  folder: string,
  { index, held }: { index: CheckpointIndex; held: readonly Held[] },
  opening: (file: string) => void,
): Promise<void> {
  for (const [number, { name, bytes, sha256 }] of index.files.entries()) {
    const needed = held.filter(item => overlaps(index, number, item).length > 0)
    if (needed.length === 0) continue
    opening(name)
    const file = await open(join(folder, name), 'r')
    try {
      const found = await hashFile(file)
      if (found.bytes !== bytes) throw new Error(`it has ${found.bytes} bytes instead of ${bytes}`)
      if (found.sha256 !== sha256) throw new Error('its checksum differs: the file was changed or damaged')
      const header = await readHeader(file)
      for (const item of needed) await readSlices(file, header, { item, parts: overlaps(index, number, item) })
    } finally {
      await file.close()
    }
  }
  for (const { name, slice } of held) {
    const covered = (index.tensors[name] ?? []).reduce((sum, part) => sum + overlap(part, slice), 0)
    if (covered !== slice.count) throw new Error(`tensor ${name} is not complete in it`)
  }
}

interface Range {
  start: number
  count: number
}

const overlap = (a: Range, b: Range) =>
  Math.max(0, Math.min(a.start + a.count, b.start + b.count) - Math.max(a.start, b.start))

function overlaps(index: CheckpointIndex, file: number, { name, slice }: Held): Range[] {
  return (index.tensors[name] ?? []).filter(part => part.file === file && overlap(part, slice) > 0)
}

async function readSlices(
  file: Parameters<typeof readFloats>[0],
  header: Header,
  { item, parts }: { item: Held; parts: readonly Range[] },
): Promise<void> {
  const entry = header.entries.get(item.name)
  if (entry === undefined) throw new Error(`tensor ${item.name} is not in it`)
  for (const part of parts) {
    const values = (entry.end - entry.start) / 4
    if (values !== part.count)
      throw new Error(`tensor ${item.name} has ${values} values in it instead of ${part.count}`)
    const from = Math.max(part.start, item.slice.start)
    const count = overlap(part, item.slice)
    const target = item.data.subarray(from - item.slice.start, from - item.slice.start + count)
    await readFloats(file, entry.start + 4 * (from - part.start), target)
  }
}

/**
 * Warns of the checkpoints that were skipped. Rank 0 renames them, so that they do not count among
 * the ones that are kept.
 */
async function conclude(
  place: CheckpointPlace,
  problems: readonly Problem[],
  { warn, restored }: { warn: (message: string) => void; restored: Restored | undefined },
): Promise<Restored | undefined> {
  const instead =
    restored === undefined ? 'there is no older one, so training starts over' : `${restored.folder} is used instead`
  for (const { folder, text } of problems) {
    warn(`checkpoint ${folder} is not usable (${text}); ${instead}`)
    if (place.rank === 0)
      await rename(folder, folder.replace(/step-(\d+)$/, `unusable-$1-${Date.now()}`)).catch(() => undefined)
  }
  return restored
}
