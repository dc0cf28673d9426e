// Measures all rows of one phase at one link rate, round by round, so that other load on the
// machine affects all of them equally.

import { BUFFER } from '../../worker/emit/emit.ts'
import {
  type Choice,
  Trial as Contest,
  choose,
  contenders,
  describe,
  makespan,
  type Profile,
  type Wish,
} from '../../worker/schedule/schedule.ts'
import { isNear, nearest, nextRate, type Trial } from '../turns/calibrate.ts'
import type { Watch } from '../turns/watch.ts'
import { copiesOf, type Loaded, type Model, type Ran, spansOf, stepOf } from '../world/model.ts'
import { guessOf, profile } from '../world/profile.ts'
import type { World } from '../world/world.ts'
import { type Line, meanOf, measured, rankFigures, type Sample } from './figures.ts'
import { BASELINE, flopBound, type ModelName, type Phase, PROPOSED, type Row, rowsOf, work } from './shape.ts'

/**
 * A model under its sequential schedule and without transfers, with the results it must compute.
 */
export interface Subject {
  model: Model
  sequential: Loaded
  free: Loaded
  /** Results by the programs that ran; no schedule may change a bit of them. */
  expected: Map<string, number[]>
}
export type Subjects = ReadonlyMap<ModelName, Subject>

export interface Setting {
  world: World
  subjects: Subjects
  rounds: number
  /** The most trials of a calibration. */
  trials: number
  watch: Watch
  /** Takes a line about the progress. */
  log: (text: string) => void
}

/** The programs of a measurement, and the program whose times predict all, as in a worker. */
const PROGRAMS = {
  train: { measured: 'train', main: 'accumulate', sampled: (subject: Subject) => stepOf(subject.model.config) },
  forward: { measured: 'evaluate', main: 'evaluate', sampled: () => Array.from({ length: 4 }, () => 'evaluate') },
} as const
/** A short step in which accumulated gradients still show in loss and norm. */
const SHORT = { train: ['accumulate.first', 'train'], forward: ['evaluate'] } as const

export function subjectOf(subjects: Subjects, name: ModelName): Subject {
  const subject = subjects.get(name)
  if (!subject) throw new Error(`${name} was not opened`)
  return subject
}

/** Throws if ranks disagree, or if the result differs from the known one of these programs. */
export async function check(subject: Subject, loaded: Loaded, programs: readonly string[]): Promise<void> {
  const buffers = programs.includes('train') ? [BUFFER.loss, BUFFER.norm] : [BUFFER.loss]
  const { model, expected } = subject
  const values = await Promise.all(buffers.map(buffer => model.scalars(buffer)))
  const here = `${model.name}, ${loaded.prefix}`
  for (const ranks of values)
    if (!ranks.every(value => Number.isFinite(value) && value === ranks[0]))
      throw new Error(`${here}: loss or norm is not finite and equal on all ranks: ${ranks.join(', ')}`)
  const own = values.map(([value = Number.NaN]) => value)
  const key = programs.join(' ')
  const known = expected.get(key)
  if (known === undefined) expected.set(key, own)
  else if (!own.every((value, i) => Object.is(value, known[i])))
    throw new Error(`${here}: computed ${own.join(', ')}, under another schedule ${known.join(', ')}`)
}

async function run(subject: Subject, loaded: Loaded, programs: readonly string[]): Promise<Ran> {
  const ran = await subject.model.run(loaded, programs)
  await check(subject, loaded, programs)
  return ran
}

/** Records the results of the sequential schedule, which every other schedule must compute. */
export async function learn(subject: Subject): Promise<void> {
  for (const phase of ['train', 'forward'] as const) await run(subject, subject.sequential, SHORT[phase])
}

function sampleOf(loaded: Loaded, programs: readonly string[], { milliseconds, results }: Ran): Sample {
  return { milliseconds, ...meanOf(results.map(result => rankFigures(spansOf(loaded, programs, result)))) }
}

