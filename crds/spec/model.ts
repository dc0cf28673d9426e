// spec.model: the language model.

import { z } from 'zod'
import { decimal } from './decimal.ts'

/**
 * Fields whose value a preset decides have no default here, because the API server would store that
 * default. Their descriptions repeat the values of presets.ts.
 */
export const Model = z
  .strictObject({
    preset: z
      .enum(['tiny', 'gpt2-moe-small', 'gpt2-moe-medium', 'gpt3-moe-xl', 'llama2-moe'])
      .optional()
      .describe(
        'Sizes of a known model (table 8 of arXiv 2404.05019) for the fields that the job leaves out. tiny: the defaults below.',
      ),
    kind: z
      .enum(['Dense', 'Top1', 'Top2', 'SharedExpert', 'ScMoE', 'DGMoE'])
      .default('ScMoE')
      .describe(
        'Architecture. ScMoE: a shared expert, and routed experts that get their input by a shortcut from an earlier layer. DGMoE: one expert for the shortcut and one for the present layer. SharedExpert, Top1 and Top2: MoE without a shortcut. Dense: no MoE.',
      ),
    shortcutPosition: z
      .literal([1, 2, 3])
      .optional()
      .describe(
        'Where the shortcut of ScMoE and DGMoE starts in the preceding block: 1 after its MLP, 2 after its attention, 3 at its input. Default: 2, or 1 if every block has an MoE layer.',
      ),
    coefficientGate: z
      .enum(['DirectAdd', 'CG1', 'CG2'])
      .optional()
      .describe(
        'How the outputs of the shared and the routed experts are added. DirectAdd: without weights. CG1: the shared expert times a sigmoid. CG2: both times a softmax. Default: CG1 for ScMoE, DirectAdd for SharedExpert.',
      ),
    blocks: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe("Transformer blocks, a multiple of moeLayerFrequency. Default: the preset's value, otherwise 4."),
    moeLayerFrequency: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe(
        "Blocks for each MoE layer, which is in the last of them: 1 for every block, 2 for every second block. Default: the preset's value, otherwise 2.",
      ),
    hiddenSize: z
      .int()
      .min(8)
      .max(16_384)
      .optional()
      .describe("Model width d. Default: the preset's value, otherwise 256."),
    heads: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe("Attention heads; must divide hiddenSize. Default: the preset's value, otherwise 4."),
    keyValueHeads: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe(
        "Heads of keys and values; must divide heads, which share them equally. Default: the preset's value, otherwise the value of heads.",
      ),
    feedForwardSize: z
      .int()
      .min(8)
      .max(65_536)
      .optional()
      .describe(
        "Width of the MLP, of the shared expert and of each routed expert. Default: the preset's value, otherwise 1024.",
      ),
    vocabularySize: z
      .int()
      .min(2)
      .max(1_048_576)
      .optional()
      .describe(
        "Number of different tokens; every token of the data must be below it, and workers look at all of them before the first step. Default: the preset's value, otherwise 256.",
      ),
    tieEmbeddings: z
      .boolean()
      .optional()
      .describe("Whether the output layer is the token embedding. Default: the preset's value, otherwise false."),
    biases: z
      .boolean()
      .optional()
      .describe("Whether linear layers have biases. Default: the preset's value, otherwise true."),
    norm: z
      .enum(['LayerNorm', 'RMSNorm'])
      .optional()
      .describe("Normalisation before each layer. Default: the preset's value, otherwise LayerNorm."),
    activation: z
      .enum(['GELU', 'SwiGLU'])
      .optional()
      .describe(
        "Activation of the MLP and the experts; SwiGLU has a third matrix. Default: the preset's value, otherwise GELU.",
      ),
    positions: z
      .enum(['Learned', 'RoPE'])
      .optional()
      .describe(
        "Learned: position embeddings. RoPE: rotated queries and keys. Default: the preset's value, otherwise Learned.",
      ),
    experts: z
      .int()
      .min(1)
      .max(1024)
      .optional()
      .describe("Routed experts of each MoE layer, over all ranks. Default: the preset's value, otherwise 8."),
    topK: z
      .int()
      .min(1)
      .max(2)
      .optional()
      .describe('Routed experts for each token. Only kind ScMoE has a choice. Default: 2 for Top2, otherwise 1.'),
    // "none" and not null: kubectl apply drops a null before it sends the job.
    capacityFactor: z
      .string()
      .max(32)
      .default('2')
      .describe(
        'One rank may send ceil(capacityFactor * tokens * topK / experts) tokens of a micro-batch to one expert, where tokens are those of the rank in the micro-batch; further tokens are dropped there. none: no token is dropped.',
      ),
    balanceLossCoefficient: decimal
      .default('0.01')
      .describe(
        'Weight of the load-balance loss E * sum_e f_e P_e of each MoE layer, where f_e is the share of choices and P_e the mean probability of expert e in one micro-batch over all ranks.',
      ),
    routerZLossCoefficient: decimal
      .default('0')
      .describe(
        "Weight of the router's z-loss (arXiv 2202.08906) of each MoE layer, the mean square of the log-sum-exp of a token's logits. It keeps the logits small.",
      ),
  })
  .describe('The language model.')
