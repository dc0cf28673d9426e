// npm run demo: starts a real Kubernetes, installs the chart, trains one job on two workers, then
// compares training with and without the shortcut schedule on the same limited network. It ends
// with three lines that say what came of it.
//   --keep            leave the cluster running and say how to reach it
//   --down            only end a cluster that was kept (npm run demo:down)
//   --only-training   leave out the comparison of schedules
//   --provider NAME   auto, existing, kind, embedded (see tools/cluster)
//   --state FOLDER    the folder of everything that the cluster writes
//   --json FILE       write the turns and the ratio for npm run docs:measurements

import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs, styleText } from 'node:util'
import { type Cluster, down, up } from './cluster/cluster.ts'
import type { ProviderName } from './cluster/provider.ts'
import { defaultStateDir, readRecord } from './cluster/state.ts'
import { runTurns } from './demo/compare.ts'
import { followJob, lossLine } from './demo/follow.ts'
import { saveOutput } from './demo/output.ts'
import { watchOf } from './demo/own.ts'
import { comparisonOf, type Turn } from './demo/plan.ts'
import { onProgress, say, step } from './demo/progress.ts'
import { writeResult } from './demo/result.ts'
import { comparisonTable, lastLine, speedLine, trainedLine } from './demo/words.ts'
import { importImages, installChart, kubectlFor, makeNamespace, ROOT } from './install.ts'
import { allProcesses, descendants, identify, killTree } from './process.ts'

const NAMESPACE = 'demo'
const EXAMPLE = 'examples/01-two-workers.yaml'
/** The time that an interrupted demo has to end by itself when its cluster is gone. */
const GRACE_MILLISECONDS = 10_000
const EXIT_INTERRUPTED = 130

let isEnding = false

interface Options {
  stateDir: string
  provider: ProviderName | 'auto'
  keep: boolean
  compare: boolean
  json: string | undefined
}

/** Trains, compares, and returns the closing lines. */
async function demo(cluster: Cluster, { keep, compare, json }: Options): Promise<string[]> {
  const kubectl = await kubectlFor(cluster, onProgress)
  await step('build and import images', () => importImages(cluster))
  await step('helm install charts/scmoe', () => installChart(cluster))
  await makeNamespace(kubectl, NAMESPACE)

  say(styleText('bold', `kubectl apply -n ${NAMESPACE} -f ${EXAMPLE}`))
  await kubectl('apply', '-n', NAMESPACE, '-f', join(ROOT, EXAMPLE))
  const job = await followJob(kubectl, NAMESPACE, 'moby-dick', say)
  say(lossLine(job))
  const output = await saveOutput(cluster, kubectl, { namespace: NAMESPACE, job })
  for (const line of output.lines) say(line)

  const turns: Turn[] = []
  if (compare) {
    say(styleText('bold', 'the comparison: two kinds of model take turns in short jobs'))
    const watch = await watchOf(cluster, say)
    turns.push(...(await runTurns({ kubectl, namespace: NAMESPACE, watch, say })))
  }
  writeResult(json, { job, turns, seconds: Math.round(performance.now() / 1000) })
  const comparison = comparisonOf(turns)
  for (const line of comparison === undefined ? [] : comparisonTable(comparison)) say(line)
  const kept = keep || cluster.provider === 'existing' ? cluster : undefined
  return [trainedLine(job), speedLine(turns, comparison), lastLine(kept, output.folder)]
}

/** Runs the demo in a cluster of its own, which ends with it unless it is to be kept. */
async function run(options: Options): Promise<void> {
  const { stateDir, provider, keep } = options
  const lifetime = keep ? 'detached' : 'process'
  const cluster = await step('start Kubernetes', () => up({ stateDir, lifetime, provider, onProgress }))
  let lines: string[]
  try {
    lines = await demo(cluster, options)
  } finally {
    if (!keep && provider !== 'existing') await step('end Kubernetes', () => remove(stateDir))
  }
  console.log(`\n${lines.join('\n')}`)
}

async function remove(stateDir: string): Promise<void> {
  await down(stateDir)
  if (existsSync(stateDir)) rmSync(stateDir, { recursive: true, force: true })
}

/**
 * Ends everything after a signal, in whatever phase the demo is: a build, a cluster that is being
 * started, or a job. A second signal ends this process at once.
 */
function endOnSignal(work: Promise<void>, { stateDir, provider, keep }: Options): void {
  const end = async (signal: string): Promise<void> => {
    if (isEnding) process.exit(EXIT_INTERRUPTED)
    isEnding = true
    say(`${signal}: everything that was started ends now; the same once more would leave it as it is`)
    const isOwn = () => provider !== 'existing' && !(keep && readRecord(stateDir)?.ready === true)
    if (isOwn()) await down(stateDir)
    await Promise.race([work.catch(() => {}), sleep(GRACE_MILLISECONDS)])
    const self = identify(process.pid)
    const children = descendants(allProcesses(), [self]).filter(({ pid }) => pid !== self.pid)
    await killTree(keep ? [] : children)
    if (isOwn()) await remove(stateDir)
    say(isOwn() ? 'everything is gone' : 'the cluster is kept; npm run demo:down ends it')
    process.exit(EXIT_INTERRUPTED)
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void end(signal))
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      keep: { type: 'boolean', default: false },
      down: { type: 'boolean', default: false },
      'only-training': { type: 'boolean', default: false },
      provider: { type: 'string', default: 'auto' },
      state: { type: 'string', default: defaultStateDir('node') },
      json: { type: 'string' },
    },
  })
  const stateDir = values.state
  if (values.down) {
    say((await down(stateDir)) ? 'the demo cluster is gone' : 'there is no demo cluster')
    return
  }
  const provider = values.provider as ProviderName | 'auto'
  const { keep, json } = values
  const options = { stateDir, provider, keep, json, compare: !values['only-training'] }
  const work = run(options)
  endOnSignal(work, options)
  await work
}

await main().catch((error: unknown) => {
  // A demo that was told to end fails somewhere, and this is no news.
  if (isEnding) return
  say(styleText('red', error instanceof Error ? error.message : String(error)))
  process.exitCode = 1
})
