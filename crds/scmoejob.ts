// ScMoEJob v1alpha1: the one source of the CRD's schema, the static types, run-time validation and defaults.
// Floating-point settings are decimal strings: Kubernetes API conventions allow no floats.

import { z } from 'zod'
import { CONTROLLER } from './contract.ts'
import { LIFE_CYCLE, LONGEST_DEADLINE } from './life-cycle.ts'

const DECIMAL = '[0-9]+(\\.[0-9]+)?([eE]-?[0-9]{1,2})?'
const decimal = z
  .string()
  .max(32)
  .regex(new RegExp(`^${DECIMAL}$`), 'must be a decimal number in quotes, such as "0.0006" or "6e-4"')

/** Fields that a preset decides have no default here, or the API server would fill them in: see presets.ts, which the descriptions repeat. */
const Model = z
  .strictObject({
    preset: z
      .enum(['tiny', 'gpt2-moe-small', 'gpt2-moe-medium', 'gpt3-moe-xl', 'llama2-moe'])
      .optional()
      .describe(
        'Sizes of a known model (table 8 of arXiv 2404.05019) for the fields that are left out; tiny: the defaults below.',
      ),
    kind: z
      .enum(['Dense', 'Top1', 'Top2', 'SharedExpert', 'ScMoE', 'DGMoE'])
      .default('ScMoE')
      .describe(
        'Architecture. ScMoE: a shared expert, and routed experts fed by a shortcut from an earlier layer; DGMoE: one expert for the shortcut and one for the present layer; SharedExpert, Top1 and Top2: MoE without shortcut; Dense: no MoE.',
      ),
    shortcutPosition: z
      .literal([1, 2, 3])
      .optional()
      .describe(
        'Where the shortcut of ScMoE and DGMoE starts in the preceding block: 1 after its MLP, 2 after its attention, 3 at its input. Default: 2; 1 where every block carries MoE.',
      ),
    coefficientGate: z
      .enum(['DirectAdd', 'CG1', 'CG2'])
      .optional()
      .describe(
        'How the shared and the routed experts are added: as they are, the shared one times a sigmoid, or both times a softmax. Default: CG1 for ScMoE, DirectAdd for SharedExpert.',
      ),
    blocks: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe('Transformer blocks, a multiple of moeLayerFrequency. Default: of the preset, else 4.'),
    moeLayerFrequency: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe(
        'The last of every so many blocks carries the MoE layer: 1 every block, 2 every second one. Default: of the preset, else 2.',
      ),
    hiddenSize: z.int().min(8).max(16_384).optional().describe('Model width d. Default: of the preset, else 256.'),
    heads: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe('Attention heads; must divide hiddenSize. Default: of the preset, else 4.'),
    keyValueHeads: z
      .int()
      .min(1)
      .max(256)
      .optional()
      .describe('Heads of keys and values, each shared by equally many heads. Default: of the preset, else heads.'),
    feedForwardSize: z
      .int()
      .min(8)
      .max(65_536)
      .optional()
      .describe('Width of the MLP, of the shared expert and of each expert. Default: of the preset, else 1024.'),
    vocabularySize: z
      .int()
      .min(2)
      .max(1_048_576)
      .optional()
      .describe('Different tokens; every token of the data must be below. Default: of the preset, else 256.'),
    tieEmbeddings: z
      .boolean()
      .optional()
      .describe('Whether the output layer is the token embedding. Default: of the preset, else false.'),
    biases: z.boolean().optional().describe('Whether linear layers have biases. Default: of the preset, else true.'),
    norm: z
      .enum(['LayerNorm', 'RMSNorm'])
      .optional()
      .describe('Normalisation before each layer. Default: of the preset, else LayerNorm.'),
    activation: z
      .enum(['GELU', 'SwiGLU'])
      .optional()
      .describe('In the MLP and the experts; SwiGLU has a third matrix. Default: of the preset, else GELU.'),
    positions: z
      .enum(['Learned', 'RoPE'])
      .optional()
      .describe('Learned position embeddings, or rotated queries and keys. Default: of the preset, else Learned.'),
    experts: z
      .int()
      .min(1)
      .max(1024)
      .optional()
      .describe('Routed experts per MoE layer, over all ranks. Default: of the preset, else 8.'),
    topK: z.int().min(1).max(2).optional().describe('Routed experts per token. Default: 2 for Top2, else 1.'),
    // Not null for none: kubectl apply drops a null before it sends the job.
    capacityFactor: z
      .string()
      .max(32)
      .regex(new RegExp(`^(${DECIMAL}|none)$`), 'must be a decimal number in quotes, such as "2", or none')
      .default('2')
      .describe(
        'One rank may send ceil(capacityFactor * tokens * topK / experts) tokens to one expert; later tokens are dropped there. none: no token is dropped.',
      ),
    balanceLossCoefficient: decimal.default('0.01').describe('Weight of the load-balance loss.'),
    routerZLossCoefficient: decimal
      .default('0')
      .describe("Weight of the router's z-loss (arXiv 2202.08906), which keeps its logits small."),
  })
  .describe('The language model.')

