// npm run demo: starts a real Kubernetes, installs the chart, trains one job on two workers, then
// compares training with and without the shortcut schedule on the same limited network.
//   --keep            leave the cluster running and say how to reach it
//   --down            only end a cluster that was kept (npm run demo:down)
//   --only-training   leave out the comparison of schedules
//   --provider NAME   auto, existing, kind, embedded (see tools/cluster)

import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs, styleText } from 'node:util'
import { type Cluster, down, up } from './cluster/cluster.ts'
import type { Progress } from './cluster/programs/binaries.ts'
import type { ProviderName } from './cluster/provider.ts'
import { defaultStateDir } from './cluster/state.ts'
import { compareSchedules } from './demo/compare.ts'
import { followJob, type Job, lossLine, speedLine } from './demo/follow.ts'
import { saveOutput } from './demo/output.ts'
import { importImages, installChart, kubectlFor, makeNamespace, ROOT } from './install.ts'

const NAMESPACE = 'demo'
const EXAMPLE = 'examples/01-two-workers.yaml'

const started = performance.now()
const onProgress: Progress = (line, update) => {
  if (update !== true || process.stderr.isTTY) say(line)
}

function say(line: string): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6)
  console.log(`${styleText('dim', `${seconds} s`)}  ${line}`)
}

/** Prints the name of a step, runs it, and prints how long it took. */
async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const before = performance.now()
  say(styleText('bold', what))
  const result = await work()
  say(`${what}: ${((performance.now() - before) / 1000).toFixed(1)} s`)
  return result
}

async function demo(cluster: Cluster, options: { keep: boolean; compare: boolean }): Promise<void> {
  const kubectl = await kubectlFor(cluster, onProgress)
  await step('build and import images', () => importImages(cluster))
  await step('helm install charts/scmoe', () => installChart(cluster))
  await makeNamespace(kubectl, NAMESPACE)

  say(styleText('bold', `kubectl apply -n ${NAMESPACE} -f ${EXAMPLE}`))
  await kubectl('apply', '-n', NAMESPACE, '-f', join(ROOT, EXAMPLE))
  const job: Job = await followJob(kubectl, NAMESPACE, 'moby-dick', say)
  say(lossLine(job))
  say(speedLine(job))
  for (const line of await saveOutput(cluster, kubectl, { namespace: NAMESPACE, job })) say(line)

  if (options.compare) for (const line of await compareSchedules(kubectl, NAMESPACE, say)) say(line)
  if (options.keep) {
    say(`kept: export KUBECONFIG=${cluster.kubeconfig}`)
    say('end it with: npm run demo:down')
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      keep: { type: 'boolean', default: false },
      down: { type: 'boolean', default: false },
      'only-training': { type: 'boolean', default: false },
      provider: { type: 'string', default: 'auto' },
    },
  })
  const stateDir = defaultStateDir('node')
  if (values.down) {
    say((await down(stateDir)) ? 'the demo cluster is gone' : 'there is no demo cluster')
    return
  }
  const lifetime = values.keep ? 'detached' : 'process'
  const provider = values.provider as ProviderName | 'auto'
  const cluster = await step('start Kubernetes', () => up({ stateDir, lifetime, provider, onProgress }))
  const end = async (): Promise<void> => {
    if (values.keep || provider === 'existing') return
    await step('end Kubernetes', () => cluster.down())
    if (existsSync(stateDir)) rmSync(stateDir, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void end().finally(() => process.exit(130)))
  }
  try {
    await demo(cluster, { keep: values.keep, compare: !values['only-training'] })
  } finally {
    await end()
  }
}

await main().catch((error: unknown) => {
  say(styleText('red', error instanceof Error ? error.message : String(error)))
  process.exitCode = 1
})
