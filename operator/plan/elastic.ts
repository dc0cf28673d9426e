// A gang of another size: fewer workers where there is no room for all, more when there is, and as many as spec.workers.replicas
// says when that changes. Each time the gang starts again from the last checkpoint. Pure.

import { LABEL } from '../../crds/contract.ts'
import { ranksPerWorker } from '../../crds/ranks.ts'
import { brokenRules } from '../../crds/rules.ts'
import { type Pod, podName } from '../objects/wire.ts'
import { pod as podOf } from '../objects/workers.ts'
import { type Action, type Decision, deletions, earliest, instant, type Policy, timestamp } from './decision.ts'
import { isStopping, outcomeOf } from './gang.ts'
import { scheduledTime } from './trouble.ts'
import { isOwnedBy, type View } from './view.ts'

/** Sizes between minReplicas and what is asked for that the model and the batch can be divided by, smallest first. */
export function validSizes({ spec, wanted, name }: Pick<View, 'spec' | 'wanted' | 'name'>): number[] {
  const { minReplicas = wanted } = spec.workers
  const fits = (replicas: number) => brokenRules({ ...spec, workers: { ...spec.workers, replicas } }, name).length === 0
  return Array.from({ length: wanted - minReplicas + 1 }, (_, i) => minReplicas + i).filter(fits)
}

/** The next smaller gang to try when this one found `held` nodes in time: one that fits on them, else the least of all. */
export function smallerSize(view: View, held: number): number | undefined {
  if (view.spec.workers.minReplicas === undefined) return undefined
  const sizes = validSizes(view).filter(size => size < view.gang.length)
  // Where none has a node the scheduler places all or none: the next smaller gang may fit.
  return held === 0 ? sizes.at(-1) : (sizes.findLast(size => size <= held) ?? sizes[0])
}

/** Until when no larger gang is tried: what was just given back is not asked for again at once. */
export const resizePause = ({ now, spec }: View): string => timestamp(now + spec.scheduling.timeoutSeconds * 1000)

/** `kubectl scale` to fewer. To more is up to the nodes: see growth. */
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

/**
 * Pods that ask for the nodes of a larger gang while the present one goes on: only a scheduler knows whether there is room.
 * They carry the number of the next attempt, and are never part of a gang.
 */
function probesOf(view: View): { probes: Pod[]; stale: Pod[] } {
  const isNext = ({ metadata: { labels } }: Pod) => labels?.[LABEL.attempt] === String(view.attempt + 1)
  const next = view.others.filter(pod => isOwnedBy(pod, view.uid) && isNext(pod) && !isStopping(pod))
  const ranks = String(view.wanted * ranksPerWorker(view.spec))
  const isProbe = (pod: Pod) =>
    grows(view) && pod.metadata.labels?.[LABEL.worldSize] === ranks && outcomeOf(pod) === 'active'
  return { probes: next.filter(isProbe), stale: next.filter(pod => !isProbe(pod)) }
}

/** The other providers place pods by the gang: some of one are never placed. */
const grows = (view: View): boolean =>
  view.wanted > view.gang.length && view.scheduler.provider === 'none' && view.status.state === 'Running'

const probesEnd = (probes: readonly Pod[], { spec }: View): number | undefined => {
  const first = earliest(probes.map(pod => instant(scheduledTime(pod))))
  return first === undefined ? undefined : first + spec.scheduling.timeoutSeconds * 1000
}

/** Its node also has its image. */
const isStarted = ({ status }: Pod): boolean => status?.phase === 'Running'

/** There is room for more: for all that were asked for, or, when the others find none in time, for some. */
export const grown: Policy = view => {
  if (!grows(view)) return undefined
  const { probes } = probesOf(view)
  const size = view.gang.length
  const held = probes.filter(isStarted).length
  const late = view.now >= (probesEnd(probes, view) ?? Number.POSITIVE_INFINITY)
  const larger = held === view.wanted - size ? view.wanted : late ? sizeWithin(view, size + held) : undefined
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

/** What goes on beside a gang that is smaller than was asked for. */
export function growth(view: View): Pick<Decision, 'actions' | 'changes' | 'requeueAt'> {
  const { probes, stale } = probesOf(view)
  const end = probesEnd(probes, view)
  if (stale.length > 0 || (end !== undefined && view.now >= end)) {
    const actions = deletions([...stale, ...probes], 'it found no room for a larger gang')
    return { actions, changes: { nextResizeTime: resizePause(view) } }
  }
  if (view.wanted <= view.gang.length) return { changes: { nextResizeTime: null } }
  if (!grows(view)) return {}
  const next = instant(view.status.nextResizeTime)
  if (next !== undefined && view.now < next) return { requeueAt: next }
  const spec = { ...view.spec, workers: { ...view.spec.workers, replicas: view.wanted } }
  const larger = { ...view, spec, attempt: view.attempt + 1 }
  const actions = Array.from({ length: view.wanted - view.gang.length }, (_, i) => view.gang.length + i)
    // One that was told to stop has to be gone first.
    .filter(rank => !view.others.some(({ metadata }) => metadata.name === podName(view.name, rank)))
    .map((rank): Action => ({ kind: 'create', object: podOf(larger, rank) }))
  return { actions, ...(end === undefined ? {} : { requeueAt: end }) }
}
