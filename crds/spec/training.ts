// spec.training and spec.data: how to train, and on which text.

import { z } from 'zod'
import { decimal } from './decimal.ts'

const Optimizer = z
  .strictObject({
    learningRate: decimal.default('6e-4').describe('Peak learning rate of AdamW.'),
    warmupSteps: z
      .int()
      .min(0)
      .max(1_000_000)
      .default(20)
      .describe(
        'Steps in which the learning rate rises linearly. A cosine then lowers it to a tenth of the peak in the last step. Where a checkpoint was written for another number of steps, it goes on from the value that was reached (docs/checkpoints.md).',
      ),
    weightDecay: decimal.default('0.1').describe('Decoupled weight decay. Only matrices decay.'),
    gradientClipNorm: decimal.default('1').describe('Global norm above which gradients are scaled down to this norm.'),
  })
  .describe('AdamW with beta1 0.9 and beta2 0.95.')

export const Training = z
  .strictObject({
    steps: z
      .int()
      .min(1)
      .max(100_000_000)
      .describe(
        'Optimizer steps. May be raised until the job is Complete or Failed, but never lowered. A gang that runs is stopped with a checkpoint and goes on from it; without a checkpoint steps can be raised only while the job is suspended.',
      ),
    globalBatchSequences: z
      .int()
      .min(1)
      .max(1_048_576)
      .default(8)
      .describe('Sequences of one step over all ranks; a multiple of the number of ranks times microBatches.'),
    microBatches: z
      .int()
      .min(1)
      .max(65_536)
      .default(1)
      .describe(
        "Parts of a rank's batch that run one after another, with their gradients added up. More parts need less memory. The balance loss and the capacity of experts are those of one part, so both depend on the number of parts; the rest of the step is the same. docs/model.md has the formulas.",
      ),
    recompute: z
      .boolean()
      .default(false)
      .describe(
        'Whether the backward pass computes activations again instead of keeping them. This takes less memory and more time.',
      ),
    precision: z
      .enum(['float32', 'bfloat16'])
      .default('float32')
      .describe(
        'Type of activations, of their gradients and of the weights that matrix products read. bfloat16 needs workers.gpusPerWorker. Parameters, gradients of weights, moments and checkpoints are float32 in both. Can change only while the job is suspended.',
      ),
    sequenceLength: z.int().min(2).max(65_536).default(256).describe('Tokens of each sequence.'),
    seed: z.int().min(0).max(2_147_483_647).default(1).describe('Seed of the initial values and of the data order.'),
    optimizer: Optimizer.prefault({}),
    evaluation: z
      .strictObject({
        everySteps: z
          .int()
          .min(1)
          .max(100_000_000)
          .default(50)
          .describe('Steps between evaluations. There is one more before the first step, and one at the end.'),
        batches: z
          .int()
          .min(1)
          .max(10_000)
          .default(4)
          .describe('Batches of an evaluation, each of globalBatchSequences held-out sequences.'),
      })
      .prefault({})
      .describe('Measures the loss on held-out text, the last tenth of the data.'),
  })
  .describe('How to train.')

export const Data = z
  .strictObject({
    builtin: z.enum(['moby-dick', 'sotu']).optional().describe('A text that comes with the worker image.'),
    path: z
      .string()
      .min(1)
      .max(4096)
      .optional()
      .describe(
        "A file in a volume that workers.template mounts. `scmoe run` takes a relative path from the folder of the job's file; a worker in a cluster takes it from the working folder of its image, so write it absolute there.",
      ),
    tokens: z
      .enum(['bytes', 'uint16', 'uint32'])
      .default('bytes')
      .describe(
        'Format of the file. bytes: a text, of which each byte is a token. uint16, uint32: little-endian token numbers.',
      ),
  })
  .describe('Training text: exactly one of builtin and path. Default: builtin moby-dick.')