const Optimizer = z
  .strictObject({
    learningRate: decimal.default('6e-4').describe('Peak learning rate of AdamW.'),
    warmupSteps: z
      .int()
      .min(0)
      .max(1_000_000)
      .default(20)
      .describe('Steps of linear warm-up; after it a cosine decays to a tenth.'),
    weightDecay: decimal.default('0.1').describe('Decoupled weight decay, on matrices only.'),
    gradientClipNorm: decimal.default('1').describe('Global gradient norm above which gradients are scaled down.'),
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
      .describe('Sequences per step over all ranks; a multiple of ranks times microBatches.'),
    microBatches: z
      .int()
      .min(1)
      .max(65_536)
      .default(1)
      .describe('Parts of the batch that run one after another, their gradients added up: less memory, the same step.'),
    recompute: z
      .boolean()
      .default(false)
      .describe(
        'Whether the backward pass computes activations again instead of keeping them: less memory, more time.',
      ),
    precision: z
      .enum(['float32', 'bfloat16'])
      .default('float32')
      .describe(
        'What activations, their gradients and the weights that matrix products read are kept in; bfloat16 needs workers.gpusPerWorker. Parameters, gradients of weights, moments and checkpoints are float32 in both. Changed only while the job is suspended.',
      ),
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
    path: z.string().min(1).max(4096).optional().describe('A file in a volume that workers.template mounts.'),
    tokens: z
      .enum(['bytes', 'uint16', 'uint32'])
      .default('bytes')
      .describe('What the file holds: text, of which each byte is a token, or little-endian token numbers.'),
  })
  .describe('Training text. Exactly one of builtin and path; default builtin: moby-dick.')

const Overlap = z
  .strictObject({
    strategy: z
      .enum(['Auto', 'Sequential', 'Pipelined', 'Shortcut'])
      .default('Auto')
      .describe(
        'Auto measures a few steps and takes the schedule with the shortest predicted step, after a trial of a few steps where predictions are within 3 %; Sequential waits for every all-to-all; Pipelined runs it in chunks, beside the experts; Shortcut runs it beside attention, MLP and shared expert.',
      ),
    slot: z
      .int()
      .min(1)
      .max(5)
      .optional()
      .describe(
        'Where the routed experts run in the forward pass, counted in the layers beside which the all-to-all runs: 1 before the first, 2 after it, up to after the last. Those layers are the shared expert for SharedExpert; for ScMoE attention and shared expert of the block, from shortcutPosition 2 on also the MLP before them, for 3 also the attention before it; for DGMoE the same without shared expert. Default: chosen by measurement.',
      ),
    chunks: z
      .literal([1, 2, 4, 8])
      .optional()
      .describe(
        'Parts of an all-to-all, so that experts work on one while the next travels. Default: chosen by measurement.',
      ),
    exchange: z
      .enum(['Counted', 'Padded'])
      .default('Counted')
      .describe(
        'What an all-to-all carries. Counted: the rows that were routed, of which the host of a GPU must read the number first. Padded: as many rows for each expert as capacityFactor allows, so that no host waits and steps run as CUDA graphs; more travels. For GPUs.',
      ),
    nccl: z
      .strictObject({
        maxCTAs: z
          .int()
          .min(1)
          .max(64)
          .optional()
          .describe('Thread blocks that a collective may take from computation. Default: as NCCL likes.'),
        ctaPolicy: z
          .enum(['Default', 'Efficiency', 'Zero'])
          .optional()
          .describe(
            'NCCL_CTA_POLICY: Efficiency takes fewer thread blocks than the fastest transfer would, Zero none where the hardware can. From NCCL 2.27 on. Default: as NCCL likes.',
          ),
      })
      .optional()
      .describe('How much of a GPU its collectives may take. For GPUs.'),
  })
  .describe('How communication is scheduled beside computation.')

