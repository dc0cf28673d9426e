// ScMoEJob v1alpha1: the one source of the CRD's schema, of the static types, of run-time
// validation and of the defaults. The fields of each subject are in spec/.

import { z } from 'zod'
import { CONTROLLER, PORT } from './contract.ts'
import { LIFE_CYCLE } from './spec/life-cycle.ts'
import { Model } from './spec/model.ts'
import { Overlap } from './spec/overlap.ts'
import { Data, Training } from './spec/training.ts'
import { Checkpoint, Scheduling, Workers } from './spec/workers.ts'

export const ScMoEJobSpec = z.strictObject({
  suspend: z
    .boolean()
    .default(false)
    .describe('true: the job has no pods, and its status stays. false again: it continues from the last checkpoint.'),
  managedBy: z
    .string()
    .min(1)
    .max(253)
    .default(CONTROLLER)
    .describe('Name of the controller of this job. With another value the operator leaves the job alone.'),
  model: Model.prefault({}),
  training: Training,
  data: Data.prefault({ builtin: 'moby-dick' }),
  parallelism: z
    .strictObject({
      expertParallelSize: z
        .int()
        .min(1)
        .max(1024)
        .optional()
        .describe(
          'Ranks that share one set of experts; must divide model.experts and the number of ranks. Default: all ranks.',
        ),
    })
    .prefault({})
    .describe('How the model is spread over the workers.'),
  overlap: Overlap.prefault({}),
  workers: Workers.prefault({}),
  network: z
    .strictObject({
      port: z.int().min(1024).max(65_535).default(29_500).describe('Port on which rank 0 waits for the other ranks.'),
      httpPort: z
        .int()
        .min(1024)
        .max(65_500)
        .default(PORT.http)
        .describe(
          'Port on which a worker answers probes, progress requests and Prometheus. With GPUs the further ranks of a worker use the ports that follow. Change it if another container of the template listens there.',
        ),
    })
    .prefault({})
    .describe('Ports of the workers. Can change only while the job is suspended.'),
  scheduling: Scheduling.prefault({}),
  ...LIFE_CYCLE,
  checkpoint: Checkpoint.optional(),
  reporting: z
    .strictObject({
      intervalSeconds: z.int().min(5).max(3600).default(15).describe('Time between updates of progress in the status.'),
    })
    .prefault({})
    .describe('How often the status is updated.'),
})
export type ScMoEJobSpec = z.output<typeof ScMoEJobSpec>
