#!/usr/bin/env node
// The command line of the cluster: node tools/cluster/main.ts --help

import { existsSync } from 'node:fs'
import { Command, Option } from 'commander'
import { down, kubeconfigPath, status, up } from './cluster.ts'
import { helm } from './helm.ts'
import { binaries, type Progress } from './programs/binaries.ts'
import { API_BINARIES, NODE_BINARIES } from './programs/modules.ts'
import type { ProviderName } from './provider.ts'
import { defaultStateDir } from './state.ts'

type StateOptions = { state?: string; apiOnly?: true }
type UpOptions = StateOptions & { provider: ProviderName | 'auto' }

const started = performance.now()
let replaceable = false

/**
 * On a terminal an update replaces the line before it; elsewhere only the first and the last line
 * of a step are printed.
 */
const onProgress: Progress = (line, update = false) => {
  const { isTTY } = process.stderr
  if (!isTTY && update && !line.endsWith('done')) return
  const rewind = isTTY && update && replaceable ? '\u001B[1A\u001B[2K' : ''
  process.stderr.write(`${rewind}${line}\n`)
  replaceable = update || line.endsWith('…')
}

const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`

const stateOf = (options: StateOptions): string => options.state ?? defaultStateDir(options.apiOnly ? 'api' : 'node')

const program = new Command('cluster')
  .description('Starts and ends a Kubernetes cluster for the demo and the tests, also without Docker.')
  .configureHelp({ showGlobalOptions: true })
  .showHelpAfterError()

const command = (name: string, description: string): Command =>
  program
    .command(name)
    .description(description)
    .option('--state <dir>', 'folder of everything the cluster writes; each folder is a cluster of its own')
    .option('--api-only', 'only etcd and an API server: needs no root, runs no pods')

command('up', 'start a cluster unless it is running already')
  .addOption(
    new Option(
      '--provider <name>',
      'existing: the cluster of KUBECONFIG; kind: needs Docker; embedded: needs no Docker; auto: kind if possible',
    )
      .choices(['auto', 'existing', 'kind', 'embedded'])
      .default('auto'),
  )
  .action(async (options: UpOptions) => {
    const cluster = await up({
      mode: options.apiOnly ? 'api' : 'node',
      provider: options.provider,
      stateDir: stateOf(options),
      lifetime: 'detached',
      onProgress: (line, update) => onProgress(update ? line : `${seconds().padStart(7)}  ${line}`, update),
    })
    onProgress(
      `${seconds().padStart(7)}  ${cluster.provider} cluster is up; now: export KUBECONFIG=${cluster.kubeconfig}`,
    )
  })

command('down', 'end the cluster and remove every trace of it').action(async (options: StateOptions) => {
  const found = await down(stateOf(options))
  onProgress(found ? `down after ${seconds()}` : `no cluster in ${stateOf(options)}`)
})

command('status', 'say what runs; exit code 1 unless it is healthy').action(async (options: StateOptions) => {
  const found = await status(stateOf(options))
  for (const line of found?.details ?? [`no cluster in ${stateOf(options)}`]) console.log(line)
  if (!found?.healthy) process.exitCode = 1
})

command('kubeconfig', 'print the path of the kubeconfig; exit code 1 if there is none').action(
  (options: StateOptions) => {
    const path = kubeconfigPath(stateOf(options))
    if (existsSync(path)) console.log(path)
    else program.error(`no cluster in ${stateOf(options)}; start one with 'up'`)
  },
)

program
  .command('build')
  .description('only build the programs into the cache (once, about 7 minutes on two cores)')
  .option('--api-only', 'build only etcd and the API server')
  .action(async (options: { apiOnly?: true }) => {
    const paths = await binaries(options.apiOnly ? API_BINARIES : NODE_BINARIES, onProgress)
    for (const path of Object.values(paths)) console.log(path)
  })

program
  .command('helm')
  .description('print the path of a Helm program, which is fetched or built at the first call')
  .addOption(new Option('--major <version>', 'Helm 4, or the last Helm 3').choices(['3', '4']).default('4'))
  .action(async (options: { major: '3' | '4' }) => console.log(await helm(options.major, onProgress)))

try {
  await program.parseAsync()
} catch (error) {
  console.error(`cluster: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
