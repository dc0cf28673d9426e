#!/usr/bin/env node
// Starts the operator: flags, logs, metrics and health, caches, election, control loop.

import { setTimeout as sleep } from 'node:timers/promises'
import { Elector } from './api/elector.ts'
import { messageOf, Unusable } from './api/errors.ts'
import { Controller } from './controller.ts'
import { LEASE } from './objects/permissions.ts'
import { type Options, parseOptions } from './options.ts'
import { type Logger, makeLogger, metrics, serveHealth, serveMetrics } from './telemetry.ts'

const given = parseOptions(process.argv.slice(2))
const log = makeLogger(given.logLevel)
process.once('uncaughtException', error => {
  log.fatal({ error: messageOf(error), stack: error.stack }, 'defect in the operator')
  process.exit(1)
})
async function main({ healthPort, metricsPort, ...rest }: Options, logger: Logger): Promise<number> {
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort(new Error(signal)))

  const elector = rest.leaderElect ? electorOf(rest, logger) : undefined
  const writeBudget = () => elector?.remaining ?? Number.POSITIVE_INFINITY
  const controller = new Controller({ healthPort, metricsPort, ...rest }, logger, writeBudget)
  await serveHealth(healthPort, () => controller.synced)
  await serveMetrics(metricsPort, () => controller.snapshot())

  const missing = await controller.missing()
  if (missing !== undefined) {
    logger.fatal(missing)
    return 1
  }
  const watching = controller.watch(stop.signal)
  while (!controller.synced && !stop.signal.aborted) await sleep(50)
  if (controller.synced) {
    logger.info({ identity: rest.identity }, 'caches are full')
    const kept =
      elector === undefined
        ? await acting(rest, controller, stop.signal)
        : await elected(rest, { controller, elector, logger }, stop.signal)
    if (!kept) return 1
  }
  stop.abort()
  await watching
  return 0
}

/** Acts until `signal` fires. The work under way then gets `shutdownSeconds` to finish. */
async function acting(
  { shutdownSeconds }: Pick<Options, 'shutdownSeconds'>,
  controller: Controller,
  signal: AbortSignal,
): Promise<true> {
  // If the signal has already fired, an 'abort' listener added now would never run.
  if (signal.aborted) return true
  const work = controller.lead(signal)
  await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
  await Promise.race([work, sleep(shutdownSeconds * 1000)])
  return true
}

function electorOf(options: Omit<Options, 'healthPort' | 'metricsPort'>, logger: Logger): Elector {
  const { kubeconfig, identity, leaseSeconds, leaderElectionNamespace: namespace } = options
  const onProblem = (problem: string) => logger.warn({ problem }, 'leader election')
  const { apiRequest: onRequest } = metrics
  return Elector.connect({ kubeconfig, namespace, name: LEASE, identity, leaseSeconds, onProblem, onRequest })
}

/**
 * Acts while this replica holds the Lease. Returns false if the Lease is lost. Another replica may
 * act by then, so the work under way is not waited for.
 */
async function elected(
  options: Omit<Options, 'healthPort' | 'metricsPort'>,
  { controller, elector, logger }: { controller: Controller; elector: Elector; logger: Logger },
  signal: AbortSignal,
): Promise<boolean> {
  const { identity } = options
  metrics.leader(LEASE, false)
  if (!(await elector.acquire(signal))) return true
  metrics.leader(LEASE, true)
  logger.info({ identity }, 'leads')
  const work = acting(options, controller, signal)
  if (!(await elector.keep(signal))) {
    logger.error({ identity }, 'the lease is lost; exiting, so that there is only one leader')
    return false
  }
  await work
  await elector.release()
  return true
}

function unusable(error: unknown): number {
  if (!(error instanceof Unusable)) throw error
  log.fatal(error.message)
  return 1
}

process.exit(await main(given, log).catch(unusable))
