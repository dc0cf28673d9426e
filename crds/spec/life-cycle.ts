// Fields of the spec that say how long things may take, what happens after a failure, and what
// stays at the end.

import { z } from 'zod'

/** A week. For anything longer a user had better set no deadline. */
export const LONGEST_DEADLINE = 604_800
const YEAR = 31_536_000

const FailureRule = z
  .strictObject({
    action: z
      .enum(['FailJob', 'RestartJob', 'RestartJobIgnoreMaxRestarts'])
      .describe(
        'FailJob: no restart. RestartJob: a restart that counts towards maxRestarts. RestartJobIgnoreMaxRestarts: a restart that does not count.',
      ),
    onExitCodes: z
      .strictObject({
        operator: z
          .enum(['In', 'NotIn'])
          .describe('In: the exit code has to be one of values. NotIn: it has to be none of them.'),
        values: z
          .array(z.int().min(1).max(255).describe('An exit code.'))
          .min(1)
          .max(255)
          .describe('Exit codes of the container.'),
        containerName: z
          .string()
          .min(1)
          .max(63)
          .optional()
          .describe('The container whose exit code is meant: an init container of the template. Default: the worker.'),
      })
      .optional()
      .describe('Matches a container that ended by itself, by its exit code.'),
    onPodConditions: z
      .array(
        z.strictObject({
          type: z.string().min(1).max(316).describe('Type of the condition, e.g. DisruptionTarget.'),
          status: z.enum(['True', 'False', 'Unknown']).default('True').describe('Status of the condition.'),
        }),
      )
      .min(1)
      .max(20)
      .optional()
      .describe(
        'Matches a pod that has one of these conditions. Every pod that was taken away counts as DisruptionTarget.',
      ),
  })
  .describe('What to do about one kind of failure. Has either onExitCodes or onPodConditions.')

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
          .describe('After a gang has run for this long, the delay starts again at initialSeconds.'),
      })
      .prefault({})
      .describe('Delay before a restart: initialSeconds, doubled with each restart, at most maxSeconds.'),
    rules: z
      .array(FailureRule)
      .max(20)
      .optional()
      .describe(
        'Rules that are asked in order about the pod that failed first; the first rule that matches decides. If none matches, exit codes 64 to 69 of the worker fail the job, a restart after a pod was taken away (deleted, evicted, preempted, refused or lost by its node) does not count, and any other restart counts.',
      ),
  })
  .describe('What happens when a worker fails. The whole gang restarts from the last checkpoint.')

/** The fields, to be spread into the spec. */
export const LIFE_CYCLE = {
  failurePolicy: FailurePolicy.prefault({}),
  startupDeadlineSeconds: z
    .int()
    .min(1)
    .max(LONGEST_DEADLINE)
    .default(1800)
    .describe(
      'Time from the moment the first worker gets its node until all workers have to be ready. A gang that takes longer has failed.',
    ),
  progressDeadlineSeconds: z
    .int()
    .min(10)
    .max(LONGEST_DEADLINE)
    .default(600)
    .describe(
      'How long the gang may run without finishing a step before it has failed. After half of this time the job is Stalled.',
    ),
  activeDeadlineSeconds: z
    .int()
    .min(1)
    .max(YEAR)
    .optional()
    .describe(
      'How long the job may take from status.startTime on, restarts included. It then fails. Default: no limit.',
    ),
  podTerminationTimeoutSeconds: z
    .int()
    .min(0)
    .max(LONGEST_DEADLINE)
    .optional()
    .describe(
      'How long after its grace period a pod that does not end is deleted by force, so that the gang can be created again while a node is lost. Default: never, because on a node that only lost its network the old worker may still run.',
    ),
  cleanPodPolicy: z
    .enum(['Running', 'All', 'None'])
    .default('Running')
    .describe(
      'Pods that are deleted when the job is finished. Running: pods that still run. The log of a pod is deleted with it.',
    ),
  ttlSecondsAfterFinished: z
    .int()
    .min(0)
    .max(YEAR)
    .optional()
    .describe('How long after status.completionTime the job and everything it owns are deleted. Default: never.'),
}
