// Decides whether the workers did what the job asks for, from their own records. `training.steps`
// may have been raised since they were told how many steps to do.

import { LABEL } from '../../../crds/contract.ts'
import { isStopping, outcomeOf, terminationRecord, workerEnd } from '../../objects/pod-state.ts'
import type { Pod } from '../../objects/wire.ts'
import type { Policy } from '../decision.ts'
import { lastSeen, type PodFailure } from '../gang.ts'
import { instant, timestamp } from '../time.ts'
import type { View } from '../view.ts'

/** The steps that a worker did, and those that it was told to do, if its pod or record says so. */
type Steps = { done: number | undefined; told: number | undefined }

/** A record of another job or attempt says nothing about this one. */
function stepsOf(view: View, pod: Pod): Steps {
  const record = terminationRecord(pod)?.progress
  const isOurs = record?.jobUid === view.uid && record.attempt === view.attempt
  const label = pod.metadata.labels?.[LABEL.steps]
  return {
    done: isOurs ? record.step : undefined,
    told: label === undefined ? (isOurs ? record.totalSteps : undefined) : Number(label),
  }
}

const workersOf = (view: View): (Pod | undefined)[] => view.gang.map((_, worker) => lastSeen(view, worker))

/** All workers did the steps that the job asks for at this moment. */
export const succeeded: Policy = view => {
  const { steps } = view.spec.training
  const done = workersOf(view).map(pod =>
    pod !== undefined && outcomeOf(pod) === 'succeeded' ? (stepsOf(view, pod).done ?? -1) : -1,
  )
  const reached = Math.min(...done)
  if (reached < steps) return undefined
  const who = done.length === 1 ? 'the worker' : `all ${done.length} workers`
  const more = reached > steps ? `, past the ${steps} that were asked for: the checkpoint was newer` : ''
  return {
    state: 'Complete',
    reason: 'AllWorkersSucceeded',
    message: `${who} reached step ${reached}${more}`,
    changes: { completionTime: timestamp(view.now), nextRestartTime: null },
  }
}

/**
 * `training.steps` was raised after workers of this attempt were told how many steps to do. They
 * save a checkpoint when they are stopped, and the next attempt goes on from it.
 */
export const raised: Policy = view => {
  const { steps } = view.spec.training
  const told = workersOf(view).flatMap(pod => (pod === undefined ? [] : (stepsOf(view, pod).told ?? [])))
  const least = Math.min(...told)
  if (least >= steps) return undefined
  const from = view.spec.checkpoint === undefined ? 'the beginning: the job has no checkpoint' : 'its last checkpoint'
  return {
    state: 'Restarting',
    reason: 'StepsRaised',
    message: `training.steps was raised from ${least} to ${steps}: the gang starts again from ${from}`,
    changes: { attempt: view.attempt + 1 },
  }
}

/**
 * A worker that ended with exit code 0 without having done its steps, as its record says, or
 * without a record. A container that runs something else ends like this.
 */
export function unfinished(view: View): PodFailure | undefined {
  for (const [worker, pod] of view.gang.entries()) {
    if (pod === undefined || isStopping(pod) || outcomeOf(pod) !== 'succeeded') continue
    const { done, told } = stepsOf(view, pod)
    if (done !== undefined && (told === undefined || done >= told)) continue
    return {
      act: 'worker',
      counts: true,
      byItself: true,
      verb: 'ended too early',
      worker,
      podName: pod.metadata.name,
      nodeName: pod.spec?.nodeName,
      exitCode: 0,
      reason: 'StepsNotDone',
      message:
        done === undefined
          ? 'the worker container ended with exit code 0, but left no record of its steps: check that image and command of the template run the worker'
          : `the worker container ended with exit code 0 after step ${done} of ${told}`,
      permanent: false,
      conditions: pod.status?.conditions,
      attributedTo: 'self',
      at: instant(workerEnd(pod)?.finishedAt) ?? view.now,
    }
  }
  return undefined
}
