import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { withLock } from '../../../tools/lock.ts'
import { descendants, identify, isAlive, killTree, parseStat } from '../../../tools/process.ts'

const stat = (pid: number, parent: number, startTime = '1') => ({ pid, parent, startTime, state: 'S', ticks: 0 })

describe('a process is known by pid and start time', () => {
  it('a name with spaces and parentheses does not shift the fields of /proc/PID/stat', () => {
    const fields = [
      'S',
      '7',
      ...Array.from({ length: 9 }, () => '0'),
      '40',
      '3',
      '2',
      '1',
      '0',
      '0',
      '0',
      '0',
      '4242',
      '0',
    ]
    expect(parseStat(`12 (a) b (c)) ${fields.join(' ')}`)).toEqual({
      pid: 12,
      state: 'S',
      parent: 7,
      startTime: '4242',
      ticks: 46,
    })
  })

  it('this process is alive, and another one that had its pid before is not', () => {
    const own = identify(process.pid)
    expect(isAlive(own)).toBe(true)
    expect(isAlive({ ...own, startTime: '1' })).toBe(false)
  })

  it('descendants are found at any depth and in any order, and strangers are left out', () => {
    const all = [stat(4, 3), stat(3, 2), stat(2, 1), stat(9, 1), stat(1, 0)]
    expect(descendants(all, [{ pid: 2, startTime: '1' }]).map(p => p.pid)).toEqual([2, 3, 4])
  })

  it('a pid that was given to another process has no descendants to kill', () => {
    expect(descendants([stat(2, 1, '77'), stat(3, 2)], [{ pid: 2, startTime: '1' }])).toEqual([])
  })

  it('killing a tree ends children too, also stopped ones, and nothing that only reuses the pid', async () => {
    const shell = spawn('sh', ['-c', 'sleep 60 & echo $!; wait'], { stdio: ['ignore', 'pipe', 'ignore'] })
    const line = await new Promise<string>(resolve => shell.stdout.once('data', data => resolve(String(data))))
    const [parent, child] = [identify(shell.pid ?? 0), identify(Number(line))]
    await killTree([{ ...parent, startTime: '1' }])
    expect([isAlive(parent), isAlive(child)]).toEqual([true, true])
    process.kill(child.pid, 'SIGSTOP')
    await killTree([parent])
    expect([isAlive(parent), isAlive(child)]).toEqual([false, false])
  })
})

describe('a lock', () => {
  it('lets one in at a time and tells the other that it waits', async () => {
    const name = `test ${process.pid}`
    const events: string[] = []
    const work = (label: string) => async () => {
      events.push(`${label} in`)
      await sleep(50)
      events.push(`${label} out`)
    }
    const first = withLock(name, work('a'))
    await sleep(10)
    await Promise.all([first, withLock(name, work('b'), () => events.push('b waits'))])
    expect(events).toEqual(['a in', 'b waits', 'a out', 'b in', 'b out'])
  })

  it('is free again after the work failed', async () => {
    const name = `test failure ${process.pid}`
    await expect(withLock(name, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    await expect(withLock(name, () => Promise.resolve(1))).resolves.toBe(1)
  })
})