/** Limits the links so that all-to-alls take `share` of the time of Top2's sequential MoE layer. */
export async function calibrate(setting: Setting, phase: Phase, share: number): Promise<Trial> {
  const { world, subjects, watch, log } = setting
  const subject = subjectOf(subjects, BASELINE.model)
  // Micro-batches, because the sums of gradients in a whole step are no part of the MoE layer.
  const programs = Array.from({ length: 3 }, () => PROGRAMS[phase].main)
  const trial = async (rate: number): Promise<Trial> => {
    world.limit(rate)
    await subject.model.run(subject.sequential, programs.slice(0, 1))
    const { results } = await watch.turn(() => subject.model.run(subject.sequential, programs))
    const shares = results.map(result => rankFigures(spansOf(subject.sequential, programs, result)).commShareOfMoe)
    return { rate, share: shares.reduce((sum, each) => sum + each, 0) / shares.length }
  }
  const trials = [await trial(1e9)]
  while (trials.length < setting.trials && !trials.some(each => isNear(each, share)))
    trials.push(await trial(Math.max(1e6, nextRate(trials, share))))
  const best = nearest(trials, share) ?? { rate: 1e9, share: Number.NaN }
  world.limit(best.rate)
  log(
    `${phase}: ${(best.rate / 1e6).toFixed(0)} Mbit/s make all-to-alls ${(100 * best.share).toFixed(1)} % of the MoE layer`,
  )
  return best
}

/** Rows with one schedule, which is loaded and measured once. */
interface Entry {
  rows: Row[]
  subject: Subject
  choice: Choice
  loaded: Loaded
  /** Milliseconds. */
  predicted: number
  samples: Sample[]
}

async function enter(row: Row, subject: Subject, phase: Phase, measuredAs: Profile): Promise<Entry> {
  const { model } = subject
  const known = { measured: PROGRAMS[phase].measured, profile: measuredAs }
  const choice = 'choice' in row.ask ? row.ask.choice : await fastest(row.ask.wish, subject, phase, known)
  const loaded = await model.load(describe(choice), choice, known)
  const predicted = PROGRAMS[phase].sampled(subject).reduce((sum, name) => {
    const [emitted, scheduled] = [model.emitted(name), loaded.scheduled.get(name)]
    return scheduled ? sum + makespan(scheduled, emitted, model.profileOf(emitted, known)).total / 1000 : sum
  }, 0)
  return { rows: [row], subject, choice, loaded, predicted, samples: [] }
}

/** Chooses like a worker: by prediction, and by a few runs of each if predictions are close. */
async function fastest(
  wish: Wish,
  subject: Subject,
  phase: Phase,
  known: { measured: string; profile: Profile },
): Promise<Choice> {
  const { model } = subject
  const main = model.emitted(PROGRAMS[phase].main)
  const close = contenders(choose(main, model.profileOf(main, known), wish).candidates)
  const programs = Array.from({ length: 3 }, () => main.name)
  const contest = new Contest(close.length)
  for (const { choice } of close.length > 1 ? close : []) {
    const { current } = contest
    const loaded = await model.load(describe(choice), choice, known)
    while (contest.current === current) contest.observe((await model.run(loaded, programs)).milliseconds)
  }
  const best = close[contest.best]
  if (!best) throw new Error(`${model.name} has no schedule`)
  return best.choice
}

/** Whether two schedules are the same in this phase; a forward pass has no backward slot. */
function isSame(a: Choice, b: Choice, phase: Phase): boolean {
  const seen = (choice: Choice) =>
    describe(phase === 'forward' && choice.strategy === 'Shortcut' ? { ...choice, backwardSlot: 1 } : choice)
  return seen(a) === seen(b)
}

