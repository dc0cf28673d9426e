// The comparison at the end of the demo: top-2 experts in sequential order against ScMoE with the
// shortcut schedule, with the same sizes on the same limited network. The figures come from the
// status of the jobs.

import { join } from 'node:path'
import { type Kubectl, ROOT } from '../install.ts'
import { followJob, type Job } from './follow.ts'

const RUNS = [
  { file: 'examples/02-overlap-sequential.yaml', name: 'overlap-sequential' },
  { file: 'examples/03-overlap-shortcut.yaml', name: 'overlap-shortcut' },
] as const

export async function compareSchedules(
  kubectl: Kubectl,
  namespace: string,
  say: (line: string) => void,
): Promise<string[]> {
  const jobs: Job[] = []
  for (const { file, name } of RUNS) {
    say(`kubectl apply -n ${namespace} -f ${file}`)
    await kubectl('apply', '-n', namespace, '-f', join(ROOT, file))
    jobs.push(await followJob(kubectl, namespace, name, say))
  }
  return comparisonRows(jobs)
}

/** A header, a row per job, and the tokens per second of the last job over those of the first. */
export function comparisonRows(jobs: readonly Job[]): string[] {
  const header = ['', 'TOK/S', 'STEP-MS', 'ALL-TO-ALL-MS', 'OF MOE', 'HIDDEN', 'SCHEDULE']
  const rows = jobs.map(({ metadata, status }) => {
    const t = status?.throughput
    const cells = [t?.tokensPerSecond, t?.stepTimeMilliseconds, t?.communicationMilliseconds]
    return [
      metadata.name,
      ...cells.map(cell => String(cell ?? '?')),
      `${t?.communicationShareOfMoePercent ?? '?'} %`,
      `${t?.overlapPercent ?? '?'} %`,
      t?.schedule ?? '?',
    ]
  })
  const widths = header.map((_, column) => Math.max(...[header, ...rows].map(row => row[column]?.length ?? 0)))
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd((widths[column] ?? 0) + 3))
      .join('')
      .trimEnd()
  const speeds = jobs.map(({ status }) => status?.throughput?.tokensPerSecond ?? Number.NaN)
  const ratio = (speeds.at(-1) ?? Number.NaN) / (speeds[0] ?? Number.NaN)
  return [
    ...[header, ...rows].map(line),
    `${jobs.at(-1)?.metadata.name}: ${ratio.toFixed(2)} x the tokens/s of ${jobs[0]?.metadata.name}`,
  ]
}
