// spec.workers, spec.scheduling and spec.checkpoint: the pods of a gang, their nodes and their
// volume.

import { z } from 'zod'
import { LONGEST_DEADLINE } from './life-cycle.ts'

export const Workers = z
  .strictObject({
    replicas: z
      .int()
      .min(1)
      .max(1024)
      .default(1)
      .describe('Worker pods. Can change only while the job is suspended, or at any time with minReplicas.'),
    minReplicas: z
      .int()
      .min(1)
      .max(1024)
      .optional()
      .describe(
        'Fewest workers that the job may run with. If there is no room for replicas within scheduling.timeoutSeconds, the gang starts from the last checkpoint with as many workers as fit and divide experts and batch. It grows when there is room again. Needs checkpoint.',
      ),
    gpusPerWorker: z
      .int()
      .min(0)
      .max(16)
      .default(0)
      .describe(
        'GPUs of each worker, with one rank for each GPU. 0: the worker is one rank and computes on its CPUs. The ranks of worker i start at i * gpusPerWorker. Can change only while the job is suspended.',
      ),
    gpuResourceName: z
      .string()
      .max(317)
      .default('nvidia.com/gpu')
      .describe(
        'Name of the resource under which nodes offer GPUs. Workers with GPUs also tolerate a taint with this key.',
      ),
    template: z
      .looseObject({})
      .optional()
      .describe(
        'Pod template that is merged under every worker. The container named "worker" takes image, resources, env and volumeMounts from here.',
      ),
  })
  .describe('The gang of workers.')

export const Scheduling = z
  .strictObject({
    queueName: z
      .string()
      .max(63)
      .optional()
      .describe(
        "Queue that the job waits in: a LocalQueue of Kueue or a Queue of Volcano. Other providers ignore it. Default: with Kueue the job's label kueue.x-k8s.io/queue-name.",
      ),
    constraints: z
      .strictObject({
        topology: z
          .array(
            z.strictObject({
              key: z
                .string()
                .min(1)
                .max(317)
                .describe('Label of nodes. All workers run on nodes with the same value of this label.'),
            }),
          )
          .max(1)
          .optional()
          .describe('Label of nodes that keeps the workers near each other.'),
      })
      .prefault({})
      .describe('What the nodes of one gang have in common.'),
    timeoutSeconds: z
      .int()
      .min(1)
      .max(LONGEST_DEADLINE)
      .default(300)
      .describe(
        'How long some workers may hold their nodes while others find none. A smaller gang then starts if workers.minReplicas allows it; otherwise all workers give their nodes back and the gang is queued again.',
      ),
  })
  .describe(
    'How the workers get their nodes: all of them or none, with the provider that the operator was installed with.',
  )

export const Checkpoint = z
  .strictObject({
    volume: z
      .looseObject({})
      .describe('A pod volume source, e.g. persistentVolumeClaim: {claimName: …}. Every worker mounts it.'),
    subPath: z.string().max(1024).optional().describe('Folder inside the volume. Default: <namespace>/<name>.'),
    everySteps: z
      .int()
      .min(1)
      .max(100_000_000)
      .default(100)
      .describe('Steps between checkpoints. There is one more at the end and on SIGTERM.'),
    keep: z.int().min(1).max(1000).default(2).describe('Complete checkpoints that are kept.'),
  })
  .describe('Where and how often to save. A restarted or resumed job continues from the newest complete checkpoint.')
