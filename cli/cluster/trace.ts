// scmoe trace: fetches the last profiled step of a running job through the API server's proxy.

import { writeFileSync } from 'node:fs'
import { isReady } from '../../operator/objects/pod-state.ts'
import type { Pod } from '../../operator/objects/wire.ts'
import { reportingPort } from '../../operator/plan/report.ts'
import { readStatus } from '../../operator/plan/view.ts'
import { beside, demandWritable, parseTrace, type Trace } from '../trace-file.ts'
import { type Cluster, ClusterError } from './client.ts'
import { findJob, podPath, podsOf, rankOf, ranksPerPod } from './jobs.ts'

export interface TraceOptions {
  output?: string | undefined
  allRanks?: boolean | undefined
}

/** Writes the file and returns a sentence about it. */
export async function traceCommand(
  cluster: Cluster,
  name: string,
  { output = `${name}-trace.json`, allRanks }: TraceOptions,
): Promise<string> {
  const job = await findJob(cluster, name)
  const { state = 'Pending' } = readStatus(job)
  const pods = (await podsOf(cluster, job)).filter(pod => isReady(pod) && (allRanks === true || rankOf(pod) === 0))
  if (!pods.some(pod => rankOf(pod) === 0))
    throw new ClusterError(
      `${name} is ${state}: only a running job has a trace to fetch; \`scmoe why ${name}\` says more`,
    )
  demandWritable(output, '--output')
  const traces: Trace[] = []
  const ranks = allRanks === true ? ranksPerPod(job) : 1
  for (const pod of pods)
    for (let local = 0; local < ranks; local++) traces.push(await fetchTrace(cluster, pod, reportingPort(job) + local))
  const text = JSON.stringify(beside(traces))
  writeFileSync(output, text)
  const whose = traces.length === 1 ? 'rank 0' : `${traces.length} ranks`
  return `${output}: one step of ${whose}, ${Math.ceil(text.length / 1024)} KiB; open it in https://ui.perfetto.dev`
}

async function fetchTrace(cluster: Cluster, { metadata }: Pod, port: number): Promise<Trace> {
  const { name, namespace = cluster.namespace } = metadata
  const text = await cluster.text(`${podPath(namespace, `${name}:${port}`)}/proxy/trace`).catch((error: unknown) => {
    if (!(error instanceof ClusterError) || error.code === 403) throw error
    throw new ClusterError(
      `${name} gives no trace (${error.message}): a step is profiled soon after the start, so try again in a minute`,
    )
  })
  return parseTrace(text, `what ${name} answers`)
}
