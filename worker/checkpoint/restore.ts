// Reading checkpoints. All ranks load the same step or none: rank 0 proposes a step, every rank
// verifies the files that it would read, and if any rank finds an unusable file, all ranks go on to
// the next older checkpoint.

import { rename, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { errnoText, WorkerFailure } from '../failure.ts'
import { type Tensor, tensors } from '../model/tensors.ts'
import { everywhere, gathered, together } from '../ranks/together.ts'
import { agreed } from './agree.ts'
import {
  type CheckpointIndex,
  folderOf,
  INDEX,
  isDamage,
  listSteps,
  markOf,
  modelDifference,
  readIndex,
} from './contents.ts'
import type { Header } from './header.ts'
import { type FileLayout, layoutOf } from './layout.ts'
import type { CheckpointPlace, Held } from './place.ts'
import { hashFile, openFile, readFloats, readHeader } from './safetensors.ts'
import { FORMAT } from './shard.ts'

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
  const steps = await candidates(place)
  const problems: Problem[] = []
  for (let i = 0; ; i++) {
    // Only rank 0 knows the steps; the others add 0.
    const { step } = await together(place.reduce, { step: place.rank === 0 ? (steps[i] ?? -1) : 0 })
    if (step < 0) return conclude(place, problems, { warn, restored: undefined })
    const folder = join(place.directory, folderOf(step))
    const outcome = await everywhere(place.reduce, () => examine(place, folder, held))
    const found: Finding = 'value' in outcome ? outcome.value : { unreadable: errnoText(outcome.error) }
    const peers = await peersWith(place, found)
    if (peers.difference >= 0) {
      throw new WorkerFailure(
        'badConfig',
        `The checkpoint ${folder} was made with ${found.difference ?? 'another model'}: use another output folder or volume, or the model of the checkpoint.`,
      )
    }
    if (found.unreadable !== undefined)
      throw new WorkerFailure('checkpoint', `The checkpoint ${folder} cannot be read: ${found.unreadable}.`)
    if (peers.unreadable >= 0) {
      const peer = peers.unreadable
      throw new WorkerFailure('checkpoint', `Rank ${peer} cannot read the checkpoint ${folder}; its log says why.`, {
        peer,
      })
    }
    if (peers.problem < 0 && found.index)
      return conclude(place, problems, { warn, restored: { index: found.index, folder } })
    problems.push({ folder, text: found.problem ?? `rank ${peers.problem} cannot use it; its log says why` })
  }
}

/** For each field, the first rank that found it; -1 if none did. Collective. */
async function peersWith({ rank, model, reduce }: CheckpointPlace, found: Finding) {
  const own = [found.problem, found.difference, found.unreadable].map(text => Number(text !== undefined))
  const all = await gathered(reduce, { rank, worldSize: model.worldSize }, own)
  const first = (field: number) => all.findIndex(each => (each[field] ?? 0) > 0)
  return { problem: first(0), difference: first(1), unreadable: first(2) }
}

/** The steps of all checkpoints, newest first, on rank 0; none on the others. Collective. */
async function candidates(place: CheckpointPlace): Promise<number[]> {
  const { rank, directory } = place
  const outcome = await everywhere(place.reduce, async () => {
    if (rank > 0) return []
    return listSteps(directory).catch((error: unknown) => {
      throw new WorkerFailure('checkpoint', `The checkpoint folder ${directory} cannot be listed: ${errnoText(error)}.`)
    })
  })
  const blame = (peer: number) =>
    new WorkerFailure('checkpoint', `Rank ${peer} cannot list ${directory}; its log says why.`, { peer })
  return agreed(place, outcome, blame)
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
    if (folderOf(index.step) !== basename(folder)) throw new Error(`its index is of step ${index.step}`)
    const difference = modelDifference(index.model, place.model)
    if (difference !== undefined) return { difference }
    await readHeld(folder, { index, tensors: tensors(place.model), held }, name => {
      file = name
    })
    return { index }
  } catch (error) {
    const text = `${file}: ${errnoText(error).replaceAll(/\s+/g, ' ').slice(0, 300)}`
    return isDamage(error) ? { problem: text } : { unreadable: text }
  }
}

