// Whole optimizer steps of two ranks of one thread each, gradient sums and AdamW included, with and
// without a limit of their links.

import { median } from '../../worker/median.ts'
import { type Choice, choose, describe, type Wish } from '../../worker/schedule/schedule.ts'
import { type Figure, medianOf } from '../turns/figures.ts'
import type { Watch } from '../turns/watch.ts'
import { type Loaded, Model } from '../world/model.ts'
import { measurePeak, openPeak, workOf } from '../world/peak.ts'
import { profile } from '../world/profile.ts'
import { World } from '../world/world.ts'
import { configOf, type Kind, type Shape } from './shape.ts'

const RANKS = 2

export interface Row {
  hidden: number
  /** Null if the links have no limit. */
  linkMbit: number | null
  kind: Kind
  strategy: string
  schedule: string
  ranks: number
  tokensPerSecond: number
  percentOfGemmPeak: number
  /** Tokens per second over those of Top2 in sequence on the same links, in the same rounds. */
  ratioToTop2: number
}

const ROWS: readonly { kind: Kind; wish: Wish }[] = [
  { kind: 'Top2', wish: { strategy: 'Sequential' } },
  { kind: 'Top2', wish: { strategy: 'Auto' } },
  { kind: 'ScMoE', wish: { strategy: 'Sequential' } },
  { kind: 'ScMoE', wish: { strategy: 'Auto' } },
]

interface Entry {
  kind: Kind
  strategy: string
  choice: Choice
  model: Model
  loaded: Loaded
}

/** The milliseconds of each row in one round, and the rate of the matrix product beside them. */
interface Round {
  peak: number
  times: number[]
}

export interface Steps {
  rows: Row[]
  figures: Figure[]
}

/** The rows of a shape without a limit and with its limit. Rows take turns; medians over rounds. */
export async function stepsOfRanks(shape: Shape, rounds: number, watch: Watch): Promise<Steps> {
  using world = await World.start(RANKS)
  await openPeak(world)
  const models = new Map<Kind, Model>()
  for (const kind of ['Top2', 'ScMoE'] as const)
    models.set(kind, (await Model.open(kind, configOf(shape, kind, RANKS), world)).model)
  const all: Steps = { rows: [], figures: [] }
  for (const linkMbit of [null, shape.linkMbit]) {
    const rate = linkMbit === null ? undefined : linkMbit * 1e6
    world.limit(rate)
    const entries: Entry[] = []
    for (const { kind, wish } of ROWS) {
      const model = models.get(kind)
      if (model) entries.push(await enter(model, kind, wish, rate))
    }
    const taken: Round[] = []
    for (let round = 0; round < rounds; round++) taken.push(await watch.turn(() => roundOf(world, entries)))
    const { rows, figures } = stepsFrom(shape, linkMbit, entries, taken)
    all.rows.push(...rows)
    all.figures.push(...figures)
  }
  return all
}

async function roundOf(world: World, entries: readonly Entry[]): Promise<Round> {
  const peak = await measurePeak(world)
  const times: number[] = []
  for (const { model, loaded } of entries) times.push((await model.run(loaded, ['train'])).milliseconds)
  return { peak, times }
}

function stepsFrom(shape: Shape, linkMbit: number | null, entries: readonly Entry[], rounds: readonly Round[]): Steps {
  const peak = Math.max(...rounds.map(round => round.peak))
  const timesOf = (index: number) => rounds.map(({ times }) => times[index] ?? Number.NaN)
  // The first entry is Top2 in sequence.
  const ratiosOf = (index: number) =>
    timesOf(index).map((milliseconds, round) => (timesOf(0)[round] ?? Number.NaN) / milliseconds)
  const rows = entries.map((entry, index) =>
    rowOf({ shape, linkMbit, entry, peak }, timesOf(index), median(ratiosOf(index))),
  )
  const link = linkMbit === null ? 'links without limit' : `links of ${linkMbit} Mbit/s`
  const figures = entries.slice(1).map(({ kind, strategy }, index) =>
    medianOf({
      name: `d=${shape.hidden}, ${link}: ${kind} ${strategy} over Top2 in sequence`,
      unit: 'x',
      samples: ratiosOf(index + 1),
    }),
  )
  return { rows, figures }
}

async function enter(model: Model, kind: Kind, wish: Wish, rate: number | undefined): Promise<Entry> {
  const emitted = model.emitted('train')
  const measured = await profile(model, 'train', rate, loaded => model.run(loaded, ['train']))
  const { choice } = choose(emitted, measured, wish)
  const loaded = await model.load(describe(choice), choice, { measured: 'train', profile: measured })
  await model.run(loaded, ['train'])
  return { kind, strategy: wish.strategy, choice, model, loaded }
}

interface Place {
  shape: Shape
  linkMbit: number | null
  entry: Entry
  peak: number
}

function rowOf({ shape, linkMbit, entry, peak }: Place, milliseconds: readonly number[], ratioToTop2: number): Row {
  const { kind, strategy, choice, model } = entry
  const seconds = median(milliseconds) / 1000
  const tokensPerSecond = (model.config.batch * model.config.sequence * RANKS) / seconds
  return {
    hidden: shape.hidden,
    linkMbit,
    kind,
    strategy,
    schedule: describe(choice),
    ranks: RANKS,
    tokensPerSecond,
    percentOfGemmPeak: (100 * workOf([model.emitted('train')])) / seconds / peak,
    ratioToTop2,
  }
}
