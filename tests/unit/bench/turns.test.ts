// Tests of how benchmarks and the demo notice that something else used the machine, and of the
// intervals of their figures.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { atLeast, figureOf, medianOf } from '../../../bench/turns/figures.ts'
import { type Load, loadOf, readLoad, takenBetween } from '../../../bench/turns/load.ts'
import { disturbanceOf, mayRepeat, sentenceOf, Watch } from '../../../bench/turns/watch.ts'
import { allProcesses, identify, parseStat } from '../../../tools/process.ts'

/** A line of /proc/PID/stat with processor time of the process and of its ended children. */
const line = (pid: number, parent: number, own: number, children = 0) =>
  parseStat(`${pid} (x) S ${parent} ${'0 '.repeat(9)}${own} 0 ${children} 0 ${'0 '.repeat(4)}77 0`)

/** The first lines of /proc/stat: user nice system idle iowait irq softirq steal guest. */
const cpu = (...ticks: number[]) => `cpu  ${ticks.join(' ')} 0 0\ncpu0 1 2 3\n`

const roots = [{ pid: 10, startTime: '77' }]

// Two processors, read before and after 100 s. The ranks 11 and 12 are below 10; 12 has ended.
const before = loadOf(
  cpu(1000, 0, 100, 5000, 10, 0, 20, 0),
  [
    line(1, 0, 50),
    line(2, 0, 0),
    line(3, 2, 10),
    line(10, 1, 5),
    line(11, 10, 100),
    line(12, 10, 80),
    line(90, 1, 400),
  ],
  roots,
)
const after = loadOf(
  cpu(15_000, 2000, 900, 6000, 10, 0, 1500, 700),
  [line(1, 0, 50), line(2, 0, 0), line(3, 2, 40), line(10, 1, 5, 7080), line(11, 10, 7100), line(90, 1, 2400)],
  roots,
)

describe('two readings of /proc', () => {
  it('give what others took, without this process, its children that ended, the kernel and interrupts', () => {
    const total = after.total - before.total
    expect(total).toBe(14_000 + 2000 + 800 + 1000 + 1480 + 700)
    // 7000 of rank 11, 7000 of rank 12, which has ended, and 30 of a thread of the kernel are not.
    expect(takenBetween(before, after).others).toBeCloseTo((16_800 - 14_000 - 30) / total)
    expect(takenBetween(before, after).stolen).toBeCloseTo(700 / total)
  })

  it('give nothing for a turn that is shorter than a tick', () => {
    expect(takenBetween(before, before)).toEqual({ others: 0, stolen: 0 })
  })
})

/** A reader of loads in which others take the given percentages of the turns, one after another. */
function recorded(...percents: number[]): () => Load {
  let [total, busy, reading] = [0, 0, 0]
  return () => {
    if (reading++ % 2 === 1) {
      total += 1000
      busy += 10 * (percents[reading / 2 - 1] ?? 0)
    }
    return { total, busy, stolen: 0, own: 0, kernel: 0 }
  }
}

describe('a watched measurement', () => {
  // Seen failing with a turn whose first run always counts.
  it('runs a disturbed turn again and keeps the quiet run', async () => {
    const watch = new Watch({ read: recorded(1, 40, 2) })
    let run = 0
    const turn = () => watch.turn(() => Promise.resolve(++run))
    expect([await turn(), await turn()]).toEqual([1, 3])
    expect(watch.disturbance).toMatchObject({ turns: 2, repeated: 1, disturbed: 0 })
    expect(watch.disturbance.othersPercent).toBeCloseTo(2)
    expect(sentenceOf(watch.disturbance)).toBe(
      "the machine was this measurement's own: in 2 turns others took at most 2.0 % of the processors, the hypervisor 0.0 %; 1 were repeated",
    )
  })

  it('keeps the quietest of three runs of a turn that stays disturbed, and says so', async () => {
    const watch = new Watch({ read: recorded(40, 20, 30) })
    let run = 0
    expect(await watch.turn(() => Promise.resolve(++run))).toBe(2)
    expect(run).toBe(3)
    expect(sentenceOf(watch.disturbance)).toContain('THE MACHINE WAS NOT ITS OWN in 1 of 1 turns (more than 5 %)')
    expect(sentenceOf(watch.disturbance)).toContain('others took at most 20.0 %')
  })

  it('ends soon on a machine that is always busy', async () => {
    const watch = new Watch({ read: recorded(...Array.from({ length: 1000 }, () => 90)) })
    let runs = 0
    for (let turn = 0; turn < 40; turn++) await watch.turn(() => Promise.resolve(++runs))
    expect(runs).toBeLessThanOrEqual(40 + 3 + 40 / 4)
    expect(watch.disturbance.disturbed).toBe(40)
    expect(mayRepeat({ tries: 3, turns: 40, repeated: 0 })).toBe(false)
  })

  it('counts time that the hypervisor took as a disturbance', () => {
    expect(disturbanceOf([{ others: 0.01, stolen: 0.1 }], 0)).toMatchObject({ disturbed: 1, stolenPercent: 10 })
  })

  // Seen failing with processor time of this process alone, of which a living child is no part.
  it('counts the work of a living child as its own', async () => {
    const child = spawn(process.execPath, ['-e', 'process.send(0); for (;;);'], {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    })
    try {
      await once(child, 'message')
      const ticks = () => allProcesses().find(({ pid }) => pid === child.pid)?.ticks ?? 0
      const own = [identify(process.pid)]
      const [first, started] = [readLoad(own), ticks()]
      // The child spins for a while, and this process uses next to nothing.
      while (ticks() < started + 10) await sleep(50)
      const spun = ticks() - started
      expect(readLoad(own).own - first.own).toBeGreaterThanOrEqual(spun)
    } finally {
      child.kill('SIGKILL')
    }
  })
})

describe('a figure', () => {
  it('has its aim, whether it is met, and a 95 % interval around the median', () => {
    const samples = [1.5, 1.6, 1.7, 1.62, 1.58]
    const figure = medianOf({ name: 'speed', unit: 'x', aim: atLeast(1.55), samples })
    expect(figure).toMatchObject({
      name: 'speed',
      value: 1.6,
      unit: 'x',
      aim: '>= 1.55',
      met: true,
      low: 1.5,
      high: 1.7,
    })
    expect(medianOf({ name: 'speed', unit: 'x', aim: atLeast(1.61), samples }).met).toBe(false)
  })

  it('has no interval of one sample, and no verdict without an aim', () => {
    expect(medianOf({ name: 'speed', unit: 'x', samples: [2] })).toEqual({
      name: 'speed',
      value: 2,
      unit: 'x',
      aim: null,
      met: null,
      low: null,
      high: null,
    })
  })

  it('has an interval of any statistic, the same each time it is calculated', () => {
    const most = () =>
      figureOf({ name: 'most', unit: '', samples: [1, 2, 9], statistic: values => Math.max(...values) })
    expect(most()).toMatchObject({ value: 9, low: 1, high: 9 })
    expect(most()).toEqual(most())
  })
})
