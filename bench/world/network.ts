// A network for every rank: a namespace that ends with the rank's process, and a link to a common
// bridge that can be limited while it is used. The namespaces have no names and belong only to
// processes, so nothing stays behind however the program ends.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'

/** Words that, put before a command, run it in a new network namespace with the same pid. */
export const IN_NEW_NETWORK = ['unshare', '--net'] as const
/** Words that, put before a command, run it in the network namespace of a process. */
export const inNetworkOf = (pid: number) => ['nsenter', `--target=${pid}`, '--net']

/** The largest segment that the kernel hands to a link, with the headers of its packets. */
const SEGMENT_BYTES = 72 * 1024
/** A burst on a fast link has the bytes of this time, because timers are not more precise. */
const BURST_SECONDS = 0.00025
/**
 * Bytes that may wait at a link. Sockets hold less, so nothing is dropped; a lost segment would
 * cost 200 ms.
 */
const QUEUE_BYTES = 64 * 1024 * 1024

const DEVICE = 'link'
export const addressOf = (rank: number) => `10.89.${(rank + 1) >> 8}.${(rank + 1) & 255}`

/** The reason why ranks cannot have networks of their own here, or undefined. */
export function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'networks for ranks need root: run this as root'
  const tools = { unshare: 'util-linux', nsenter: 'util-linux', ip: 'iproute2', tc: 'iproute2' }
  for (const [tool, packageName] of Object.entries(tools))
    if (!succeeds(['sh', '-c', `command -v ${tool}`])) return `${tool} is missing: apt-get install --yes ${packageName}`
  if (!succeeds([...IN_NEW_NETWORK, 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'tbf', ...bucket(1e9)]))
    return 'this kernel allows no network namespaces, or no token buckets (sch_tbf)'
  return undefined
}

export function succeeds([command = '', ...words]: readonly string[]): boolean {
  try {
    execFileSync(command, words, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

function run([command = '', ...words]: readonly string[]): void {
  try {
    execFileSync(command, words, { stdio: 'pipe', encoding: 'utf8' })
  } catch (error) {
    const { stderr } = error as { stderr?: string }
    throw new Error(`${[command, ...words].join(' ')}: ${stderr?.trim() ?? String(error)}`, { cause: error })
  }
}

/** The parameters of a token bucket (tc-tbf) for a rate in bits per second. */
export function bucket(bitsPerSecond: number): string[] {
  const burst = Math.max(SEGMENT_BYTES, Math.ceil((bitsPerSecond / 8) * BURST_SECONDS))
  return ['rate', `${Math.round(bitsPerSecond)}bit`, 'burst', `${burst}`, 'limit', `${QUEUE_BYTES}`]
}

/** Links of processes that were started with `IN_NEW_NETWORK`; unlimited until `limit`. */
export class Network implements Disposable {
  readonly #ranks: readonly number[]
  /** A process that holds the namespace of the bridge until its standard input closes. */
  readonly #holder: ChildProcess
  #limited = false

  private constructor(ranks: readonly number[], holder: ChildProcess) {
    this.#ranks = ranks
    this.#holder = holder
  }

  static async of(ranks: readonly number[]): Promise<Network> {
    const [unshare, ...words] = [...IN_NEW_NETWORK, 'sh', '-c', 'echo here; exec cat > /dev/null']
    const holder = spawn(unshare ?? '', words, { stdio: ['pipe', 'pipe', 'inherit'] })
    const network = new Network(ranks, holder)
    try {
      await once(holder.stdout, 'data')
      network.#join()
      return network
    } catch (error) {
      network[Symbol.dispose]()
      throw error
    }
  }

  #join(): void {
    const middle = inNetworkOf(this.#holder.pid ?? -1)
    run([...middle, 'ip', 'link', 'add', 'bridge', 'type', 'bridge'])
    run([...middle, 'ip', 'link', 'set', 'dev', 'bridge', 'up'])
    for (const [rank, pid] of this.#ranks.entries()) {
      const inside = inNetworkOf(pid)
      const peer = ['peer', 'name', DEVICE, 'netns', `${pid}`]
      run([...middle, 'ip', 'link', 'add', `rank${rank}`, 'type', 'veth', ...peer])
      run([...middle, 'ip', 'link', 'set', 'dev', `rank${rank}`, 'master', 'bridge', 'up'])
      run([...inside, 'ip', 'address', 'add', `${addressOf(rank)}/16`, 'dev', DEVICE])
      for (const device of ['lo', DEVICE]) run([...inside, 'ip', 'link', 'set', 'dev', device, 'up'])
    }
  }

  /** Limits the bits per second that leave each rank; undefined removes the limit. */
  limit(bitsPerSecond: number | undefined): void {
    if (bitsPerSecond === undefined && !this.#limited) return
    for (const pid of this.#ranks) {
      const tc = [...inNetworkOf(pid), 'tc', 'qdisc']
      if (bitsPerSecond === undefined) run([...tc, 'del', 'dev', DEVICE, 'root'])
      else run([...tc, 'replace', 'dev', DEVICE, 'root', 'handle', '1:', 'tbf', ...bucket(bitsPerSecond)])
    }
    this.#limited = bitsPerSecond !== undefined
  }

  [Symbol.dispose](): void {
    this.#holder.kill('SIGKILL')
  }
}