/**
 * Verifies the index and every file that has a part of `held`, and copies that part. `tensors` are
 * all tensors of the checkpoint's model. Calls `opening` with the name of each file before reading
 * it, so that the caller can tell which file an error is about.
 */
export async function readHeld(
  folder: string,
  { index, tensors: list, held }: { index: CheckpointIndex; tensors: readonly Tensor[]; held: readonly Held[] },
  opening: (file: string) => void,
): Promise<void> {
  const read = new Map<string, number>()
  for (const layout of layoutOf(index, list)) {
    const needed = held.filter(({ name, slice }) => overlap(layout.parts.get(name), slice) > 0)
    if (needed.length === 0) continue
    opening(layout.name)
    const file = await openFile(join(folder, layout.name))
    try {
      const { size } = await file.stat()
      if (size !== layout.bytes) throw new Error(`it has ${size} bytes instead of ${layout.bytes}`)
      const { sha256 } = await hashFile(file)
      if (sha256 !== layout.sha256) throw new Error('its checksum differs: the file was changed or damaged')
      const header = await readHeader(file)
      demandContents(header, layout, index)
      for (const item of needed) {
        const count = await readPart(file, { header, layout, item })
        read.set(item.name, (read.get(item.name) ?? 0) + count)
      }
    } finally {
      await file.close()
    }
  }
  for (const { name, slice } of held)
    if (read.get(name) !== slice.count)
      throw new Error(`${read.get(name) ?? 0} of the ${slice.count} values of ${name} are in its files`)
}

interface Range {
  start: number
  count: number
}

const overlap = (a: Range | undefined, b: Range) =>
  a === undefined ? 0 : Math.max(0, Math.min(a.start + a.count, b.start + b.count) - Math.max(a.start, b.start))

/** Throws unless a file is of this checkpoint, and holds what the index says, in these shapes. */
function demandContents({ entries, metadata }: Header, { parts, experts }: FileLayout, index: CheckpointIndex): void {
  const { format, step, experts: own, checkpoint } = metadata
  if (format !== FORMAT) throw new Error(`its format is ${format ?? 'not given'} instead of ${FORMAT}`)
  if (step !== String(index.step)) throw new Error(`it is of step ${step} instead of ${index.step}`)
  if (own !== experts && experts !== undefined) throw new Error(`it has experts ${own} instead of ${experts}`)
  // Files of an index without an attempt have no mark.
  if ((index.attempt !== undefined || checkpoint !== undefined) && checkpoint !== markOf(index))
    throw new Error('it belongs to another checkpoint: its mark differs from that of the index')
  for (const [name, { shape }] of parts) {
    const entry = entries.get(name)
    if (entry === undefined) throw new Error(`tensor ${name} is not in it`)
    if (entry.shape.length !== shape.length || entry.shape.some((size, axis) => size !== shape[axis]))
      throw new Error(`tensor ${name} has the shape [${entry.shape.join(', ')}] instead of [${shape.join(', ')}]`)
  }
  const other = [...entries.keys()].find(name => !parts.has(name))
  if (other !== undefined) throw new Error(`tensor ${JSON.stringify(other)} is in it, of which the index knows nothing`)
}

/** Copies what a file has of a tensor, and returns the number of values. */
async function readPart(
  file: Parameters<typeof readFloats>[0],
  { header, layout, item: { name, slice, data } }: { header: Header; layout: FileLayout; item: Held },
): Promise<number> {
  const entry = header.entries.get(name)
  const part = layout.parts.get(name)
  if (entry === undefined || part === undefined) return 0
  const from = Math.max(part.start, slice.start)
  const count = overlap(part, slice)
  const target = data.subarray(from - slice.start, from - slice.start + count)
  await readFloats(file, entry.start + 4 * (from - part.start), target)
  return target.length
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
    restored === undefined
      ? 'there is no older checkpoint, so training starts over'
      : `${restored.folder} is used instead`
  for (const { folder, text } of problems) {
    warn(`checkpoint ${folder} is not usable (${text}); ${instead}`)
    if (place.rank === 0)
      await rename(folder, folder.replace(/step-(\d+)$/, `unusable-$1-${Date.now()}`)).catch(() => undefined)
  }
  return restored
}
