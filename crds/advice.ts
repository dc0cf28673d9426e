// Meaning of the words in a status and what to do about them: one source for the tables of
// docs/operations.md and for `scmoe why`. `{job}` stands for the job's name, `{pod}` for the pod
// that the status is about.

import { EXIT } from './contract.ts'
import type { Advice } from './reasons.ts'
import type { ConditionType } from './status.ts'

export { type Advice, REASONS } from './reasons.ts'

/** For each condition: when it is True, and what to do if its value is not the wanted one. */
export const CONDITIONS: Readonly<Record<ConditionType, Advice>> = {
  Suspended: { meaning: 'The job is suspended.', remedy: 'Use `scmoe resume {job}` to continue.' },
  WorkersReady: {
    meaning: 'All workers are ready.',
    remedy:
      'If it stays False while the job is Queued or Starting, its reason and message say what the gang waits for.',
  },
  Running: { meaning: 'All workers run, whether they make progress or not.', remedy: '' },
  Progressing: {
    meaning: 'Steps are being finished. Unknown if rank 0 is ready, but its progress cannot be read.',
    remedy: 'If it is False while the job is Running, the gang hangs and will be restarted.',
  },
  Restarting: {
    meaning: 'The gang failed and starts again.',
    remedy: 'If it becomes True again and again, read `status.lastFailure`, then `scmoe logs {job}`.',
  },
  Complete: { meaning: 'All steps are done; `kubectl wait --for=condition=Complete` ends.', remedy: '' },
  Failed: { meaning: 'The job will not be tried again.', remedy: 'Use `scmoe why {job}`.' },
  Doubtful: {
    meaning:
      'The spec is valid, but the job would probably not do what is meant; the message says why. An event `SpecWarnings` says the same once, and `scmoe validate` before.',
    remedy: 'Correct the fields that the message names, or leave the job as it is if it is meant so.',
  },
}

/**
 * Every `status.lastFailure.reason` that comes from Kubernetes, a signal or the operator. The
 * reasons that a worker gives are the names of its exit codes. /
 */
export const FAILURES = {
  OOMKilled: {
    meaning: 'The container used more memory than its limit.',
    remedy:
      'Raise the memory limit in `spec.workers.template`, or use more replicas, more `training.microBatches` or `training.recompute`. `scmoe plan` shows what a rank needs.',
  },
  SIGKILL: {
    meaning: 'Something killed the worker, e.g. the kernel when the node ran out of memory.',
    remedy:
      'Look at the node with `kubectl describe node`. Set memory requests, so that pods are placed where they fit.',
  },
  SIGILL: {
    meaning: 'The processor does not know an instruction.',
    remedy: "This is a defect. Please report it with the log and the processor's model.",
  },
  SIGSEGV: { meaning: 'The worker crashed.', remedy: 'This is a defect. Please report it with the log.' },
  SIGABRT: { meaning: 'The worker crashed.', remedy: 'This is a defect. Please report it with the log.' },
  SIGBUS: {
    meaning: 'A memory-mapped file became shorter, or its disk failed.',
    remedy: 'Check the volume that holds the data.',
  },
  SIGFPE: { meaning: 'The worker crashed.', remedy: 'This is a defect. Please report it with the log.' },
  Evicted: {
    meaning: 'The kubelet evicted the pod to save its node, or because it used more storage than its limits.',
    remedy: 'Set requests and limits for memory and ephemeral storage that cover what the pods use.',
  },
  DeadlineExceeded: {
    meaning: "The pod ran for as long as the template's activeDeadlineSeconds allows.",
    remedy:
      'Remove `activeDeadlineSeconds` from `spec.workers.template`, and use that of the job if there is to be a limit.',
  },
  ProbeFailed: {
    meaning: 'The kubelet stopped the worker because a livenessProbe or startupProbe of the template failed.',
    remedy:
      'See `kubectl describe pod {pod}`. A worker answers `/healthz` and `/readyz` on `network.httpPort`: remove the probe or give it more time.',
  },
  InitContainerFailed: {
    meaning: 'An init container of the template ended with an exit code other than 0.',
    remedy: 'Read its log with `scmoe logs {job}`, and correct the container in `spec.workers.template`.',
  },
  UnexpectedAdmissionError: {
    meaning: "The node refused the pod, e.g. because the node's devices were not there yet after a reboot.",
    remedy: '',
  },
  NodeAffinity: {
    meaning: 'The node refused the pod: its labels do not, or no longer, fit the pod.',
    remedy: '',
  },
  ContainerStatusUnknown: {
    meaning: 'The node lost the container, as after a reboot.',
    remedy: '',
  },
  PodFailed: {
    meaning: 'The pod failed and left no word of its worker.',
    remedy: 'See `kubectl describe pod {pod}` and the node of the pod.',
  },
  StepsNotDone: {
    meaning: 'The worker container ended with exit code 0 before it had done its steps, or without a record of them.',
    remedy:
      'Check that `image`, `command` and `args` of the container named worker in `spec.workers.template` run the worker.',
  },
  StartupDeadlineExceeded: {
    meaning: 'Not all workers were ready in time.',
    remedy: 'Fix the cause that the message names.',
  },
  ProgressDeadlineExceeded: {
    meaning: 'No step was finished in time.',
    remedy:
      'Look whether the worker that the message names hangs. If steps take longer than `progressDeadlineSeconds`, raise it.',
  },
  PodDeleted: { meaning: 'Someone deleted the pod.', remedy: '' },
  EvictionByEvictionAPI: { meaning: 'The pod was evicted, e.g. because its node was drained.', remedy: '' },
  DeletionByPodGC: { meaning: "The pod's node is gone.", remedy: '' },
  DeletionByTaintManager: { meaning: "The pod's node got a taint that it does not tolerate.", remedy: '' },
  PreemptionByScheduler: {
    meaning: 'The pod made room for a pod of higher priority.',
    remedy: 'Give the workers a priority class, or wait for capacity.',
  },
  TerminationByKubelet: { meaning: 'The kubelet ended the pod, e.g. because its node shuts down.', remedy: '' },
} as const satisfies Record<string, Advice>

