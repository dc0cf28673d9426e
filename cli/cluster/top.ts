// scmoe top: jobs with their speed, once or again and again.

import { setTimeout as sleep } from 'node:timers/promises'
import { styleText } from 'node:util'
import { createLogUpdate } from 'log-update'
import { type Cluster, ClusterError } from './client.ts'
import { listJobs } from './jobs.ts'
import { rowOf, Trends, topTable } from './top-table.ts'

export interface TopOptions {
  allNamespaces?: boolean | undefined
  watch?: boolean | undefined
  once?: boolean | undefined
  /** Seconds. */
  interval: number
}

/** Returns after one table, or never: Ctrl-C ends it. */
export async function topCommand(cluster: Cluster, options: TopOptions, print: (text: string) => void): Promise<void> {
  const live = process.stdout.isTTY && options.once !== true
  const trends = live || options.watch === true ? new Trends() : undefined
  const look = async () => {
    const rows = (await listJobs(cluster, options.allNamespaces ? undefined : cluster.namespace)).map(rowOf)
    trends?.add(rows)
    return topTable(rows, {
      now: Date.now(),
      trends,
      namespaces: options.allNamespaces === true,
      where: cluster.namespace,
      style: styleText,
    })
  }
  if (live) await keepShowing(look, options)
  else if (options.watch)
    for (;;) {
      print(`${await look()}\n`)
      await sleep(options.interval * 1000)
    }
  else print(await look())
}

/** A table that changes in its place; while the API server does not answer, the last one stays with the reason below it. */
async function keepShowing(look: () => Promise<string>, { interval }: TopOptions): Promise<never> {
  const update = createLogUpdate(process.stdout)
  let table = await look()
  for (;;) {
    update(fitting(table, process.stdout.rows))
    await sleep(interval * 1000)
    try {
      table = await look()
    } catch (error) {
      if (!(error instanceof ClusterError)) throw error
      update(`${fitting(table, process.stdout.rows - 2)}\n${styleText('yellow', error.message)}`)
    }
  }
}

/** What is taller than the terminal could not be drawn over: the slowest jobs are left out, the sum below the table stays. */
export function fitting(table: string, rows: number): string {
  const lines = table.split('\n')
  const hidden = lines.length + 1 - rows
  if (hidden <= 0 || rows < 6) return table
  const kept = lines.slice(0, lines.length - 2 - hidden - 1)
  return [...kept, `… ${hidden + 1} more`, ...lines.slice(-2)].join('\n')
}
