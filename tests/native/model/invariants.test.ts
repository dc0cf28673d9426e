// Tests of invariants that hold for every model. They read the buffers of every rank's engine after
// a step.

import { afterAll, describe, expect, it } from 'vitest'
import type { ModelConfig } from '../../../worker/model/config.ts'
import { elementsOf, gradientOf, meanOf, tensors } from '../../../worker/model/tensors.ts'
import type { Scheduled } from '../../../worker/program/program.ts'
import { distance, ModelWorld, Processes, wholeModel } from '../../support/model-world.ts'
import { configOf, type Job } from '../../support/program-arbitraries.ts'

const SPREAD = 8
const EXPERTS = 4
const MODULE = 'blocks.1.moe'

const processes = new Processes()
afterAll(() => processes[Symbol.asyncDispose]())

type Case = Partial<Job> & Pick<Job, 'kind'>

/** Four ranks in two expert-parallel groups. */
const jobOf = (shape: Case): Job => {
  const { worldSize = 4, expertParallelSize = 2 } = shape
  const sizes = { units: 1, dim: 16, feedForward: 24, sequence: 8, batch: 2, capacityFactor: '8' }
  return { ...sizes, ...shape, worldSize, expertParallelSize, expertsPerRank: EXPERTS / expertParallelSize }
}

/** A world in which the listed buffers keep their contents after a run. */
async function start(shape: Case, keep: readonly string[] = [], change: Partial<ModelConfig> = {}) {
  const config = { ...configOf(jobOf(shape)), ...change }
  const edit = (scheduled: Scheduled): Scheduled => ({
    ...scheduled,
    buffers: scheduled.buffers.map(buffer =>
      keep.includes(buffer.name) ? { ...buffer, arena: 'persistent' } : buffer,
    ),
  })
  return ModelWorld.start(processes, config, { model: wholeModel(config, SPREAD), edit })
}

type Values = Float32Array | Int32Array

/** The first rows of a matrix as text. Equal texts mean equal bits. */
const rowsOf = (values: Values, rows: number, width: number) =>
  Array.from({ length: rows }, (_, n) => values.subarray(n * width, (n + 1) * width).join(' '))

const sumOf = (list: Iterable<number>) => Array.from(list).reduce((sum, value) => sum + value, 0)
const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i)

/** Buffers of a branch on one rank. Throws if one that is asked for is not among `names`. */
type Branch = (name: string) => Values
async function branches(world: ModelWorld, scope: string, names: readonly string[]): Promise<Branch[]> {
  const found = await Promise.all(names.map(async name => [name, await world.read(`${scope}.${name}`)] as const))
  const buffers = new Map(found)
  return range(0, world.config.worldSize).map(rank => (name: string) => {
    const values = buffers.get(name)?.[rank]
    if (!values) throw new Error(`${name} was not read`)
    return values
  })
}

/**
 * Checks the router on one rank's tokens: every choice is counted, and the first `capacity` choices
 * of each expert are kept, each in a place of its own.
 */
function checkPlaces(branch: Branch, { capacity, experts, batch, sequence, topK }: ModelConfig): void {
  const [expert, counts] = [branch('expert'), branch('counts')]
  expect(sumOf(counts)).toBe(batch * sequence * topK)
  for (let e = 0; e < experts; e++) {
    const slots = [...branch('slot')].filter((_, i) => expert[i] === e)
    expect(counts[e]).toBe(slots.length)
    const kept = slots.filter(place => place >= 0).toSorted((a, b) => a - b)
    expect(kept).toEqual(range(0, Math.min(slots.length, capacity)))
  }
}

/**
 * Checks that a token which lost all its choices gets zero from the experts, and that no other
 * token does.
 */
function checkLost(branch: Branch, { batch, sequence, topK, dim }: ModelConfig): void {
  for (const [n, row] of rowsOf(branch('m'), batch * sequence, dim).entries()) {
    const lost = branch('slot')
      .subarray(n * topK, (n + 1) * topK)
      .every(place => place < 0)
    expect(row.split(' ').every(value => Number(value) === 0)).toBe(lost)
  }
}

