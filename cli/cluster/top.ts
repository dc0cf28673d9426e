// scmoe top: prints a table of jobs with their speed, once or repeatedly.

import { setTimeout as sleep } from 'node:timers/promises'
import { styleText } from 'node:util'
import { createLogUpdate } from 'log-update'
import { plainText } from '../../crds/contract.ts'
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

/** Returns after one table, or never if the table is updated: Ctrl-C ends the process. */
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

/**
 * Updates a table in place. While the API server does not answer, the last table stays and the
 * reason stands below it.
 */
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
      update(`${fitting(table, process.stdout.rows - 2)}\n${styleText('yellow', plainText(error.message))}`)
    }
  }
}

/**
 * A table that fits into a terminal, because a taller one cannot be overwritten in place. Leaves
 * out the slowest jobs and keeps the sums below the table.
 */
export function fitting(table: string, rows: number): string {
  const lines = table.split('\n')
  const hidden = lines.length + 1 - rows
  if (hidden <= 0 || rows < 6) return table
  const kept = lines.slice(0, lines.length - 2 - hidden - 1)
  return [...kept, `… ${hidden + 1} more`, ...lines.slice(-2)].join('\n')
}
