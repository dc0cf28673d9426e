// spec.overlap: how communication is scheduled beside computation.

import { z } from 'zod'

const Nccl = z
  .strictObject({
    maxCTAs: z
      .int()
      .min(1)
      .max(64)
      .optional()
      .describe("Most thread blocks that a collective may take from computation. Default: NCCL's own choice."),
    ctaPolicy: z
      .enum(['Default', 'Efficiency', 'Zero'])
      .optional()
      .describe(
        "NCCL_CTA_POLICY, from NCCL 2.27 on. Efficiency: fewer thread blocks than the fastest transfer takes. Zero: none, if the hardware can. Default: NCCL's own choice.",
      ),
  })
  .describe('How much of a GPU its collectives may take. Only with GPUs.')

export const Overlap = z
  .strictObject({
    strategy: z
      .enum(['Auto', 'Sequential', 'Pipelined', 'Shortcut'])
      .default('Auto')
      .describe(
        'Auto: measure a few steps and use the schedule with the shortest predicted step; schedules predicted within 3 % of it are tried for a few steps each. Sequential: wait for every all-to-all. Pipelined: run it in chunks beside the experts. Shortcut: run it beside attention, MLP and shared expert.',
      ),
    slot: z
      .int()
      .min(1)
      .max(5)
      .optional()
      .describe(
        'Where the routed experts run in the forward pass, among the layers that run beside the all-to-all: 1 before the first of these layers, 2 after it, and so on to after the last. For SharedExpert the only such layer is the shared expert. For ScMoE they are attention and shared expert of the block, from shortcutPosition 2 on also the MLP before them, and for 3 also the attention before that. For DGMoE they are the same without the shared expert. Default: chosen by measurement.',
      ),
    chunks: z
      .literal([1, 2, 4, 8])
      .optional()
      .describe(
        'Parts into which an all-to-all is split, so that experts work on one while the next travels. Default: chosen by measurement.',
      ),
    exchange: z
      .enum(['Counted', 'Padded'])
      .default('Counted')
      .describe(
        'Rows that an all-to-all carries. Counted: the rows that were routed; the host of a GPU must first read how many. Padded: as many rows for each expert as capacityFactor allows. More rows travel, but no host waits, and steps run as CUDA graphs. Padded needs GPUs.',
      ),
    nccl: Nccl.optional(),
  })
  .describe('How communication is scheduled beside computation.')