/**
 * Checks the expert-parallel group that starts at rank `group`: rows that are sent arrive, and
 * results come back. Returns the number of rows sent.
 */
function checkExchanges(ranks: readonly Branch[], group: number, config: ModelConfig): number {
  const { expertParallelSize, experts, capacity, dim } = config
  const local = experts / expertParallelSize
  const keptBy = (q: number, e: number) => Math.min(capacity, ranks[q]?.('counts')[e] ?? Number.NaN)
  const members = range(group, expertParallelSize)
  const rows = (name: string, count: (rank: number) => number) =>
    members.flatMap(rank => rowsOf(ranks[rank]?.(name) ?? new Float32Array(), count(rank), dim)).toSorted()
  const sent = (rank: number) => sumOf(range(0, experts).map(e => keptBy(rank, e)))
  const arrived = (rank: number) =>
    sumOf(members.flatMap(q => range((rank - group) * local, local).map(e => keptBy(q, e))))
  const encoded = rows('encoded', sent)
  expect(rows('dispatched', arrived)).toEqual(encoded)
  expect(rows('combined', sent)).toEqual(rows('down.y', arrived))
  return encoded.length
}

const ROUTER = ['expert', 'slot', 'counts', 'allCounts']
const ROWS = ['encoded', 'dispatched', 'down.y', 'combined', 'm']
const scoped = (scope: string, names: readonly string[]) => names.map(name => `${scope}.${name}`)

describe('tokens', () => {
  // Seen failing: an exchange, or the router, told of a capacity one less; combine of the experts'
  // input; tokens passed on without experts.
  it.each([
    ['Top1', { kind: 'Top1', capacityFactor: '1' }],
    ['Top2', { kind: 'Top2', capacityFactor: '1' }],
    ['ScMoE top-2', { kind: 'ScMoE', topK: 2, capacityFactor: '0.5' }],
    ['ScMoE without a limit', { kind: 'ScMoE', capacityFactor: 'none' }],
  ] as const)('%s: every row that capacity leaves reaches its expert and comes back, bit by bit', async (_, shape) => {
    const names = [...ROUTER, ...ROWS]
    const world = await start(shape, scoped(MODULE, names))
    await world.step(1, 0)
    const { config } = world
    const { worldSize, expertParallelSize, batch, sequence, topK } = config
    const ranks = await branches(world, MODULE, names)
    for (const branch of ranks) {
      checkPlaces(branch, config)
      checkLost(branch, config)
      expect([...branch('allCounts')]).toEqual(ranks.flatMap(other => [...other('counts')]))
    }
    const groups = range(0, worldSize / expertParallelSize).map(i => i * expertParallelSize)
    const sent = sumOf(groups.map(group => checkExchanges(ranks, group, config)))
    expect(sent < worldSize * batch * sequence * topK).toBe(shape.capacityFactor !== 'none')
  })

  // Seen failing: the second way's router without what the first one chose.
  it.each([1, 2, 3])('DGMoE Pos-%i: no token chooses an expert twice', async position => {
    const scopes = [MODULE, `${MODULE}.current`]
    const keep = scopes.flatMap(scope => scoped(scope, ROUTER))
    const world = await start({ kind: 'DGMoE', position }, keep)
    await world.step(1, 0)
    const [preceding = [], current = []] = await Promise.all(scopes.map(scope => branches(world, scope, ROUTER)))
    const { worldSize, batch, sequence } = world.config
    for (let rank = 0; rank < worldSize; rank++) {
      const taken = preceding[rank]?.('expert')
      const chosen = [...(current[rank]?.('expert') ?? [])]
      expect(taken?.length).toBe(batch * sequence)
      expect(chosen.length).toBe(batch * sequence)
      expect(chosen.filter((expert, n) => expert === taken?.[n])).toEqual([])
    }
  })
})