/** Remedies for a worker's exit codes. The worker's message often says more. */
export const EXIT_REMEDIES = {
  ok: '',
  badConfig: 'Correct the field that the message names, then delete the job and apply it again.',
  badData: 'Check `spec.data` and the volume that holds the file.',
  outOfMemory:
    'Use more replicas, more `training.microBatches` or `training.recompute`. `scmoe plan` shows what a rank needs.',
  diverged:
    'Lower `optimizer.learningRate`, lengthen its warm-up, or check the data. Then delete the job and apply it again with a new checkpoint folder or an older checkpoint.',
  deviceMissing:
    'Install or repair what the message names: driver, container runtime, image or NCCL. In a cluster the pod needs the GPU image and a limit of GPUs.',
  internal: 'If it happens again, please report it with the output of `scmoe logs {job}`.',
  portInUse:
    'This happens only with host networking or a sidecar. Set another `network.httpPort` or `network.port`, whichever the message names.',
  deviceFailed:
    'If it happens again on the same node, look for Xid in its kernel log and take the GPU out of service. NCCL_DEBUG=WARN shows what NCCL reports.',
  checkpoint: 'Check the volume: free space, permissions and read-only mounts.',
  rendezvous: 'Look for the pod that is missing with `kubectl get pods`. Check network policies between the workers.',
  dataUnavailable: 'Repair the storage or the mount that the message names. The next attempt reads on.',
  peerLost:
    'Find the failure of the other rank, which is the cause. If it did not fail, check the network between the nodes.',
  terminated: '',
} as const satisfies Record<keyof typeof EXIT, string>

/** Advice on a `status.lastFailure.reason`; undefined for an unknown reason. */
export function adviceOnFailure(reason: string): Advice | undefined {
  const failures: Readonly<Record<string, Advice>> = FAILURES
  if (Object.hasOwn(failures, reason)) return failures[reason]
  const exit = Object.entries(EXIT).find(([name]) => name === reason)
  const remedies: Readonly<Record<string, string>> = EXIT_REMEDIES
  return exit && { meaning: sentence(exit[1].meaning), remedy: remedies[reason] ?? '' }
}

/** A clause as a sentence. */
export const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
