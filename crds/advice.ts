// What the words of a status mean and what to do about them: one source for the tables of docs/operations.md and for `scmoe why`.
// `{job}` is the job's name, `{pod}` the pod that is spoken of.

import { EXIT } from './contract.ts'
import type { ConditionType, State } from './status.ts'

export interface Advice {
  meaning: string
  /** Empty: nothing has to be done. */
  remedy: string
}

/** `status.reason` (and the reason of the event): every one that the operator gives. */
export const REASONS = {
  WaitingForPods: {
    states: ['Pending', 'Restarting'],
    meaning: 'Pods of an earlier attempt are still ending, 5 s after the next could have begun.',
    remedy:
      'Wait: workers may take a minute to write a checkpoint. A pod on a dead node stays until it is deleted by force: `kubectl delete pod {pod} --force`, or `podTerminationTimeoutSeconds` in the job.',
  },
  PodForceDeleted: {
    states: ['Pending', 'Restarting'],
    meaning:
      'A pod of an earlier attempt did not end within `podTerminationTimeoutSeconds` after its grace period, and was deleted by force.',
    remedy: 'Look at its node: `kubectl get nodes`.',
  },
  WorkersStarting: {
    states: ['Starting'],
    meaning: 'The pods were created; not every worker is ready.',
    remedy: 'If it stays so: `scmoe logs {job}`; rank 0 names the ranks it waits for.',
  },
  ImagePull: {
    states: ['Starting'],
    meaning: 'An image cannot be pulled; the message names pod and image.',
    remedy:
      'Correct the image or its pull secret in `spec.workers.template`, which can change while the job is suspended: `scmoe suspend {job}`, `kubectl apply`, `scmoe resume {job}`.',
  },
  ContainerConfig: {
    states: ['Starting'],
    meaning: 'A container cannot be created, e.g. for want of a Secret; the message names it.',
    remedy: 'Create what is missing; the pod then starts by itself.',
  },
  Unschedulable: {
    states: ['Queued'],
    meaning: "No node takes a pod; the message is the scheduler's.",
    remedy:
      'Add capacity, or ask for less, which can change while the job is suspended: `scmoe suspend {job}`, `kubectl apply` with lower requests or fewer replicas, `scmoe resume {job}`.',
  },
  SchedulingGated: {
    states: ['Queued'],
    meaning: 'A scheduling gate holds a pod back before the scheduler looks at it.',
    remedy: 'Wait for whoever set it: `kubectl get pod {pod} -o yaml` names it under `spec.schedulingGates`.',
  },
  WaitingForQuota: {
    states: ['Queued'],
    meaning: "Kueue has no quota for the gang; the message is Kueue's.",
    remedy:
      'Wait, or ask for less; if the message says that a queue is missing or stopped, see `kubectl get localqueues,clusterqueues`.',
  },
  WaitingForAdmission: {
    states: ['Queued'],
    meaning: 'Kueue has reserved quota, but its admission checks are not done.',
    remedy: '`kubectl get workloads.kueue.x-k8s.io -o yaml`: `status.admissionChecks` names them.',
  },
  SchedulingTimeout: {
    states: ['Queued'],
    meaning:
      'Some workers had nodes for `scheduling.timeoutSeconds` and others none: all gave theirs back, and the gang is queued again after a pause.',
    remedy: 'As for Unschedulable.',
  },
  ScaledDown: {
    states: ['Queued', 'Restarting'],
    meaning:
      "The gang starts again with fewer workers, from the last checkpoint: there was no room for all (the message has the scheduler's words), or `workers.replicas` was lowered.",
    remedy: 'Nothing: it grows again when there is room.',
  },
  ScaledUp: {
    states: ['Restarting'],
    meaning: 'There is room for more workers: the gang starts again with them, from the last checkpoint.',
    remedy: '',
  },
  AllWorkersReady: { states: ['Running'], meaning: 'All workers train.', remedy: '' },
  WorkersNotReady: {
    states: ['Running'],
    meaning: 'A worker that was ready is not ready now.',
    remedy: 'If it stays so: `kubectl describe pod` of the one that is not ready.',
  },
  NoStep: {
    states: ['Stalled'],
    meaning: 'No step was finished for half of `progressDeadlineSeconds`; the message says when the gang fails.',
    remedy:
      'Look at the processes now, as the restart takes them away: `scmoe logs {job}`; a worker that is not ready hangs.',
  },
  ProgressUnknown: {
    states: ['Running'],
    meaning: 'Rank 0 is ready for its node, but the operator cannot read its progress; nothing is restarted for that.',
    remedy: "Look for what answered in the operator's log; often a network policy is in the way.",
  },
  StartupDeadlineExceeded: {
    states: ['Restarting'],
    meaning:
      "Not all workers were ready `startupDeadlineSeconds` after the first got its node; the message has the worst pod's reason.",
    remedy: 'As for the reason in the message.',
  },
  ProgressDeadlineExceeded: {
    states: ['Restarting'],
    meaning: 'No step was finished for `progressDeadlineSeconds`.',
    remedy:
      'If it happens again, a worker or a network hangs: `status.lastFailure` names the worker that is not ready. Steps that take longer need a higher deadline.',
  },
  WorkerFailed: {
    states: ['Restarting'],
    meaning: 'A worker failed and took its gang along; `status.lastFailure` has its own words.',
    remedy: 'Nothing: the gang starts again from the newest checkpoint. If it fails again: `scmoe logs {job}`.',
  },
  PodDeleted: {
    states: ['Restarting'],
    meaning:
      'A pod was deleted from outside. One that was evicted, preempted or drained (condition DisruptionTarget) does not count against `failurePolicy.maxRestarts`.',
    remedy: 'Nothing: the gang starts again from the newest checkpoint.',
  },
  FailJobRule: {
    states: ['Failed'],
    meaning: 'A rule of `failurePolicy.rules` ends the job for this failure; the message says which.',
    remedy: 'Remove the cause that `status.lastFailure` names, then delete the job and apply it again.',
  },
  MaxRestartsExceeded: {
    states: ['Failed'],
    meaning: 'It failed once more than `failurePolicy.maxRestarts` allows.',
    remedy:
      'Remove the cause that `status.lastFailure` names, then delete the job and apply it again: it continues from the newest checkpoint of its volume.',
  },
  PermanentFailure: {
    states: ['Failed'],
    meaning: 'A restart would end the same way (exit codes below).',
    remedy: 'Correct what the message names, then delete the job and apply it again.',
  },
  ActiveDeadlineExceeded: {
    states: ['Failed'],
    meaning: 'The job was active for `activeDeadlineSeconds`.',
    remedy:
      'Delete the job and apply it again with a higher deadline: it continues from the newest checkpoint of its volume.',
  },
  AllWorkersSucceeded: { states: ['Complete'], meaning: 'All steps are done.', remedy: '' },
  Stopping: { states: ['Suspended'], meaning: 'The job is suspended; its workers write a checkpoint.', remedy: '' },
  Suspended: {
    states: ['Suspended'],
    meaning: '`spec.suspend` is true: no pods.',
    remedy:
      '`scmoe resume {job}` continues from the newest checkpoint. If a queue controller suspended it, leave it to that one.',
  },
  InvalidSpec: {
    states: [],
    meaning: 'This operator cannot read the job, e.g. after a downgrade; its pods are left alone.',
    remedy: 'Upgrade the operator or correct the field that the message names.',
  },
  NameTaken: {
    states: [],
    meaning: 'A pod, Service or disruption budget of that name belongs to someone else.',
    remedy: 'Delete or rename one of the two.',
  },
  SchedulerMissing: {
    states: [],
    meaning: 'The API server does not know the object that the scheduling provider needs for a gang.',
    remedy: 'Install the provider, or choose another with `scheduling.provider` of the chart.',
  },
  CreateRefused: {
    states: [],
    meaning: 'The API server refuses a pod, e.g. for a quota or a Pod Security level.',
    remedy: 'As the message says: raise the quota, or change what the namespace admits.',
  },
  CreateFailed: {
    states: [],
    meaning: 'The API server fails (500) to make a pod, e.g. because an admission webhook does not answer.',
    remedy: 'As the message says: mend or remove the webhook. It is tried again with back-off, up to 5 minutes apart.',
  },
} as const satisfies Record<string, Advice & { states: readonly State[] }>

