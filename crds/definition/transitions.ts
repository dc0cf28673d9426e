// Rules for updates. At any time a user may change suspend, deadlines, reporting, and everySteps
// Rules for updates. At any time a user may change suspend, deadlines, reporting, and everySteps
// and keep of checkpoint, and change replicas of an elastic job. training.steps may be raised until
// the job is over, if there is a checkpoint to go on from. Other fields of workers, scheduling,
// network and training.precision can change while the job is suspended, the rest never.

import { messageExpression, type SchemaRule } from '../rule.ts'

/**
 * A rule between an object and its predecessor (`oldSelf`). The API server asks it if both exist.
 */
export interface Transition extends SchemaRule {
  /**
   * When the field and the fields below it may change. `in part`: the field cannot come or go, and
   * the fields below it have rules of their own. /
   */
  changes: 'never' | 'upward' | 'while suspended' | 'in part'
}

export const IMMUTABLE = 'self == oldSelf'
export const NEVER = 'cannot be changed once the job exists: create a job under another name instead'
const OVER =
  'training.steps cannot be raised any more, because the job is {state}: delete the job and apply it again with more steps; it goes on from the newest checkpoint in its volume'
const SUSPENDED = 'can change only while the job is suspended: set suspend: true first'

const transition = (
  field: string,
  changes: Transition['changes'],
  rule: Pick<Transition, 'at' | 'rule' | 'message'>,
): Transition => ({
  field: `spec.${field}`,
  changes,
  ...rule,
  messageExpression: messageExpression(rule.message, name => (name === 'new' ? 'self' : 'oldSelf')),
})

const immutable = (path: string): Transition =>
  transition(path, 'never', {
    at: `spec.${path}`,
    rule: IMMUTABLE,
    message: `${path} ${NEVER}`,
  })

/**
 * The parent's comparison for a field without default. The field's own rule would not be asked when
 * the field comes or goes.
 */
const same = (field: string) =>
  `has(self.${field}) == has(oldSelf.${field}) && (!has(self.${field}) || self.${field} == oldSelf.${field})`

export const TRANSITIONS: readonly Transition[] = [
  immutable('managedBy'),
  immutable('model'),
  immutable('training.globalBatchSequences'),
  immutable('training.sequenceLength'),
  immutable('training.microBatches'),
  immutable('training.recompute'),
  immutable('training.seed'),
  immutable('training.optimizer'),
  immutable('training.evaluation'),
  immutable('data'),
  immutable('parallelism'),
  immutable('overlap'),
  immutable('failurePolicy'),
  transition('training.steps', 'upward', {
    at: 'spec.training.steps',
    rule: 'self >= oldSelf',
    message: 'training.steps can only be raised, not lowered from {old} to {new}: use at least {old}',
  }),
  transition('network', 'while suspended', {
    at: 'spec',
    rule: 'self.network == oldSelf.network || oldSelf.suspend',
    message: `network ${SUSPENDED}`,
  }),
  transition('training.steps', 'upward', {
    at: 'spec',
    rule: `self.training.steps == oldSelf.training.steps || oldSelf.suspend || has(self.checkpoint) && !has(self.checkpoint.volume.emptyDir) && !has(self.checkpoint.volume.ephemeral)`,
    message:
      'training.steps can be raised only with a checkpoint in a volume that outlives the pods, from which the gang goes on, or while the job is suspended: set suspend: true first, and the job starts from its beginning',
  }),
  {
    ...transition('training.steps', 'upward', {
      at: '',
      rule: "self.spec.training.steps == oldSelf.spec.training.steps || !has(self.status) || !has(self.status.state) || !(self.status.state in ['Complete', 'Failed'])",
      message: OVER,
    }),
    messageExpression: messageExpression(OVER, name => (name === 'state' ? 'self.status.state' : '')),
  },
  transition('training.precision', 'while suspended', {
    at: 'spec',
    rule: 'self.training.precision == oldSelf.training.precision || oldSelf.suspend',
    message: `training.precision ${SUSPENDED}`,
  }),
  transition('workers.replicas', 'while suspended', {
    at: 'spec',
    rule: 'self.workers.replicas == oldSelf.workers.replicas || oldSelf.suspend || has(self.workers.minReplicas)',
    message:
      'workers.replicas can change only while the job is suspended, or with workers.minReplicas: set suspend: true first',
  }),
  transition('workers.minReplicas', 'while suspended', {
    at: 'spec',
    rule: `(${same('workers.minReplicas')}) || oldSelf.suspend`,
    message: `workers.minReplicas ${SUSPENDED}`,
  }),
  transition('workers.gpusPerWorker', 'while suspended', {
    at: 'spec',
    rule: 'self.workers.gpusPerWorker == oldSelf.workers.gpusPerWorker || oldSelf.suspend',
    message: `workers.gpusPerWorker ${SUSPENDED}`,
  }),
  transition('workers.gpuResourceName', 'while suspended', {
    at: 'spec',
    rule: 'self.workers.gpuResourceName == oldSelf.workers.gpuResourceName || oldSelf.suspend',
    message: `workers.gpuResourceName ${SUSPENDED}`,
  }),
  transition('workers.template', 'while suspended', {
    at: 'spec',
    rule: `(${same('workers.template')}) || oldSelf.suspend`,
    message: `workers.template ${SUSPENDED}`,
  }),
  transition('scheduling.queueName', 'while suspended', {
    at: 'spec',
    rule: `(${same('scheduling.queueName')}) || oldSelf.suspend`,
    message: `scheduling.queueName ${SUSPENDED}`,
  }),
  transition('scheduling.constraints', 'while suspended', {
    at: 'spec',
    rule: 'self.scheduling.constraints == oldSelf.scheduling.constraints || oldSelf.suspend',
    message: `scheduling.constraints ${SUSPENDED}`,
  }),
  transition('checkpoint', 'in part', {
    at: 'spec',
    rule: 'has(self.checkpoint) == has(oldSelf.checkpoint)',
    message: 'checkpoint cannot be added or removed once the job exists: create a job under another name instead',
  }),
  immutable('checkpoint.volume'),
  transition('checkpoint.subPath', 'never', {
    at: 'spec.checkpoint',
    rule: same('subPath'),
    message: `checkpoint.subPath ${NEVER}`,
  }),
]
