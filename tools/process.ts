// Identifies processes by pid and start time, because the kernel may give a recorded pid to another
// process.

import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

/** `startTime` is in clock ticks since boot (field 22 of /proc/PID/stat). */
export type ProcessIdentity = { readonly pid: number; readonly startTime: string }

/** `ticks` is the processor time, in clock ticks, of the process and of its ended children. */
export type ProcessStat = ProcessIdentity & { readonly parent: number; readonly state: string; readonly ticks: number }

/** The system's code of an error, such as ENOENT; undefined for other errors. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

const execFileAsync = promisify(execFile)

/** Parses /proc/PID/stat. The name in parentheses may itself contain spaces and parentheses. */
export function parseStat(line: string): ProcessStat {
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
  const [state, parent, startTime] = [fields[0], fields[1], fields[19]]
  if (state === undefined || parent === undefined || startTime === undefined) {
    throw new Error(`not a line of /proc/PID/stat: '${line}'`)
  }
  // utime, stime, cutime and cstime (see proc(5)).
  const ticks = fields.slice(11, 15).reduce((sum, value) => sum + Number(value), 0)
  return { pid: Number.parseInt(line, 10), state, parent: Number(parent), startTime, ticks }
}

function processStat(pid: number): ProcessStat | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return undefined
  }
}

/** The identity of a process that runs now. */
export function identify(pid: number): ProcessIdentity {
  const stat = processStat(pid)
  if (stat === undefined) throw new Error(`process ${pid} ended before it could be identified`)
  return { pid, startTime: stat.startTime }
}

/** Whether this very process still runs. A zombie has ended; a reused pid is another process. */
export function isAlive(identity: ProcessIdentity): boolean {
  const stat = processStat(identity.pid)
  return stat !== undefined && stat.startTime === identity.startTime && stat.state !== 'Z'
}

/** The roots and all their descendants among `all`, the roots first. Pure. */
export function descendants(all: readonly ProcessStat[], roots: readonly ProcessIdentity[]): ProcessStat[] {
  const found = all.filter(p => roots.some(root => root.pid === p.pid && root.startTime === p.startTime))
  const seen = new Set(found.map(p => p.pid))
  for (const parent of found) {
    for (const child of all) {
      if (child.parent !== parent.pid || seen.has(child.pid)) continue
      seen.add(child.pid)
      found.push(child)
    }
  }
  return found
}

export function allProcesses(): ProcessStat[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(name => processStat(Number(name)))
    .filter(stat => stat !== undefined)
}

/** Kills these processes and all their descendants, and waits until all have ended. */
export async function killTree(roots: readonly ProcessIdentity[], timeoutMilliseconds = 15_000): Promise<void> {
  const tree = descendants(allProcesses(), roots)
  for (const member of tree) kill(member)
  const deadline = performance.now() + timeoutMilliseconds
  for (let left = tree; left.length > 0; left = left.filter(isAlive)) {
    if (performance.now() > deadline) {
      throw new Error(`processes ${left.map(p => p.pid).join(', ')} outlived SIGKILL for ${timeoutMilliseconds} ms`)
    }
    await sleep(20)
  }
}

function kill(identity: ProcessIdentity): void {
  if (!isAlive(identity)) return
  try {
    process.kill(identity.pid, 'SIGKILL')
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error
  }
}

/** Runs a command and returns its output; the error of a failed command has its error output. */
export async function run(command: string, args: readonly string[], env = process.env): Promise<string> {
  try {
    const { stdout } = await execFileAsync(command, args, { env, maxBuffer: 64 << 20 })
    return stdout
  } catch (error) {
    const printed = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : ''
    throw new Error(`'${command} ${args.join(' ')}' failed: ${printed || String(error)}`, { cause: error })
  }
}
