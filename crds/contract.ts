// What operator and worker have agreed on: environment, ports, labels, exit codes, the progress and the termination record.
// Imports nothing of ours but the schema library; both sides validate what they read with it.

import { z } from 'zod'

export const GROUP = 'scmoe.dev'
export const VERSION = 'v1alpha1'
export const KIND = 'ScMoEJob'
export const PLURAL = 'scmoejobs'
export const API_VERSION = `${GROUP}/${VERSION}`
export const CONTROLLER = 'scmoe.dev/controller'

/** Field owners of server-side apply. */
export const OWNER_CONTROLLER = 'scmoe-controller'
export const OWNER_PROGRESS = 'scmoe-progress'

export const LABEL = {
  jobName: 'scmoe.dev/job-name',
  jobUid: 'scmoe.dev/job-uid',
  attempt: 'scmoe.dev/attempt',
  /** Of the pod's first rank. */
  rank: 'scmoe.dev/rank',
  /** Ranks of the gang that the pod was made for. */
  worldSize: 'scmoe.dev/world-size',
} as const

/** Environment of a worker process. All values are strings; SPEC is the job's `spec` as JSON, without the pod template. */
export const ENV = {
  jobName: 'SCMOE_JOB_NAME',
  jobUid: 'SCMOE_JOB_UID',
  attempt: 'SCMOE_ATTEMPT',
  rank: 'SCMOE_RANK',
  worldSize: 'SCMOE_WORLD_SIZE',
  /** host:port where rank 0 listens for the others. */
  rendezvous: 'SCMOE_RENDEZVOUS',
  spec: 'SCMOE_SPEC',
  /** Folder for checkpoints and the trace; absent: neither is written. */
  outputDirectory: 'SCMOE_OUTPUT_DIRECTORY',
  httpPort: 'SCMOE_HTTP_PORT',
  computeThreads: 'SCMOE_COMPUTE_THREADS',
  terminationLog: 'SCMOE_TERMINATION_LOG',
  dataDirectory: 'SCMOE_DATA_DIRECTORY',
  /** `cpu` (default) or `cuda`. */
  backend: 'SCMOE_BACKEND',
  /** Ranks of this pod, from SCMOE_RANK on. More than one: the process starts one for each and is none itself. */
  localWorldSize: 'SCMOE_LOCAL_WORLD_SIZE',
  /** Of one of those: its number within the pod, which is also that of its GPU. */
  localRank: 'SCMOE_LOCAL_RANK',
} as const

/** The ranks of one pod answer on ports in a row from `http` on, its first rank on `http`. */
export const PORT = { http: 8080 } as const
export const CONTAINER = 'worker'
export const OUTPUT_DIRECTORY = '/output'

/** Exit codes of a worker; `permanent` ones fail the job at once, the others restart the gang. */
export const EXIT = {
  ok: { code: 0, permanent: false, meaning: 'all steps done' },
  badConfig: { code: 64, permanent: true, meaning: 'the job spec or the environment is not usable' },
  badData: { code: 65, permanent: true, meaning: 'the data cannot be read or is too short' },
  outOfMemory: { code: 66, permanent: true, meaning: 'the plan does not fit into memory' },
  diverged: { code: 67, permanent: true, meaning: 'the loss or the gradient is no longer a finite number' },
  deviceMissing: { code: 69, permanent: true, meaning: 'no GPU, or not the driver, library or NCCL it needs' },
  internal: { code: 70, permanent: false, meaning: 'a defect in the worker' },
  portInUse: { code: 71, permanent: false, meaning: 'a port the worker listens on is taken' },
  deviceFailed: { code: 72, permanent: false, meaning: 'the GPU, its driver or NCCL reported an error' },
  checkpoint: { code: 73, permanent: false, meaning: 'a checkpoint could not be written' },
  rendezvous: { code: 74, permanent: false, meaning: 'the ranks did not find each other in time' },
  peerLost: { code: 75, permanent: false, meaning: 'another rank died or stopped answering' },
  terminated: {
    code: 143,
    permanent: false,
    meaning: 'told to stop (SIGTERM); a checkpoint was written where one is configured',
  },
} as const

const count = z.int().min(0)

/** `GET /progress` on rank 0, and (with `failure`) the container's termination message. All integers, units in the names. */
export const Progress = z.object({
  jobUid: z.string().max(64),
  attempt: count,
  rank: count,
  step: count,
  totalSteps: count,
  lossMilli: z.int().optional(),
  initialLossMilli: z.int().optional(),
  evaluationLossMilli: z.int().optional(),
  initialEvaluationLossMilli: z.int().optional(),
  tokensPerSecond: count.optional(),
  stepTimeMilliseconds: count.optional(),
  /** Time the all-to-alls took per step. */
  communicationMilliseconds: count.optional(),
  /** 100 * (1 - time compute waited for all-to-all / time all-to-all took). */
  overlapPercent: z.int().min(0).max(100).optional(),
  /** Time of the all-to-alls as a share of the MoE layers' time, gate to decode; of a sequential schedule: what could be hidden. */
  communicationShareOfMoePercent: z.int().min(0).max(100).optional(),
  /** e.g. `shortcut K=3, backward K=2, 1 chunk` */
  schedule: z.string().max(128).optional(),
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
  reason: z.string().max(64),
  op: z.string().max(128).optional(),
  peer: count.optional(),
  message: z.string().max(1024),
})
export type Failure = z.infer<typeof Failure>

/** Kubernetes keeps 4096 bytes of it. */
export const TerminationRecord = z.object({ progress: Progress.optional(), failure: Failure.optional() })
export type TerminationRecord = z.infer<typeof TerminationRecord>

/** The largest `/progress` answer anyone reads. */
export const PROGRESS_MAX_BYTES = 65_536
