// Whole optimizer steps of two ranks of one thread each, gradient sums and AdamW included, with and
// without a limit of their links.

import { median } from '../../worker/median.ts'
import { type Choice, choose, describe, type Wish } from '../../worker/schedule/schedule.ts'
import { type Loaded, Model } from '../world/model.ts'
import { measurePeak, openPeak, workOf } from '../world/peak.ts'
import { profile } from '../world/profile.ts'
import { World } from '../world/world.ts'
import { configOf, type Kind, pytorchTokensPerSecond, type Shape } from './shape.ts'

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
  /** Tokens per second over those of PyTorch; null if those are not known. */
  ratioToPytorch: number | null
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
  milliseconds: number[]
}

/** The rows of a shape without a limit and with its limit. Rows take turns; medians over rounds. */
export async function stepsOfRanks(shape: Shape, rounds: number): Promise<Row[]> {
  using world = await World.start(RANKS)
  await openPeak(world)
  const models = new Map<Kind, Model>()
  for (const kind of ['Top2', 'ScMoE'] as const)
    models.set(kind, (await Model.open(kind, configOf(shape, kind, RANKS), world)).model)
  const rows: Row[] = []
  for (const linkMbit of [null, shape.linkMbit]) {
    const rate = linkMbit === null ? undefined : linkMbit * 1e6
    world.limit(rate)
    const entries: Entry[] = []
    for (const { kind, wish } of ROWS) {
      const model = models.get(kind)
      if (model) entries.push(await enter(model, kind, wish, rate))
    }
    const peaks: number[] = []
    for (let round = 0; round < rounds; round++) {
      peaks.push(await measurePeak(world))
      for (const { model, loaded, milliseconds } of entries)
        milliseconds.push((await model.run(loaded, ['train'])).milliseconds)
    }
    rows.push(...entries.map(entry => rowOf(shape, linkMbit, entry, Math.max(...peaks))))
  }
  return rows
}

async function enter(model: Model, kind: Kind, wish: Wish, rate: number | undefined): Promise<Entry> {
  const emitted = model.emitted('train')
  const measured = await profile(model, 'train', rate, loaded => model.run(loaded, ['train']))
  const { choice } = choose(emitted, measured, wish)
  const loaded = await model.load(describe(choice), choice, { measured: 'train', profile: measured })
  await model.run(loaded, ['train'])
  return { kind, strategy: wish.strategy, choice, model, loaded, milliseconds: [] }
}

function rowOf(shape: Shape, linkMbit: number | null, entry: Entry, peak: number): Row {
  const { kind, strategy, choice, model, milliseconds } = entry
  const seconds = median(milliseconds) / 1000
  const tokensPerSecond = (model.config.batch * model.config.sequence * RANKS) / seconds
  const pytorch = pytorchTokensPerSecond(shape.hidden, kind, linkMbit !== null)
  return {
    hidden: shape.hidden,
    linkMbit,
    kind,
    strategy,
    schedule: describe(choice),
    ranks: RANKS,
    tokensPerSecond,
    percentOfGemmPeak: (100 * workOf([model.emitted('train')])) / seconds / peak,
    ratioToPytorch: pytorch === null ? null : tokensPerSecond / pytorch,
  }
}