/** Conditions: when they are True, and what to do where one is not as it should be. */
export const CONDITIONS: Readonly<Record<ConditionType, Advice>> = {
  Suspended: { meaning: 'The job is suspended.', remedy: '`scmoe resume {job}`.' },
  WorkersReady: {
    meaning: 'All workers are ready.',
    remedy: 'False for long while Queued or Starting: its reason and message say what holds the gang up.',
  },
  Running: { meaning: 'All workers are there, whether they make progress or not.', remedy: '' },
  Progressing: {
    meaning: 'Steps are being finished. Unknown: rank 0 is ready, but its progress cannot be read.',
    remedy: 'False while Running: the gang hangs and will be restarted.',
  },
  Restarting: {
    meaning: 'The gang is on its way back after a failure.',
    remedy: 'True again and again: `status.lastFailure`, then `scmoe logs {job}`.',
  },
  Complete: { meaning: 'All steps are done; `kubectl wait --for=condition=Complete` ends.', remedy: '' },
  Failed: { meaning: 'The job will not be tried again.', remedy: '`scmoe why {job}`.' },
}

/** `status.lastFailure.reason` where it is Kubernetes' word or a signal; a worker's own reasons are the exit codes. */
export const FAILURES = {
  OOMKilled: {
    meaning: 'The container used more memory than its limit.',
    remedy:
      'Raise the memory limit in `spec.workers.template`, or need less: more replicas, `training.microBatches`, `training.recompute`. `scmoe plan` shows what a rank needs.',
  },
  SIGKILL: {
    meaning: 'The worker was killed from outside, e.g. by the kernel when the node ran out of memory.',
    remedy: 'Look at the node: `kubectl describe node`; set memory requests, so that pods are placed where they fit.',
  },
  SIGILL: {
    meaning: 'The processor does not know an instruction.',
    remedy: "A defect: please report it with the log and the processor's model.",
  },
  SIGSEGV: { meaning: 'The worker crashed.', remedy: 'A defect: please report it with the log.' },
  SIGABRT: { meaning: 'The worker crashed.', remedy: 'A defect: please report it with the log.' },
  SIGBUS: {
    meaning: 'A memory-mapped file got shorter or its disk failed.',
    remedy: 'Check the volume with the data.',
  },
  SIGFPE: { meaning: 'The worker crashed.', remedy: 'A defect: please report it with the log.' },
  Evicted: {
    meaning: 'The kubelet evicted the pod to save its node.',
    remedy: 'Set requests for memory and ephemeral storage that the pods keep to.',
  },
  StartupDeadlineExceeded: {
    meaning: 'Not all workers were ready in time.',
    remedy: 'As for the reason in the message.',
  },
  ProgressDeadlineExceeded: {
    meaning: 'No step was finished in time.',
    remedy: 'See whether the worker that is named hangs, or steps take longer than `progressDeadlineSeconds`.',
  },
  PodDeleted: { meaning: 'Someone deleted the pod.', remedy: '' },
  EvictionByEvictionAPI: { meaning: 'The pod was evicted, e.g. because its node was drained.', remedy: '' },
  DeletionByPodGC: { meaning: "The pod's node is gone.", remedy: '' },
  DeletionByTaintManager: { meaning: "The pod's node got a taint that it does not tolerate.", remedy: '' },
  PreemptionByScheduler: {
    meaning: 'The pod made room for one of higher priority.',
    remedy: 'Give the workers a priority class, or wait for capacity.',
  },
  TerminationByKubelet: { meaning: 'The kubelet ended the pod, e.g. because its node shuts down.', remedy: '' },
} as const satisfies Record<string, Advice>