describe('an optimizer step', () => {
  // Seen failing: the bucket of the experts, or of the gate, not summed; the experts' squares of
  // one rank alone, or of all ranks; another clip for experts. AdamW hides a wrong factor from the
  // parameters of its first step; its first moment shows it.
  it.each(['Dense', 'Top1', 'Top2', 'SharedExpert', 'ScMoE', 'DGMoE'] as const)(
    '%s: leaves replicas equal and multiplies every gradient by one factor on all ranks',
    async kind => {
      const world = await start({ kind }, [], { clip: 0.1 })
      const steps = await world.step(1)
      const { config } = world
      const norm = steps[0]?.norm ?? Number.NaN
      expect(norm).toBeGreaterThan(2 * config.clip)
      let squares = 0
      for (const { name, kind: holders, shape } of tensors(config)) {
        const [gradients, means, values] = [
          await world.read(gradientOf(name)),
          await world.read(meanOf(name)),
          await world.read(name),
        ]
        // Ranks 2 and 3 are the second group. Dense tensors are the same on all ranks; experts are
        // the same on ranks with the same place in their groups.
        const twin = (rank: number) => (holders === 'dense' ? 0 : rank % config.expertParallelSize)
        for (const list of [gradients, means, values])
          for (let rank = 0; rank < config.worldSize; rank++) expect(list[rank], name).toEqual(list[twin(rank)])
        const holding = holders === 'dense' ? [0] : Array.from({ length: config.expertParallelSize }, (_, r) => r)
        expect(holding.reduce((sum, rank) => sum + (gradients[rank]?.length ?? 0), 0)).toBe(elementsOf(shape))
        for (const rank of holding) {
          const own = Array.from(gradients[rank] ?? [])
          squares += sumOf(own.map(g => g * g))
          const expected = own.map(g => (1 - config.beta1) * g * (config.clip / norm))
          expect(distance(expected, means[rank] ?? []), name).toBeLessThan(1e-5)
        }
      }
      expect(distance([norm], [Math.sqrt(squares)])).toBeLessThan(1e-5)
    },
  )

  // Seen failing: one gradient not set to zero before a step.
  it.each([
    ['ScMoE', { kind: 'ScMoE', topK: 2, capacityFactor: '1' }],
    ['DGMoE', { kind: 'DGMoE', llama: true, z: '0.001' }],
  ] as const)('%s: the same steps from the same parameters give the same bits', async (_, shape) => {
    const world = await start(shape)
    const run = async () => ({ steps: await world.steps(3), parameters: await world.parameters() })
    const first = await run()
    await world.reset(wholeModel(world.config, SPREAD))
    expect(await run()).toEqual(first)
  })

  // Seen failing: zero before the last micro-batch; the loss not divided by their number. Balance
  // and z-losses are computed for each micro-batch. Without them, and without drops, micro-batches
  // do not matter to a token.
  it.each(['Dense', 'Top2', 'ScMoE', 'DGMoE'] as const)(
    '%s: the gradient of 2 and 4 micro-batches is that of all their sequences at once',
    async kind => {
      const of = async (microBatches: number) => {
        const shape = { kind, microBatches, batch: 4 / microBatches, capacityFactor: 'none', worldSize: 1 } as const
        const world = await start({ ...shape, expertParallelSize: 1 }, [], { auxCoefficient: 0 })
        const [step] = await world.step(1, 0)
        return { step, gradients: await world.gradients() }
      }
      const whole = await of(1)
      for (const microBatches of [2, 4]) {
        const { step, gradients } = await of(microBatches)
        expect(
          distance([step?.loss ?? 0, step?.norm ?? 0], [whole.step?.loss ?? 1, whole.step?.norm ?? 1]),
        ).toBeLessThan(1e-6)
        for (const [name, gradient] of whole.gradients)
          expect(distance(gradient, gradients.get(name) ?? []), name).toBeLessThan(1e-5)
      }
    },
  )
})
