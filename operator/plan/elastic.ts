// Decides about the size of a gang: smaller if there is no room for all workers, larger if there is
// room again, and as `workers.replicas` says if that was changed. Each time the gang starts again
// from the last checkpoint.

import { LABEL } from '../../crds/contract.ts'
import { ranksPerWorker } from '../../crds/ranks.ts'
import { brokenRules } from '../../crds/rules.ts'
import { isOwnedBy } from '../objects/owned.ts'
import { isStopping, outcomeOf, scheduledTime } from '../objects/pod-state.ts'
import { type Pod, podName } from '../objects/wire.ts'
import { pod as podOf } from '../objects/workers.ts'
import { type Action, type Decision, deletions, type Policy } from './decision.ts'
import { earliest, instant, isPast, timestamp } from './time.ts'
import type { View } from './view.ts'

/**
 * Sizes from minReplicas to the number of workers asked for, smallest first. Sizes among which the
 * model or the batch cannot be divided are left out.
 */
export function validSizes({ spec, wanted, name }: Pick<View, 'spec' | 'wanted' | 'name'>): number[] {
  const { minReplicas = wanted } = spec.workers
  const fits = (replicas: number) => brokenRules({ ...spec, workers: { ...spec.workers, replicas } }, name).length === 0
  return Array.from({ length: wanted - minReplicas + 1 }, (_, i) => minReplicas + i).filter(fits)
}

/**
 * The next smaller size for a gang of which `held` workers got nodes in time: the largest one that
 * fits on these nodes, otherwise the smallest of all. Undefined if the gang cannot be smaller.
 */
export function smallerSize(view: View, held: number): number | undefined {
  if (view.spec.workers.minReplicas === undefined) return undefined
  const sizes = validSizes(view).filter(size => size < view.gang.length)
  // If no worker has a node, the scheduler may place all or none, and one worker less may fit.
  return held === 0 ? sizes.at(-1) : (sizes.findLast(size => size <= held) ?? sizes[0])
}

/** Until when no larger gang is tried, so that nodes just given back are not asked for at once. */
export const resizePause = ({ now, spec }: View): string => timestamp(now + spec.scheduling.timeoutSeconds * 1000)

/** `workers.replicas` was made smaller, for example by `kubectl scale`. */
export const scaledDown: Policy = view => {
  const size = view.gang.length
  if (!view.created || view.wanted >= size) return undefined
  return {
    state: 'Restarting',
    reason: 'ScaledDown',
    message: `workers.replicas is now ${view.wanted}: the gang of ${size} starts again with ${view.wanted} from the last checkpoint`,
    changes: { attempt: view.attempt + 1, size: view.wanted },
  }
}

/** The probes of a gang (see view.ts), and those that are of no use any more. */
function probesOf(view: View): { probes: Pod[]; stale: Pod[] } {
  const isNext = ({ metadata: { labels } }: Pod) => labels?.[LABEL.attempt] === String(view.attempt + 1)
  const next = view.others.filter(pod => isOwnedBy(pod, view.uid) && isNext(pod) && !isStopping(pod))
  const ranks = String(view.wanted * ranksPerWorker(view.spec))
  const isProbe = (pod: Pod) =>
    grows(view) && pod.metadata.labels?.[LABEL.worldSize] === ranks && outcomeOf(pod) === 'active'
  return { probes: next.filter(isProbe), stale: next.filter(pod => !isProbe(pod)) }
}

/**
 * Whether the gang looks for room to grow. Scheduling providers place whole gangs only, so with one
 * of them probes would never get nodes.
 */
const grows = (view: View): boolean =>
  view.wanted > view.gang.length && view.scheduler.provider === 'none' && view.status.state === 'Running'

const probesEnd = (probes: readonly Pod[], { spec }: View): number | undefined => {
  const first = earliest(probes.map(pod => instant(scheduledTime(pod))))
  return first === undefined ? undefined : first + spec.scheduling.timeoutSeconds * 1000
}

/** A probe that runs has a node, and the node has its image. */
const isStarted = ({ status }: Pod): boolean => status?.phase === 'Running'

/**
 * There is room for a larger gang: for all workers that were asked for, or for some of them if the
 * others do not get nodes in time.
 */
export const grown: Policy = view => {
  if (!grows(view)) return undefined
  const { probes } = probesOf(view)
  const size = view.gang.length
  const held = probes.filter(isStarted).length
  const isLate = isPast(probesEnd(probes, view), view.now)
  const larger = held === view.wanted - size ? view.wanted : isLate ? sizeWithin(view, size + held) : undefined
  if (larger === undefined) return undefined
  return {
    state: 'Restarting',
    reason: 'ScaledUp',
    message: `there are nodes for ${larger} workers, ${size} until now: the gang starts again with ${larger} from the last checkpoint`,
    changes: { attempt: view.attempt + 2, size: larger, nextResizeTime: resizePause(view) },
  }
}

const sizeWithin = (view: View, room: number): number | undefined =>
  validSizes(view).findLast(size => size <= room && size > view.gang.length)

/** Changes of a gang that goes on running: creates probes, or deletes those that are useless. */
export function growth(view: View): Pick<Decision, 'actions' | 'changes' | 'requeueAt'> {
  const { probes, stale } = probesOf(view)
  const end = probesEnd(probes, view)
  if (stale.length > 0 || isPast(end, view.now)) {
    const actions = deletions([...stale, ...probes], 'it found no room for a larger gang')
    return { actions, changes: { nextResizeTime: resizePause(view) } }
  }
  if (view.wanted <= view.gang.length) return { changes: { nextResizeTime: null } }
  if (!grows(view)) return {}
  const next = instant(view.status.nextResizeTime)
  if (next !== undefined && view.now < next) return { requeueAt: next }
  return { actions: missingProbes(view), ...(end === undefined ? {} : { requeueAt: end }) }
}

function missingProbes(view: View): Action[] {
  const spec = { ...view.spec, workers: { ...view.spec.workers, replicas: view.wanted } }
  const larger = { ...view, spec, attempt: view.attempt + 1 }
  return (
    Array.from({ length: view.wanted - view.gang.length }, (_, i) => view.gang.length + i)
      // The name is taken while the pod exists, even if it was told to stop.
      .filter(worker => !view.others.some(({ metadata }) => metadata.name === podName(view.name, worker)))
      .map((worker): Action => ({ kind: 'create', object: podOf(larger, worker) }))
  )
}
