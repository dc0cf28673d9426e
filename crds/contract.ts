// The contract between operator and worker: environment, ports, labels, exit codes, the progress
// record and the termination record. Both sides validate what they read with these schemas.

import { z } from 'zod'

export const GROUP = 'scmoe.dev'
export const VERSION = 'v1alpha1'
export const KIND = 'ScMoEJob'
export const PLURAL = 'scmoejobs'
export const API_VERSION = `${GROUP}/${VERSION}`
export const CONTROLLER = 'scmoe.dev/controller'

/** Field owners in server-side apply. */
export const OWNER_CONTROLLER = 'scmoe-controller'
export const OWNER_PROGRESS = 'scmoe-progress'

export const LABEL = {
  jobName: 'scmoe.dev/job-name',
  jobUid: 'scmoe.dev/job-uid',
  attempt: 'scmoe.dev/attempt',
  /** The pod's first rank. */
  rank: 'scmoe.dev/rank',
  /** Number of ranks of the gang that the pod was created for. */
  worldSize: 'scmoe.dev/world-size',
  /** training.steps when the pod was created. */
  steps: 'scmoe.dev/steps',
} as const

/** Environment of a worker process. All values are strings. */
export const ENV = {
  jobName: 'SCMOE_JOB_NAME',
  jobUid: 'SCMOE_JOB_UID',
  attempt: 'SCMOE_ATTEMPT',
  rank: 'SCMOE_RANK',
  worldSize: 'SCMOE_WORLD_SIZE',
  /** host:port on which rank 0 listens for the other ranks. */
  rendezvous: 'SCMOE_RENDEZVOUS',
  /**
   * Random text of at least MIN_SECRET characters, the same for all workers of a job. By it they
   * know each other; a single rank needs none.
   */
  secret: 'SCMOE_SECRET',
  /** The job's `spec` as JSON, without the pod template. */
  spec: 'SCMOE_SPEC',
  /** Folder for checkpoints and the trace. Without it neither is written. */
  outputDirectory: 'SCMOE_OUTPUT_DIRECTORY',
  httpPort: 'SCMOE_HTTP_PORT',
  computeThreads: 'SCMOE_COMPUTE_THREADS',
  terminationLog: 'SCMOE_TERMINATION_LOG',
  dataDirectory: 'SCMOE_DATA_DIRECTORY',
  /** `cpu` (default) or `cuda`. */
  backend: 'SCMOE_BACKEND',
  /**
   * Number of ranks of this pod, the first of which is SCMOE_RANK. If there is more than one, the
   * process starts a process for each rank and is no rank itself.
   */
  localWorldSize: 'SCMOE_LOCAL_WORLD_SIZE',
  /** The rank's number within its pod, which is also the number of its GPU. */
  localRank: 'SCMOE_LOCAL_RANK',
} as const

/** The port of HTTP if the job names no other (network.httpPort). */
export const PORT = { http: 8080 } as const
export const CONTAINER = 'worker'
/** Length of the shortest ENV.secret. */
export const MIN_SECRET = 32
export const OUTPUT_DIRECTORY = '/output'
/** File of the output folder with the job that wrote it. */
export const JOB_COPY = 'job.json'

/**
 * Exit codes of a worker. A `permanent` code fails the job at once, the others restart the gang.
 */
export const EXIT = {
  ok: { code: 0, permanent: false, meaning: 'all steps done' },
  badConfig: { code: 64, permanent: true, meaning: 'the job or the environment cannot be used' },
  badData: { code: 65, permanent: true, meaning: 'the data cannot be read or is too short' },
  outOfMemory: { code: 66, permanent: true, meaning: 'the plan does not fit into memory' },
  diverged: { code: 67, permanent: true, meaning: 'the loss or the gradient is no longer a finite number' },
  deviceMissing: { code: 69, permanent: true, meaning: 'the GPU, its driver, the CUDA library or NCCL is missing' },
  internal: { code: 70, permanent: false, meaning: 'a defect in the worker' },
  portInUse: { code: 71, permanent: false, meaning: 'a port the worker listens on is taken' },
  deviceFailed: { code: 72, permanent: false, meaning: 'the GPU, its driver or NCCL reported an error' },
  checkpoint: { code: 73, permanent: false, meaning: 'a checkpoint could not be written' },
  rendezvous: { code: 74, permanent: false, meaning: 'the ranks did not find each other in time' },
  peerLost: { code: 75, permanent: false, meaning: 'another rank died or stopped answering' },
  terminated: {
    code: 143,
    permanent: false,
    meaning: 'told to stop (SIGTERM); a checkpoint was written if the job has any',
  },
} as const

const count = z.int().min(0)
/**
 * Characters that a terminal obeys or that change the order of what it shows: controls except tabs
 * and ends of lines, the controls of Latin-1, separators, and marks of writing direction.
 */
// oxlint-disable-next-line no-control-regex -- these are what is looked for
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

/**
 * The text with each such character written out, e.g. `\u001b` for escape. In a JSON text this is
 * the same string, so JSON stays what it was.
 */
export const plainText = (text: string): string =>
  text
    .replaceAll('\r\n', '\n')
    .replace(OBEYED, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** A worker's words, which end in statuses and on terminals. */
const words = (most: number) => z.string().max(most).transform(plainText)

/**
 * The answer to `GET /progress` on rank 0, and a part of the container's termination message.
 * Numbers are integers with the unit in the name. /
 */
export const Progress = z.object({
  jobUid: z.string().max(64),
  attempt: count,
  rank: count,
  step: count,
  totalSteps: count,
  lossMilli: z.int().optional(),
  initialLossMilli: z.int().optional(),
  evaluationLossMilli: z.int().optional(),
  /** Steps done when evaluationLossMilli was measured. */
  evaluationStep: count.optional(),
  initialEvaluationLossMilli: z.int().optional(),
  tokensPerSecond: count.optional(),
  stepTimeMilliseconds: count.optional(),
  /** Time of the all-to-alls in one step. */
  communicationMilliseconds: count.optional(),
  /** 100 * (1 - time that compute waits for all-to-alls / time of the all-to-alls). */
  overlapPercent: z.int().min(0).max(100).optional(),
  /**
   * Time of the all-to-alls in percent of the MoE layers' time, from gate to decode. In a
   * sequential schedule this is what another schedule could hide. /
   */
  communicationShareOfMoePercent: z.int().min(0).max(100).optional(),
  /** For example `shortcut K=3, backward K=2, 1 chunk`. */
  schedule: words(128).optional(),
  estimatedRemainingSeconds: count.optional(),
  lastCheckpointStep: count.optional(),
  /** RFC 3339, UTC. */
  lastCheckpointTime: z.iso.datetime().optional(),
  observedTime: z.iso.datetime(),
})
export type Progress = z.infer<typeof Progress>

export const Failure = z.object({
  rank: count,
  /** A key of EXIT. */
  reason: words(64),
  op: words(128).optional(),
  peer: count.optional(),
  message: words(1024),
})
export type Failure = z.infer<typeof Failure>

/** The container's termination message, of which Kubernetes keeps 4096 bytes. */
export const TerminationRecord = z.object({ progress: Progress.optional(), failure: Failure.optional() })
export type TerminationRecord = z.infer<typeof TerminationRecord>

/** A longer answer to `/progress` is not read. */
export const PROGRESS_MAX_BYTES = 65_536