/** What to do about a worker's exit code, besides what the message says. */
export const EXIT_REMEDIES = {
  ok: '',
  badConfig: 'Correct the field that the message names, then delete the job and apply it again.',
  badData: 'Check `spec.data` and the volume that holds the file.',
  outOfMemory:
    'More replicas, more `training.microBatches`, or `training.recompute`; `scmoe plan` shows what a rank needs.',
  diverged:
    'Lower `optimizer.learningRate`, lengthen its warm-up, or check the data; delete and apply again with a new checkpoint folder or an older checkpoint.',
  deviceMissing:
    'Do what the message says: driver, container runtime, image or NCCL. In a cluster the pod needs the GPU image and a limit of GPUs.',
  internal: 'If it comes back, please report it with the output of `scmoe logs {job}`.',
  portInUse: 'Only with host networking or a sidecar: set another `network.port`.',
  deviceFailed:
    'If it comes back on one node, look at its kernel log for Xid and take the GPU out of service; NCCL_DEBUG=WARN says what NCCL met.',
  checkpoint: 'Check the volume: free space, permissions, read-only mounts.',
  rendezvous: 'Look for the pod that never came: `kubectl get pods`; check network policies between the workers.',
  peerLost: "The other rank's failure is the cause; if there is none, the network between the nodes.",
  terminated: '',
} as const satisfies Record<keyof typeof EXIT, string>

