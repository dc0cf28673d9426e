// The part of a job's spec that says how long things may take, what happens when they fail, and what is left at the end.

import { z } from 'zod'

/** A week: what takes longer is better left without a deadline. */
export const LONGEST_DEADLINE = 604_800
const YEAR = 31_536_000

const FailureRule = z
  .strictObject({
    action: z
      .enum(['FailJob', 'RestartJob', 'RestartJobIgnoreMaxRestarts'])
      .describe(
        'FailJob: no restart; RestartJob: a restart that counts; RestartJobIgnoreMaxRestarts: one that does not.',
      ),
    onExitCodes: z
      .strictObject({
        operator: z.enum(['In', 'NotIn']).describe('Whether the exit code has to be one of values, or none of them.'),
        values: z
          .array(z.int().min(1).max(255).describe('An exit code.'))
          .min(1)
          .max(255)
          .describe('Exit codes of the worker container.'),
      })
      .optional()
      .describe('Fits a worker that ended by itself, by its exit code.'),
    onPodConditions: z
      .array(
        z.strictObject({
          type: z.string().min(1).max(316).describe('Type of the condition, e.g. DisruptionTarget.'),
          status: z.enum(['True', 'False', 'Unknown']).default('True').describe('Its status.'),
        }),
      )
      .min(1)
      .max(20)
      .optional()
      .describe('Fits a pod that has one of these conditions.'),
  })
  .describe('What to do about one kind of failure; has either onExitCodes or onPodConditions.')

const FailurePolicy = z
  .strictObject({
    maxRestarts: z.int().min(0).max(1000).default(3).describe('Restarts that count before the job fails.'),
    backoff: z
      .strictObject({
        initialSeconds: z.int().min(1).max(3600).default(10).describe('Delay before the first restart.'),
        maxSeconds: z.int().min(1).max(86_400).default(300).describe('The longest delay.'),
        resetAfterSeconds: z
          .int()
          .min(1)
          .max(LONGEST_DEADLINE)
          .default(3600)
          .describe('A gang that ran for this long starts again with initialSeconds.'),
      })
      .prefault({})
      .describe('Delay before a restart: initialSeconds, doubled with each, at most maxSeconds.'),
    rules: z
      .array(FailureRule)
      .max(20)
      .optional()
      .describe(
        'Asked in order about the pod that failed first; the first that fits decides. Without one: exit codes 64 to 69 fail the job, eviction, preemption and node drain do not count, anything else is a restart that counts.',
      ),
  })
  .describe('What happens when a worker fails: the whole gang restarts from the last checkpoint.')

/** Fields of the spec. */
export const LIFE_CYCLE = {
  failurePolicy: FailurePolicy.prefault({}),
  startupDeadlineSeconds: z
    .int()
    .min(1)
    .max(LONGEST_DEADLINE)
    .default(1800)
    .describe(
      'How long after the first worker got its node all of them have to be ready; a later gang counts as failed.',
    ),
  progressDeadlineSeconds: z
    .int()
    .min(10)
    .max(LONGEST_DEADLINE)
    .default(600)
    .describe(
      'How long the gang may run without finishing a step before it counts as failed; after half of it the job is Stalled.',
    ),
  activeDeadlineSeconds: z
    .int()
    .min(1)
    .max(YEAR)
    .optional()
    .describe('How long the job may take, from status.startTime, restarts included; then it is Failed.'),
  podTerminationTimeoutSeconds: z
    .int()
    .min(0)
    .max(LONGEST_DEADLINE)
    .optional()
    .describe(
      'How long after its grace period a pod that does not end is deleted by force, so that the gang can be made again while a node is lost. Default: never, as on a node that only lost its network the old worker may still run.',
    ),
  cleanPodPolicy: z
    .enum(['Running', 'All', 'None'])
    .default('Running')
    .describe(
      'Pods that are deleted when the job is finished: those that still run, all, or none. Logs go with their pods.',
    ),
  ttlSecondsAfterFinished: z
    .int()
    .min(0)
    .max(YEAR)
    .optional()
    .describe('How long after status.completionTime the job is deleted, with all that is left of it. Default: never.'),
}