const Workers = z
  .strictObject({
    replicas: z
      .int()
      .min(1)
      .max(1024)
      .default(1)
      .describe('Worker pods. Changed only while the job is suspended, or with minReplicas.'),
    minReplicas: z
      .int()
      .min(1)
      .max(1024)
      .optional()
      .describe(
        'The fewest workers to start with where there is no room for replicas after scheduling.timeoutSeconds: as many as fit and divide experts and batch, from the last checkpoint; more again when there is room. Needs checkpoint.',
      ),
    gpusPerWorker: z
      .int()
      .min(0)
      .max(16)
      .default(0)
      .describe(
        'GPUs of each worker, one rank for each of them; 0: the worker is one rank and computes on its CPUs. Worker i has the ranks from i * gpusPerWorker on. Changed only while the job is suspended.',
      ),
    gpuResourceName: z
      .string()
      .max(317)
      .regex(
        /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/,
        'must be the name of an extended resource, such as "nvidia.com/gpu"',
      )
      .default('nvidia.com/gpu')
      .describe(
        'The resource that a node offers its GPUs as; also the key of the taint that workers with GPUs tolerate.',
      ),
    template: z
      .looseObject({})
      .optional()
      .describe(
        'Pod template merged under every worker; the container named "worker" takes image, resources, env and volumeMounts from here.',
      ),
  })
  .describe('The gang.')

const Scheduling = z
  .strictObject({
    queueName: z
      .string()
      .max(63)
      .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/, 'must be a DNS label, such as "team-a"')
      .optional()
      .describe(
        'Queue the job waits in: a LocalQueue of Kueue or a Queue of Volcano; without those it has no effect. Default: of Kueue the label kueue.x-k8s.io/queue-name of the job.',
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
                .regex(
                  /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/,
                  'must be a label of nodes, such as "topology.kubernetes.io/zone"',
                )
                .describe('Label of nodes: all workers run on nodes that have the same value.'),
            }),
          )
          .max(1)
          .optional()
          .describe('Where the workers have to be near each other.'),
      })
      .prefault({})
      .describe('What the nodes of one gang have to have in common.'),
    timeoutSeconds: z
      .int()
      .min(1)
      .max(LONGEST_DEADLINE)
      .default(300)
      .describe(
        'How long some workers may hold their nodes while others find none. Then a smaller gang is started where workers.minReplicas allows it; else all give their nodes back, and the gang is queued again.',
      ),
  })
  .describe(
    'How the workers get their nodes: all of them or none, with the provider that the operator was installed with.',
  )

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
          'Ranks that share one set of experts; divides model.experts and the number of ranks. Default: all ranks.',
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
  scheduling: Scheduling.prefault({}),
  ...LIFE_CYCLE,
  checkpoint: Checkpoint.optional(),
  reporting: z
    .strictObject({
      intervalSeconds: z.int().min(5).max(3600).default(15).describe('Time between progress reports in status.'),
    })
    .prefault({})
    .describe('How often the status is brought up to date.'),
})
export type ScMoEJobSpec = z.output<typeof ScMoEJobSpec>
