// File systems that a test mounts. A file that uses them calls `unmountAll` after each test.

import { spawnSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import type { TestContext } from 'vitest'

const mounted: string[] = []
const opened: number[] = []

/** Ends what the functions below have mounted. */
export function unmountAll(): void {
  for (const fd of opened.splice(0)) closeSync(fd)
  for (const path of mounted.splice(0).toReversed()) spawnSync('umount', ['-l', path])
}

/** Skips the test, with the reason, if this machine does not let it mount. */
function mount(path: string, args: readonly string[], context: TestContext, fd?: number): void {
  const stdio = ['ignore', 'pipe', 'pipe', ...(fd === undefined ? [] : [fd])] as const
  const { status, stderr } = spawnSync('mount', [...args, path], { encoding: 'utf8', stdio: [...stdio] })
  const problem = status === 0 ? undefined : `mounting needs root: ${stderr.trim()}`
  if (problem !== undefined) console.log(`skipped: ${problem}`)
  context.skip(problem !== undefined, problem)
  mounted.push(path)
}

/** Gives the folder `path` a disk of its own. */
export function mountDisk(path: string, megabytes: number, context: TestContext): void {
  mount(path, ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs'], context)
}

/** Makes the folder `path` read-only for everyone. */
export function mountReadOnly(path: string, context: TestContext): void {
  mount(path, ['--bind', path], context)
  mount(path, ['-o', 'remount,ro,bind'], context)
}

/**
 * Puts a file system on the folder `path` whose server is there and never answers, or is gone.
 */
export function mountDead(path: string, server: 'silent' | 'gone', context: TestContext): void {
  let fd: number
  try {
    fd = openSync('/dev/fuse', 'r+')
  } catch (error) {
    console.log(`skipped: a dead mount needs /dev/fuse: ${String(error)}`)
    context.skip(true, 'a dead mount needs /dev/fuse')
    return
  }
  mount(path, ['-i', '-t', 'fuse', '-o', 'fd=3,rootmode=40000,user_id=0,group_id=0', 'test'], context, fd)
  if (server === 'silent') opened.push(fd)
  else closeSync(fd)
}
