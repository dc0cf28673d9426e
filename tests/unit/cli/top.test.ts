// Tests of the table of `scmoe top` and of the order and form of `scmoe logs`, from plain data.

import { describe, expect, it } from 'vitest'
import { readable } from '../../../cli/cluster/log-line.ts'
import { byBlame } from '../../../cli/cluster/logs.ts'
import { fitting } from '../../../cli/cluster/top.ts'
import { rowOf, type Style, Trends, topTable } from '../../../cli/cluster/top-table.ts'
import { duration, wrapped } from '../../../cli/sentence.ts'
import type { ScMoEJobStatus } from '../../../crds/status.ts'
import type { Job, Pod } from '../../../operator/objects/wire.ts'

const NOW = Date.parse('2026-01-01T00:10:00Z')
const at = (secondsAgo: number) => new Date(NOW - secondsAgo * 1000).toISOString()

function job(name: string, status: ScMoEJobStatus): Job {
  const spec = { training: { steps: 100 }, workers: { replicas: 2 } }
  return { metadata: { name, namespace: 'train', uid: name }, spec, status }
}
const running = (name: string, tokensPerSecond: number, age = 1) =>
  job(name, {
    state: 'Running',
    workers: { desired: 2, ready: 2, active: 2, succeeded: 0, failed: 0, selector: '' },
    progress: { step: 5, totalSteps: 100, percent: 5, lossMilli: 2500, estimatedRemainingSeconds: 3700 },
    throughput: { tokensPerSecond, tokensPerSecondPerRank: tokensPerSecond / 2, observedTime: at(age) },
  })

const plain: Style = (_, text) => text
function table(jobs: readonly Job[], trends?: Trends, style = plain): string[] {
  const rows = jobs.map(rowOf)
  trends?.add(rows)
  return topTable(rows, { now: NOW, trends, namespaces: false, where: 'train', style }).split('\n')
}

describe('the table of top', () => {
  it('has the fastest first, the others by name, and sums up', () => {
    const jobs = [job('b', { state: 'Failed' }), job('a', {}), running('slow', 10), running('fast', 4000)]
    expect(table(jobs)).toEqual([
      'NAME  STATE    READY  STEP   TOK/S  PER RANK  OVERLAP  LOSS   LEFT',
      'fast  Running  2/2    5/100  4000   2000      -        2.500  62 min',
      'slow  Running  2/2    5/100  10     5         -        2.500  62 min',
      'a     -        0/2    -      -      -         -        -      -',
      'b     Failed   0/2    -      -      -         -        -      -',
      '',
      '2 Running, 1 unseen, 1 Failed; 4010 tokens/s',
    ])
  })

  it('has its head in bold and the states that matter in colour, with the columns where they are without', () => {
    const jobs = [running('gpt', 10), job('a', { state: 'Failed' }), job('b', { state: 'Pending' })]
    const styled = table(jobs, undefined, (format, text) => `<${format}>${text}</>`)
    expect(styled[0]).toMatch(/^<bold>NAME .*LEFT<\/>$/)
    expect(styled.slice(1, 4).map(line => line.slice(0, 28).trimEnd())).toEqual([
      'gpt   <green>Running</>  2/2',
      'a     <red>Failed </>  0/2',
      'b     Pending  0/2    -',
    ])
  })

  it('says how old a figure is that should have been replaced', () => {
    expect(table([running('gpt', 4000, 59)])[1]).toContain(' 4000  ')
    expect(table([running('gpt', 4000, 300)])[1]).toContain(' 4000 (5 min ago)  ')
  })

  // Seen failing: a job that had just restarted had the speed of the attempt before, and "-" as the
  // time left beside it.
  it('says how old a speed is that is not of this moment: after a restart, and when the job does not run', () => {
    const { status } = running('gpt', 4000, 30)
    const { progress, ...rest } = status as ScMoEJobStatus
    const restarted = job('gpt', { ...rest, progress: { step: 5, totalSteps: 100, percent: 5 } })
    expect(table([restarted])[1]).toMatch(/ 4000 \(30 s ago\) .* -$/)
    const complete = job('gpt', { ...rest, ...(progress && { progress }), state: 'Complete' })
    expect(table([complete])[1]).toMatch(/ 4000 \(30 s ago\) .* -$/)
  })

  it('leaves the slowest out where the terminal is too low for all', () => {
    const jobs = [5, 4, 3, 2, 1].map(tokens => running(`job-${tokens}`, 2 * tokens))
    const all = table(jobs).join('\n')
    expect(fitting(all, 9)).toBe(all)
    expect(
      fitting(all, 8)
        .split('\n')
        .map(line => line.slice(0, 8)),
    ).toEqual(['NAME   S', 'job-5  R', 'job-4  R', 'job-3  R', '… 2 more', '', '5 Runnin'])
  })

  it('shows the trend from zero to the most, one bar a report', () => {
    const trends = new Trends()
    for (const [tokens, age] of [
      [4000, 30],
      [4000, 30],
      [0, 20],
      [2000, 10],
      [4000, 1],
    ] as const)
      table([running('gpt', tokens, age)], trends)
    expect(table([running('gpt', 4000, 1)], trends)[1]).toMatch(/ █▁▅█$/)
  })
})

describe('logs', () => {
  const pod = (rank: number, end?: { exitCode: number; finishedAt?: string }): Pod => ({
    metadata: { name: `gpt-worker-${rank}`, labels: { 'scmoe.dev/rank': String(rank), 'scmoe.dev/attempt': '2' } },
    status: { containerStatuses: [{ name: 'worker', ...(end && { state: { terminated: end } }) }] },
  })
  const names = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.name.slice(-1)).join('')

  it('come first from the pod that failed first, then from those it took with it, then by rank', () => {
    const pods = [
      pod(0),
      pod(1, { exitCode: 75, finishedAt: at(1) }),
      pod(2, { exitCode: 75, finishedAt: at(2) }),
      pod(3),
    ]
    const failure = { attempt: 2, podName: 'gpt-worker-3', reason: 'internal', message: '' }
    expect(names(byBlame(pods, failure))).toBe('3210')
    expect(names(byBlame(pods, { ...failure, attempt: 1 })), 'of an attempt that is over').toBe('2103')
  })

  it('are told as text; what is no record stays as it is', () => {
    const line = '{"level":40,"time":"2026-01-01T07:12:01.250Z","rank":1,"msg":"slow","step":12,"op":"gemm"}'
    expect(readable(line)).toBe('07:12:01.250 WARN  slow  step=12 op=gemm')
    const floats = '{"level":30,"msg":"step","loss":2.3456789012345,"rates":{"x":0.00012345678},"step":1234567}'
    expect(readable(floats)).toBe('INFO  step  loss=2.3457 rates={"x":0.00012346} step=1234567')
    expect(readable(line, true), 'of a pod with several ranks').toBe('07:12:01.250 WARN  slow  rank=1 step=12 op=gemm')
    for (const other of ['', 'Segmentation fault', '{"a":1}', '{"msg":', '{"level":30,"msg":'])
      expect(readable(other)).toBe(other)
  })
})

describe('words', () => {
  it('for spans of time', () => {
    expect([0, 119, 120, 7199, 7200, 7500, 172_800, 176_400].map(duration)).toEqual([
      '0 s',
      '119 s',
      '2 min',
      '2 h',
      '2 h',
      '2 h 5 min',
      '2 d',
      '2 d 1 h',
    ])
  })

  it('are broken between words alone', () => {
    expect(wrapped('one two three-four five', 8)).toBe('one two\nthree-four\nfive')
  })
})
