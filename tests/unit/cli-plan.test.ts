import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { planCommand } from '../../cli/plan.ts'
import { program } from '../../cli/program.ts'

const OPTIONS = { rank: 0, workerImage: 'worker:1', gigaflops: 50, megabytesPerSecond: 1000, latencyMicroseconds: 50 }
const Planned = z.object({
  schedule: z.string(),
  schedules: z.array(z.object({ schedule: z.string(), predictedMilliseconds: z.number() })),
  objects: z.array(z.object({ kind: z.string(), metadata: z.object({ name: z.string() }) })),
  programs: z.array(z.object({ name: z.string(), rank: z.number(), ops: z.array(z.looseObject({})) })),
})
const plan = (file: string, options = OPTIONS) =>
  Planned.parse(JSON.parse(planCommand(file, { ...options, json: true })))

describe('scmoe plan', () => {
  it('names the objects, the memory, every schedule and draws the chosen one', () => {
    const text = planCommand('examples/01-two-workers.yaml', OPTIONS)
    expect(text).toMatch(/^default\/moby-dick: ScMoE, 6\.67 million parameters, of which a token uses 2\.52 million$/m)
    expect(text).toMatch(/^ {2}create Pod moby-dick-worker-1$/m)
    expect(text).toMatch(/^Memory of rank 0: [\d.]+ MiB that stay/m)
    expect(text.match(/<- chosen/g)).toHaveLength(1)
    expect(text).toMatch(/^comm .*\|/m)
  })

  it('gives objects and programs in full as JSON', () => {
    const { objects, programs } = plan('examples/01-two-workers.yaml')
    expect(objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).toEqual([
      'Service/moby-dick',
      'PodDisruptionBudget/moby-dick',
      'Pod/moby-dick-worker-0',
      'Pod/moby-dick-worker-1',
    ])
    expect(programs.map(({ name, rank }) => [name, rank])).toEqual([
      ['train', 0],
      ['evaluate', 0],
    ])
    expect(programs[0]?.ops.length).toBeGreaterThan(50)
  })

  it('predicts that the shortcut pays on a slow network', () => {
    const slow = plan('examples/03-overlap-shortcut.yaml', { ...OPTIONS, megabytesPerSecond: 25 })
    const baseline = plan('examples/02-overlap-sequential.yaml', { ...OPTIONS, megabytesPerSecond: 25 })
    expect(slow.schedule).toContain('shortcut')
    expect(baseline.schedule).toBe('sequential')
    const best = (schedules: typeof slow.schedules) =>
      Math.min(...schedules.map(({ predictedMilliseconds }) => predictedMilliseconds))
    expect(best(slow.schedules)).toBeLessThan(best(baseline.schedules))
  })

  it('refuses a rank that the job does not have', () => {
    expect(() => planCommand('examples/01-two-workers.yaml', { ...OPTIONS, rank: 2 })).toThrow('ranks 0 to 1')
  })
})

describe('the command line', () => {
  it.each(program(() => undefined).commands.map(command => [command.name(), command] as const))(
    '%s explains itself and each of its options',
    (_, command) => {
      expect(command.description()).not.toBe('')
      for (const { description } of [...command.options, ...command.registeredArguments])
        expect(description).not.toBe('')
    },
  )
})
