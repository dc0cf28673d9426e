import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { API_VERSION, KIND } from '../../../crds/contract.ts'
import { COMPILED } from '../../support/compiled.ts'
import { temporaryFolder, tinySpec } from '../../support/worker-gang.ts'

const SCMOE = join(import.meta.dirname, '../../../cli/scmoe.ts')

const at = { pid: z.int().min(0), ts: z.number().min(0), tid: z.literal([1, 2]) }
const Slice = z.object({ ph: z.literal('X'), name: z.string(), cat: z.string(), dur: z.number().min(0), ...at })
const Arrow = z.object({ ph: z.literal(['s', 'f']), bp: z.literal('e').optional(), id: z.string(), ...at })
const Name = z.object({ ph: z.literal('M'), name: z.string(), pid: z.int() })
const Trace = z.object({ traceEvents: z.array(z.union([Slice, Arrow, Name])) })
type Slice = z.infer<typeof Slice>
type Arrow = z.infer<typeof Arrow>

interface Flow {
  from: Slice
  to: Slice
}

async function traceOf(overlap: object): Promise<{ slices: Slice[]; flows: Flow[] }> {
  const folder = temporaryFolder()
  const [job, file] = [join(folder, 'job.json'), join(folder, 'trace.json')]
  const rest = {
    training: { steps: 3, globalBatchSequences: 8, microBatches: 2, sequenceLength: 32 },
    overlap,
  }
  const spec = tinySpec({ steps: 3, replicas: 2, rest })
  writeFileSync(job, JSON.stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: 'traced' }, spec }))
  const output = join(folder, 'out')
  const env = { ...process.env, ...COMPILED }
  await promisify(execFile)(process.execPath, [SCMOE, 'run', job, '--output', output, '--trace', file], { env })
  expect(readdirSync(output)).toEqual(expect.arrayContaining(['trace-rank0.json', 'trace-rank1.json']))
  const { traceEvents } = Trace.parse(JSON.parse(readFileSync(file, 'utf8')))
  const slices = traceEvents.filter(event => event.ph === 'X')
  return { slices, flows: flowsOf(slices, traceEvents) }
}

/**
 * Throws if an arrow lacks an end, or has an end outside every slice of its row. Perfetto drops
 * such arrows.
 */
function flowsOf(slices: readonly Slice[], events: readonly z.infer<typeof Trace>['traceEvents'][number][]): Flow[] {
  const arrows = events.filter((event): event is Arrow => event.ph === 's' || event.ph === 'f')
  const byId = Map.groupBy(arrows, ({ pid, id }) => `${pid} ${id}`)
  const sliceAt = ({ pid, tid, ts }: Arrow) => {
    const found = slices.find(s => s.pid === pid && s.tid === tid && s.ts <= ts && ts <= s.ts + s.dur)
    if (!found) throw new Error(`an arrow ends in nothing, at ${ts} of row ${tid} of rank ${pid}`)
    return found
  }
  return [...byId].map(([id, ends]) => {
    const [start, finish] = ['s', 'f'].map(ph => ends.find(end => end.ph === ph))
    if (ends.length !== 2 || !start || !finish) throw new Error(`arrow ${id} does not have two ends`)
    expect(finish.ts).toBeGreaterThanOrEqual(start.ts)
    expect(finish.bp).toBe('e')
    return { from: sliceAt(start), to: sliceAt(finish) }
  })
}

// Broken once by arrows that start at the end of their slice plus 1, by chunks taken for the whole,
// by micro-batches that all start at 0, and by ranks that all are process 0.
test.each([
  ['in two chunks', { strategy: 'Shortcut', slot: 2, chunks: 2 }, ['.0of2', '.1of2']],
  ['whole', { strategy: 'Sequential' }, ['']],
])('a trace of all ranks has both queues, and arrows from and to every exchange: %s', async (_, overlap, chunks) => {
  const { slices, flows } = await traceOf(overlap)
  for (const pid of [0, 1]) {
    for (const tid of [1, 2]) {
      const row = slices.filter(s => s.pid === pid && s.tid === tid).toSorted((a, b) => a.ts - b.ts)
      expect(row.length).toBeGreaterThan(8)
      const gaps = row.slice(1).map((slice, i) => slice.ts - (row[i]?.ts ?? 0) - (row[i]?.dur ?? 0))
      expect(Math.min(...gaps)).toBeGreaterThanOrEqual(-0.01)
    }
    for (const phase of ['forward', 'backward']) {
      for (const chunk of chunks) {
        const own = flows.filter(({ from }) => from.pid === pid)
        const into = (label: string) => own.filter(({ to }) => to.name === label).map(({ from }) => from.name)
        const outOf = (label: string) => own.filter(({ from }) => from.name === label).map(({ to }) => to.name)
        const [dispatch, combine] = ['dispatch', 'combine'].map(part => `unit0.${phase}.${part}${chunk}`)
        // Twice: there are two micro-batches.
        expect(into(dispatch ?? '')).toHaveLength(2)
        expect(into(combine ?? '')).toHaveLength(2)
        const direction = phase === 'forward' ? [dispatch, combine] : [combine, dispatch]
        const [first = '', second = ''] = direction
        expect(into(first)[0]).toMatch(phase === 'forward' ? /encode/ : /decode/)
        expect(outOf(first)[0]).toMatch(new RegExp(`experts.*${chunk}$`))
        expect(into(second)[0]).toMatch(new RegExp(`experts.*${chunk}$`))
        expect(outOf(second)[0]).toMatch(phase === 'forward' ? /decode/ : /encode/)
      }
    }
  }
})
