// ScMoEJob v1alpha1: the one source of the CRD's schema, the static types, run-time validation and defaults.
// Floating-point settings are decimal strings: Kubernetes API conventions allow no floats.

import { z } from 'zod'
import { CONTROLLER } from './contract.ts'

const decimal = (fallback: string) =>
  z
    .string()
    .max(32)
    .regex(/^[0-9]+(\.[0-9]+)?([eE]-?[0-9]{1,2})?$/, 'must be a decimal number in quotes, such as "0.0006" or "6e-4"')
    .default(fallback)

const Model = z
  .strictObject({
    kind: z
      .enum(['Top2', 'SharedExpert', 'ScMoE'])
      .default('ScMoE')
      .describe(
        'Architecture of the MoE block: ScMoE feeds the routed experts from the preceding layer (shortcut position 2, coefficient gate 1); Top2 and SharedExpert are the baselines.',
      ),
    blocks: z
      .int()
      .min(2)
      .max(256)
      .default(4)
      .describe('Transformer blocks; every second one carries the MoE layer, so an even number.'),
    hiddenSize: z.int().min(8).max(16_384).default(256).describe('Model width d.'),
    heads: z.int().min(1).max(256).default(4).describe('Attention heads; must divide hiddenSize.'),
    feedForwardSize: z
      .int()
      .min(8)
      .max(65_536)
      .default(1024)
      .describe('Width of the MLP, of the shared expert and of each expert.'),
    experts: z.int().min(1).max(1024).default(8).describe('Routed experts per MoE layer, over all ranks.'),
    topK: z.int().min(1).max(2).optional().describe('Experts per token. Default: 2 for Top2, else 1.'),
    capacityFactor: decimal('2').describe(
      'One rank may send ceil(capacityFactor * tokens * topK / experts) tokens to one expert; later tokens are dropped there.',
    ),
    balanceLossCoefficient: decimal('0.01').describe('Weight of the load-balance loss.'),
  })
  .describe('The language model: a byte-level GPT with an MoE layer in every second block.')

const Optimizer = z
  .strictObject({
    learningRate: decimal('6e-4').describe('Peak learning rate of AdamW.'),
    warmupSteps: z
      .int()
      .min(0)
      .max(1_000_000)
      .default(20)
      .describe('Steps of linear warm-up; after it a cosine decays to a tenth.'),
    weightDecay: decimal('0.1').describe('Decoupled weight decay, on matrices only.'),
    gradientClipNorm: decimal('1').describe('Global gradient norm above which gradients are scaled down.'),
  })
  .describe('AdamW, beta1 0.9, beta2 0.95.')

const Training = z
  .strictObject({
    steps: z
      .int()
      .min(1)
      .max(100_000_000)
      .describe('Optimizer steps. May be raised while the job exists, never lowered.'),
    globalBatchSequences: z
      .int()
      .min(1)
      .max(1_048_576)
      .default(8)
      .describe('Sequences per step over all ranks; a multiple of workers.replicas.'),
    sequenceLength: z.int().min(2).max(65_536).default(256).describe('Tokens per sequence.'),
    seed: z.int().min(0).max(2_147_483_647).default(1).describe('Seed of initialisation and data order.'),
    optimizer: Optimizer.prefault({}),
    evaluation: z
      .strictObject({
        everySteps: z
          .int()
          .min(1)
          .max(100_000_000)
          .default(50)
          .describe('Steps between evaluations; one more at the end.'),
        batches: z
          .int()
          .min(1)
          .max(10_000)
          .default(4)
          .describe('Batches of globalBatchSequences held-out sequences per evaluation.'),
      })
      .prefault({})
      .describe('Loss on held-out text (the last tenth of the data).'),
  })
  .describe('How to train.')

const Data = z
  .strictObject({
    builtin: z.enum(['moby-dick', 'sotu']).optional().describe('A text that comes with the worker image.'),
    path: z
      .string()
      .min(1)
      .max(4096)
      .optional()
      .describe('A file, read as bytes, in a volume that workers.template mounts.'),
  })
  .describe('Training text, byte-level tokens. Exactly one of builtin and path; default builtin: moby-dick.')

const Overlap = z
  .strictObject({
    strategy: z
      .enum(['Auto', 'Sequential', 'Shortcut'])
      .default('Auto')
      .describe(
        'Auto measures a few steps and takes the schedule with the shortest predicted step; Sequential waits for every all-to-all; Shortcut runs it beside attention, MLP and shared expert.',
      ),
    slot: z
      .int()
      .min(1)
      .max(4)
      .optional()
      .describe(
        'Where the routed experts run in the forward pass: 1 before MLP, 2 after it, 3 after the next attention, 4 after the shared expert. Default: chosen by measurement.',
      ),
  })
  .describe('How communication is scheduled beside computation.')

const Workers = z
  .strictObject({
    replicas: z
      .int()
      .min(1)
      .max(1024)
      .default(1)
      .describe('Worker pods, one rank each. Changed only while the job is suspended.'),
    template: z
      .looseObject({})
      .optional()
      .describe(
        'Pod template merged under every worker; the container named "worker" takes image, resources, env and volumeMounts from here.',
      ),
  })
  .describe('The gang.')

const FailurePolicy = z
  .strictObject({
    maxRestarts: z.int().min(0).max(1000).default(3).describe('Restarts of the whole gang before the job fails.'),
    backoff: z
      .strictObject({
        initialSeconds: z.int().min(1).max(3600).default(10).describe('Delay before the first restart.'),
        maxSeconds: z.int().min(1).max(86_400).default(300).describe('The longest delay.'),
      })
      .prefault({})
      .describe('Delay before a restart: initialSeconds, doubled with each, at most maxSeconds.'),
  })
  .describe('What happens when a worker fails: the whole gang restarts from the last checkpoint.')

const Checkpoint = z
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
      .describe('Steps between checkpoints; one more at the end and on SIGTERM.'),
    keep: z.int().min(1).max(1000).default(2).describe('Complete checkpoints kept.'),
  })
  .describe('Where and how often to save; a restarted or resumed job continues from the newest complete one.')

export const ScMoEJobSpec = z.strictObject({
  suspend: z
    .boolean()
    .default(false)
    .describe('True: no pods; status stays; false again continues from the last checkpoint.'),
  managedBy: z
    .string()
    .min(1)
    .max(253)
    .default(CONTROLLER)
    .describe('Any other value: this controller leaves the job alone.'),
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
          'Ranks that share one set of experts; divides model.experts and workers.replicas. Default: workers.replicas.',
        ),
    })
    .prefault({})
    .describe('How the model is spread over the workers.'),
  overlap: Overlap.prefault({}),
  workers: Workers.prefault({}),
  network: z
    .strictObject({
      port: z.int().min(1024).max(65_535).default(29_500).describe('Where rank 0 waits for the others.'),
    })
    .prefault({})
    .describe('How the workers find each other.'),
  failurePolicy: FailurePolicy.prefault({}),
  checkpoint: Checkpoint.optional(),
  reporting: z
    .strictObject({
      intervalSeconds: z.int().min(5).max(3600).default(15).describe('Time between progress reports in status.'),
    })
    .prefault({})
    .describe('How often the status is brought up to date.'),
})
export type ScMoEJobSpec = z.output<typeof ScMoEJobSpec>
