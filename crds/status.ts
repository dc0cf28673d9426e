// The status of an ScMoEJob: one source for the CRD's status schema and for what the operator reads
// back. Numbers are integers with the unit in the name, and there is never a list with an entry for
// each rank. `progress`, `throughput` and `lastCheckpoint` belong to the field owner
// OWNER_PROGRESS, everything else to OWNER_CONTROLLER.

import { z } from 'zod'

const count = z.int().min(0)
/** RFC 3339, UTC, as Kubernetes writes times. */
const time = z.iso.datetime()

/** The word in the STATE column. */
export const State = z.enum([
  'Pending',
  'Queued',
  'Starting',
  'Running',
  'Stalled',
  'Restarting',
  'Suspended',
  'Complete',
  'Failed',
])
export type State = z.infer<typeof State>

/** Complete and Failed are terminal and exclude each other. */
export const ConditionType = z.enum([
  'Suspended',
  'WorkersReady',
  'Running',
  'Progressing',
  'Restarting',
  'Complete',
  'Failed',
  'Doubtful',
])
export type ConditionType = z.infer<typeof ConditionType>

const reason = z
  .string()
  .max(64)
  .regex(/^[A-Za-z][A-Za-z0-9_]*$/)

/** metav1.Condition. */
export const Condition = z.strictObject({
  type: z
    .string()
    .max(64)
    .regex(/^[A-Za-z]+$/)
    .describe('Name of the condition.'),
  status: z.enum(['True', 'False', 'Unknown']).describe('Whether the condition holds.'),
  observedGeneration: count.optional().describe('Generation of the spec that the condition was judged by.'),
  lastTransitionTime: time.describe('When status last changed.'),
  reason: reason.describe('Why, as one CamelCase word.'),
  message: z.string().max(1024).describe('Why, as a sentence.'),
})
export type Condition = z.infer<typeof Condition>

const WorkersStatus = z
  .strictObject({
    desired: count.describe(
      'Pods of this attempt that should exist. Fewer than spec.workers.replicas if there was no room for all; 0 while the job is suspended.',
    ),
    ready: count.describe('Pods of this attempt that are ready.'),
    active: count.describe('Pods of this attempt that have neither succeeded nor failed.'),
    succeeded: count.describe('Pods of this attempt that did all steps.'),
    failed: count.describe('Pods of this attempt that failed.'),
    selector: z.string().max(256).describe('Label selector of the pods, which the scale subresource needs.'),
  })
  .describe('Pods of the current attempt. Pods of an earlier attempt are never counted.')
export type WorkersStatus = z.infer<typeof WorkersStatus>

export const ProgressStatus = z
  .strictObject({
    step: count.describe('Optimizer steps done.'),
    totalSteps: count.describe('Optimizer steps asked for.'),
    percent: z.int().min(0).max(100).describe('100 * step / totalSteps, rounded down.'),
    lossMilli: z.int().optional().describe('Training loss in thousandths of a nat per token.'),
    initialLossMilli: z
      .int()
      .optional()
      .describe('Training loss of the first step, in thousandths of a nat per token.'),
    evaluationLossMilli: z.int().optional().describe('Loss on held-out text in thousandths of a nat per token.'),
    evaluationStep: count
      .optional()
      .describe('Steps that were done when evaluationLossMilli was measured, which may be long before `step`.'),
    initialEvaluationLossMilli: z.int().optional().describe('Loss on held-out text before the first step.'),
    estimatedRemainingSeconds: count.optional().describe('Remaining steps times the present time of a step.'),
    lastStepTime: time
      .optional()
      .describe('When `step` was first seen. progressDeadlineSeconds counts from this time.'),
  })
  .describe('How far training is, as rank 0 last reported.')
export type ProgressStatus = z.infer<typeof ProgressStatus>

export const ThroughputStatus = z
  .strictObject({
    tokensPerSecond: count.optional().describe('Tokens per second over all ranks.'),
    tokensPerSecondPerRank: count.optional().describe('Tokens per second of one rank.'),
    stepTimeMilliseconds: count.optional().describe('Time of one optimizer step.'),
    communicationMilliseconds: count.optional().describe('Time of the all-to-alls in one step.'),
    overlapPercent: z
      .int()
      .min(0)
      .max(100)
      .optional()
      .describe('Percent of the time of the all-to-alls that is hidden behind computation.'),
    communicationShareOfMoePercent: z
      .int()
      .min(0)
      .max(100)
      .optional()
      .describe("Time of the all-to-alls in percent of the MoE layers' time, from gate to decode."),
    schedule: z.string().max(128).optional().describe('The schedule in use, e.g. "shortcut K=3, 1 chunk".'),
    observedTime: time.describe('When the worker measured this. An old time means that the worker no longer answers.'),
  })
  .describe('How fast training is, as rank 0 last reported.')
export type ThroughputStatus = z.infer<typeof ThroughputStatus>

export const CheckpointStatus = z
  .strictObject({
    step: count.describe('Optimizer steps that were done when it was written.'),
    time: time.optional().describe('When the checkpoint was complete.'),
  })
  .describe('The newest complete checkpoint.')
export type CheckpointStatus = z.infer<typeof CheckpointStatus>

export const FailureStatus = z
  .strictObject({
    attempt: count.describe('Attempt that the failure ended.'),
    podName: z.string().max(253).describe('The pod that failed first.'),
    nodeName: z.string().max(253).optional().describe('Node that the pod ran on.'),
    container: z
      .string()
      .max(63)
      .optional()
      .describe('The container that ended, if it is not the worker, e.g. an init container.'),
    exitCode: z.int().min(-1).max(255).optional().describe('Exit code of the container that ended.'),
    reason: reason.describe('One word, e.g. internal, OOMKilled, PodDeleted.'),
    message: z.string().max(1024).describe("The worker's own message if it left one, otherwise what the operator saw."),
  })
  .describe(
    'The failure that ended the last failed attempt: the failure of the pod that failed first, not of the pods that ended with it.',
  )
export type FailureStatus = z.infer<typeof FailureStatus>

export const ScMoEJobStatus = z.strictObject({
  observedGeneration: count.optional().describe('Generation of the spec that this status answers.'),
  state: State.optional().describe('State of the job, in one word.'),
  reason: reason.optional().describe('Why the job is in this state, as one word, e.g. ImagePull or Unschedulable.'),
  message: z.string().max(1024).optional().describe('Why the job is in this state, as a sentence.'),
  conditions: z.array(Condition).max(16).optional().describe('Conditions, by type.'),
  startTime: time.optional().describe('When the first pods were created, or created again after a suspension.'),
  completionTime: time.optional().describe('When the job became Complete or Failed.'),
  restarts: count.optional().describe('Restarts of the gang so far.'),
  restartsCountTowardsMax: count.optional().describe('Restarts so far that count towards failurePolicy.maxRestarts.'),
  consecutiveRestarts: count
    .optional()
    .describe('Restarts since a gang last ran for backoff.resetAfterSeconds. Each of them doubles the delay.'),
  attempt: count.optional().describe('Number of the current gang of pods. It grows with each restart and resumption.'),
  nextRestartTime: time.optional().describe('When the next attempt may start.'),
  nextResizeTime: time
    .optional()
    .describe('Time until which a gang that is smaller than asked for does not try to grow.'),
  workers: WorkersStatus.optional(),
  progress: ProgressStatus.optional(),
  throughput: ThroughputStatus.optional(),
  lastCheckpoint: CheckpointStatus.optional(),
  lastFailure: FailureStatus.optional(),
})
export type ScMoEJobStatus = z.infer<typeof ScMoEJobStatus>
