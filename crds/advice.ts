// Meaning of the words in a status and what to do about them: one source for the tables of
// docs/operations.md and for `scmoe why`. `{job}` stands for the job's name, `{pod}` for the pod
// that the status is about.

import { EXIT } from './contract.ts'
import type { ConditionType, State } from './status.ts'

export interface Advice {
  meaning: string
  /** Empty if nothing has to be done. */
  remedy: string
}

/** Every `status.reason` that the operator gives; events have the same reasons. */
export const REASONS = {
  WaitingForPods: {
    states: ['Pending', 'Restarting'],
    meaning: 'Pods of an earlier attempt are still ending, more than 5 s after the next attempt could have begun.',
    remedy:
      'Wait: workers may take a minute to write a checkpoint. A pod on a dead node stays until it is deleted by force: use `kubectl delete pod {pod} --force`, or set `podTerminationTimeoutSeconds` in the job.',
  },
  PodForceDeleted: {
    states: ['Pending', 'Restarting'],
    meaning:
      'A pod of an earlier attempt did not end within `podTerminationTimeoutSeconds` after its grace period, and was deleted by force.',
    remedy: 'Look at the node of the pod: `kubectl get nodes`.',
  },
  WorkersStarting: {
    states: ['Starting'],
    meaning: 'The pods were created, but not every worker is ready.',
    remedy: 'If the job stays in this state, see `scmoe logs {job}`: rank 0 names the ranks that it waits for.',
  },
  ImagePull: {
    states: ['Starting'],
    meaning: 'An image cannot be pulled; the message names pod and image.',
    remedy:
      'Correct the image or its pull secret in `spec.workers.template`. This field can change only while the job is suspended: `scmoe suspend {job}`, `kubectl apply`, `scmoe resume {job}`.',
  },
  ContainerConfig: {
    states: ['Starting'],
    meaning: 'A container cannot be created, e.g. because a Secret is missing; the message names it.',
    remedy: 'Create what is missing. The pod then starts by itself.',
  },
  VolumeMount: {
    states: ['Starting'],
    meaning: 'A volume of a pod cannot be attached or mounted; the message is that of the event.',
    remedy:
      'Create what the message names, or free the volume: one that is ReadWriteOnce can be used on one node at a time, so see `kubectl get pods,volumeattachments`. The pod then starts by itself.',
  },
  InitContainers: {
    states: ['Starting'],
    meaning:
      'An init container has not ended, or a sidecar that starts before the worker is not up; the message names it.',
    remedy: 'Read its log with `scmoe logs {job}`.',
  },
  Unschedulable: {
    states: ['Queued'],
    meaning: "No node has room for a pod; the message is the scheduler's.",
    remedy:
      'Add capacity or ask for less. Requests and replicas can change only while the job is suspended: `scmoe suspend {job}`, `kubectl apply`, `scmoe resume {job}`.',
  },
  SchedulingGated: {
    states: ['Queued'],
    meaning: 'A scheduling gate holds a pod back before the scheduler looks at it.',
    remedy:
      'Wait until the controller that set the gate removes it: `kubectl get pod {pod} -o yaml` names the gate under `spec.schedulingGates`.',
  },
  WaitingForQuota: {
    states: ['Queued'],
    meaning: "Kueue has no quota for the gang; the message is Kueue's.",
    remedy:
      'Wait or ask for less. If the message says that a queue is missing or stopped, see `kubectl get localqueues,clusterqueues`.',
  },
  WaitingForAdmission: {
    states: ['Queued'],
    meaning: 'Kueue has reserved quota, but its admission checks are not done.',
    remedy: 'See `kubectl get workloads.kueue.x-k8s.io -o yaml`: `status.admissionChecks` names the checks.',
  },
  SchedulingTimeout: {
    states: ['Queued'],
    meaning:
      'Some workers had nodes for `scheduling.timeoutSeconds` and others had none. All of them gave their nodes back, and the gang is queued again after a pause.',
    remedy: 'Add capacity or ask for less.',
  },
  AdmissionTimeout: {
    states: ['Queued'],
    meaning:
      'The API server admitted some workers and refused the others, e.g. for a quota, for `scheduling.timeoutSeconds`. All of them gave their places back, and the gang tries again after a pause.',
    remedy: 'Raise the quota that the message names, ask for less, or wait until another job ends.',
  },
  ScaledDown: {
    states: ['Queued', 'Restarting'],
    meaning:
      "The gang starts again with fewer workers, from the last checkpoint, because there was no room for all (the message has the scheduler's words) or because `workers.replicas` was lowered.",
    remedy: 'Nothing: the gang grows again when there is room.',
  },
  ScaledUp: {
    states: ['Restarting'],
    meaning: 'There is room for more workers: the gang starts again with them, from the last checkpoint.',
    remedy: '',
  },
  StepsRaised: {
    states: ['Restarting'],
    meaning:
      '`training.steps` was raised while the gang ran: the gang starts again with the new number, from the checkpoint that it writes when it is stopped. The learning rate goes on from the value that was reached.',
    remedy: '',
  },
  AllWorkersReady: { states: ['Running'], meaning: 'All workers train.', remedy: '' },
  WorkersNotReady: {
    states: ['Running'],
    meaning: 'A worker that was ready is not ready now.',
    remedy: 'If the worker does not become ready again, use `kubectl describe pod` on it.',
  },
  NoStep: {
    states: ['Stalled'],
    meaning: 'No step was finished for half of `progressDeadlineSeconds`. The message says when the gang fails.',
    remedy:
      'Look at the processes now, because the restart ends them: `scmoe logs {job}`. A worker that is not ready hangs.',
  },
  ProgressUnknown: {
    states: ['Running'],
    meaning:
      'The kubelet reports rank 0 as ready, but the operator cannot read its progress. Nothing is restarted for that.',
    remedy: "Read in the operator's log what answered. A network policy often blocks the request.",
  },
  StartupDeadlineExceeded: {
    states: ['Restarting'],
    meaning:
      'Not all workers were ready `startupDeadlineSeconds` after the first worker got its node. The message has the reason of the pod with the worst problem.',
    remedy: 'Fix the cause that the message names.',
  },
  ProgressDeadlineExceeded: {
    states: ['Restarting'],
    meaning: 'No step was finished for `progressDeadlineSeconds`.',
    remedy:
      'If it happens again, a worker or the network hangs: `status.lastFailure` names the worker that is not ready. If steps take that long, raise the deadline.',
  },
  WorkerFailed: {
    states: ['Restarting'],
    meaning: 'A worker failed, and its gang ended with it. `status.lastFailure` has the words of the worker.',
    remedy: 'Nothing: the gang starts again from the newest checkpoint. If it fails again, see `scmoe logs {job}`.',
  },
  PodDeleted: {
    states: ['Restarting'],
    meaning:
      'A pod was deleted, evicted or preempted by someone other than the operator. This restart does not count towards `failurePolicy.maxRestarts`.',
    remedy: 'Nothing: the gang starts again from the newest checkpoint.',
  },
  PodDisrupted: {
    states: ['Restarting'],
    meaning:
      'The node of a pod refused it, evicted it for the sake of the node, or lost it. This restart does not count towards `failurePolicy.maxRestarts`.',
    remedy: 'Nothing: the gang starts again from the newest checkpoint. If it happens again, look at the node.',
  },
  InitContainerFailed: {
    states: ['Restarting'],
    meaning: 'An init container of the template failed. `status.lastFailure` has its name and its words.',
    remedy: 'Nothing: the gang starts again from the newest checkpoint. If it fails again, see `scmoe logs {job}`.',
  },
  FailJobRule: {
    states: ['Failed'],
    meaning: 'A rule of `failurePolicy.rules` ends the job after this failure; the message says which rule.',
    remedy: 'Remove the cause that `status.lastFailure` names, then delete the job and apply it again.',
  },
  MaxRestartsExceeded: {
    states: ['Failed'],
    meaning: 'The job failed once more than `failurePolicy.maxRestarts` allows.',
    remedy:
      'Remove the cause that `status.lastFailure` names, then delete the job and apply it again. It continues from the newest checkpoint in its volume.',
  },
  PermanentFailure: {
    states: ['Failed'],
    meaning: 'A restart would end in the same way (see the exit codes below).',
    remedy: 'Correct what the message names, then delete the job and apply it again.',
  },
  ActiveDeadlineExceeded: {
    states: ['Failed'],
    meaning: 'The job was active for `activeDeadlineSeconds`.',
    remedy:
      'Delete the job and apply it again with a higher deadline. It continues from the newest checkpoint in its volume.',
  },
  AllWorkersSucceeded: {
    states: ['Complete'],
    meaning: 'All workers recorded that they reached the last step.',
    remedy: '',
  },
  Stopping: { states: ['Suspended'], meaning: 'The job is suspended, and its workers write a checkpoint.', remedy: '' },
  Suspended: {
    states: ['Suspended'],
    meaning: '`spec.suspend` is true, so the job has no pods.',
    remedy:
      'Use `scmoe resume {job}` to continue from the newest checkpoint. If a queue controller suspended the job, wait until that controller resumes it.',
  },
  InvalidSpec: {
    states: [],
    meaning: 'This operator cannot read the job, e.g. after a downgrade. It leaves the pods of the job alone.',
    remedy: 'Upgrade the operator, or correct the field that the message names.',
  },
  NameTaken: {
    states: [],
    meaning:
      'A pod, Service or disruption budget with the name that the job needs belongs to another owner, or to nobody: it is left of a job that was deleted with `--cascade=orphan`.',
    remedy: 'Delete or rename the other object, or create the job under another name.',
  },
  PodChanged: {
    states: [],
    meaning: 'An admission webhook changes labels of the pods by which the operator finds them.',
    remedy: 'Keep the webhook from these pods. The operator tries again by itself.',
  },
  SchedulerMissing: {
    states: [],
    meaning: 'The API server does not know the object that the scheduling provider needs for a gang.',
    remedy: 'Install the provider, or choose another with `scheduling.provider` of the chart.',
  },
  TemplateRefused: {
    states: ['Pending', 'Restarting'],
    meaning:
      'The operator runs with `--restrict-templates` and creates no pods with what the message names, e.g. host paths or another service account.',
    remedy:
      'Remove these fields from the job, or ask the administrator who installed the operator (chart value `jobs.restrictTemplates`).',
  },
  CreateRefused: {
    states: [],
    meaning: 'The API server refuses a pod, e.g. for a quota, a LimitRange or a Pod Security level.',
    remedy: 'Raise the quota or limit that the message names, ask for less, or change what the namespace admits.',
  },
  CreateFailed: {
    states: [],
    meaning: 'The API server fails (500) to create a pod, e.g. because an admission webhook does not answer.',
    remedy:
      'Repair or remove the webhook that the message names. The operator tries again with growing pauses of up to 2 minutes.',
  },
} as const satisfies Record<string, Advice & { states: readonly State[] }>

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

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

/** The tables of docs/operations.md that are generated, by the name that the page gives them. */
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