/** Advice on `status.lastFailure.reason`; undefined for a word that is not known here. */
export function adviceOnFailure(reason: string): Advice | undefined {
  const failures: Readonly<Record<string, Advice>> = FAILURES
  if (Object.hasOwn(failures, reason)) return failures[reason]
  const exit = Object.entries(EXIT).find(([name]) => name === reason)
  const remedies: Readonly<Record<string, string>> = EXIT_REMEDIES
  return exit && { meaning: sentence(exit[1].meaning), remedy: remedies[reason] ?? '' }
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

/** The tables of docs/operations.md that are written from here, by the name that the page gives them. */
export function operationsTables(): Record<string, string> {
  const ofReasons = Object.entries(REASONS).map(([reason, { states, meaning, remedy }]) => [
    reason,
    states.length === 0 ? 'any' : states.join(', '),
    meaning,
    remedy,
  ])
  const ofFailures = Object.entries(FAILURES).map(([reason, { meaning, remedy }]) => [reason, meaning, remedy])
  const ofExits = Object.entries(EXIT).map(([name, { code, permanent, meaning }]) => [
    String(code),
    name,
    sentence(meaning),
    code === 0 ? '' : permanent ? 'The job fails.' : 'The gang restarts.',
    adviceOnFailure(name)?.remedy ?? '',
  ])
  const ofConditions = Object.entries(CONDITIONS).map(([type, { meaning, remedy }]) => [type, meaning, remedy])
  return {
    conditions: table(['Condition', 'True when', 'What to do'], ofConditions),
    reasons: table(['Reason', 'State', 'What it means', 'What to do'], ofReasons),
    failures: table(['Reason', 'What it means', 'What to do'], ofFailures),
    exits: table(['Code', 'Name', 'What it means', 'Then', 'What to do'], ofExits),
  }
}

const row = (cells: readonly string[]) => `| ${cells.map(cell => (cell === '' ? '-' : cell)).join(' | ')} |`

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [row(head), row(head.map(() => '---')), ...rows.map(row)]
  return lines.join('\n').replaceAll('{job}', '<job>').replaceAll('{pod}', '<pod>')
}