async function enterAll(setting: Setting, phase: Phase, rate: number): Promise<Entry[]> {
  const profiles = new Map<ModelName, Profile>()
  for (const [name, subject] of setting.subjects) {
    const warmUp = (loaded: Loaded) => run(subject, loaded, SHORT[phase])
    profiles.set(name, await profile(subject.model, PROGRAMS[phase].measured, rate, warmUp))
  }
  const proposed = subjectOf(setting.subjects, PROPOSED).model.emitted('evaluate')
  const slots = choose(proposed, guessOf(proposed, rate), { strategy: 'Shortcut', chunks: 1 }).candidates.flatMap(
    ({ choice }) => (choice.strategy === 'Shortcut' ? [choice.forwardSlot] : []),
  )
  const entries: Entry[] = []
  for (const row of rowsOf(slots)) {
    const measuredAs = profiles.get(row.model)
    if (!measuredAs) continue
    const entry = await enter(row, subjectOf(setting.subjects, row.model), phase, measuredAs)
    const same = entries.find(other => other.subject === entry.subject && isSame(other.choice, entry.choice, phase))
    if (same) same.rows.push(row)
    else entries.push(entry)
  }
  return entries
}

/** Milliseconds of the same compute without transfers and without the copies in their place. */
async function freeTime(subject: Subject, programs: readonly string[]): Promise<number> {
  const { results } = await subject.model.run(subject.free, programs)
  return Math.max(
    ...results.map(result => {
      const copies = spansOf(subject.free, programs, result).flatMap(({ scheduled, spans }) =>
        copiesOf(scheduled).map(op => (spans.end[op] ?? 0) - (spans.start[op] ?? 0)),
      )
      return result.milliseconds - copies.reduce((sum, time) => sum + time, 0) / 1000
    }),
  )
}

export async function measurePhase(
  setting: Setting,
  phase: Phase,
  regime: number,
): Promise<{ trial: Trial; lines: Line[] }> {
  const { watch } = setting
  const trial = await calibrate(setting, phase, regime / 100)
  const entries = await enterAll(setting, phase, trial.rate)
  for (const { subject, loaded } of entries) await run(subject, loaded, SHORT[phase])
  const bounds = new Map([...setting.subjects.values()].map(subject => [subject, [] as number[]]))
  for (let round = 0; round < setting.rounds; round++) {
    for (const { subject, loaded, samples } of entries) {
      const programs = PROGRAMS[phase].sampled(subject)
      samples.push(sampleOf(loaded, programs, await watch.turn(() => run(subject, loaded, programs))))
    }
    for (const [subject, times] of bounds)
      times.push(await watch.turn(() => freeTime(subject, PROGRAMS[phase].sampled(subject))))
    setting.log(`${phase}: round ${round + 1} of ${setting.rounds}`)
  }
  return { trial, lines: linesOf({ regime, phase, trial, entries, bounds }) }
}

interface Findings {
  regime: number
  phase: Phase
  trial: Trial
  entries: readonly Entry[]
  bounds: ReadonlyMap<Subject, number[]>
}

function linesOf({ regime, phase, trial, entries, bounds }: Findings): Line[] {
  const baseline = entries.find(({ rows }) => rows.includes(BASELINE))
  if (!baseline) throw new Error('the baseline was not measured')
  const top2 = baseline.samples.map(({ milliseconds }) => milliseconds)
  const workOf = ({ subject }: Entry) =>
    work(PROGRAMS[phase].sampled(subject).map(program => subject.model.emitted(program)))
  return entries.flatMap(entry => {
    const { subject, choice, predicted, samples, rows } = entry
    const { config } = subject.model
    const bound = bounds.get(subject) ?? []
    const { milliseconds, ...figures } = measured(samples, top2, bound)
    const programs = PROGRAMS[phase].sampled(subject).length
    const tokens = config.batch * config.sequence * config.worldSize * programs
    const { ratioToTop2: boundToTop2 } = measured(
      samples.map((sample, round) => ({ ...sample, milliseconds: bound[round] ?? Number.NaN })),
      top2,
      bound,
    )
    return rows.map(
      ({ model, strategy, slot, chunks }): Line => ({
        regime,
        phase,
        kind: config.kind,
        position: config.kind === 'ScMoE' ? config.shortcutPosition : null,
        strategy,
        slot,
        chunks,
        tokensPerSecond: (tokens / milliseconds) * 1000,
        ...figures,
        predictedOverMeasured: predicted / milliseconds,
        flopBound: flopBound(workOf(baseline), workOf(entry), trial.share),
        boundToTop2,
        model,
        schedule: describe(choice),
      }),
    )
  })
}
