// Every reason in a status, with its meaning and what to do. advice.ts has the other words.

import type { State } from './status.ts'

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
