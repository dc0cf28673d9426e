// Sizes of known models (arXiv 2404.05019, table 8), and the values of the fields of spec.model
// that a job leaves out.

import type { ScMoEJobSpec } from './scmoejob.ts'

export type Model = ScMoEJobSpec['model']
type Given<T> = { [K in keyof T]-?: Exclude<T[K], undefined> }

/** Fields that have the preset's value if the job leaves them out. */
export type Governed = Given<
  Pick<
    Model,
    | 'blocks'
    | 'moeLayerFrequency'
    | 'hiddenSize'
    | 'heads'
    | 'feedForwardSize'
    | 'vocabularySize'
    | 'tieEmbeddings'
    | 'biases'
    | 'norm'
    | 'activation'
    | 'positions'
    | 'experts'
  >
>
/** Without `keyValueHeads` every head has a key and a value of its own. */
export type Preset = Governed & { keyValueHeads?: number }

/** Every field of spec.model with its value. */
export interface ResolvedModel extends Given<Omit<Model, 'preset' | 'capacityFactor'>> {
  /** Routed experts for each representation of a token; 0 for kind Dense. */
  topK: number
  /** 1 for a kind without shortcut. */
  shortcutPosition: 1 | 2 | 3
  /** A decimal, or null if no token is dropped. */
  capacityFactor: string | null
}

const GPT = {
  moeLayerFrequency: 2,
  biases: true,
  norm: 'LayerNorm',
  activation: 'GELU',
  positions: 'Learned',
} as const

/** A byte-level model: the preset `tiny`, and the values of a job without preset. */
export const GENERIC: Preset = {
  ...GPT,
  blocks: 4,
  hiddenSize: 256,
  heads: 4,
  feedForwardSize: 1024,
  vocabularySize: 256,
  tieEmbeddings: false,
  experts: 8,
}

const GPT_TIED = { ...GPT, vocabularySize: 50_257, tieEmbeddings: true } as const

/** The table gives the sizes of kind Top2. */
export const PRESETS: Readonly<Record<NonNullable<Model['preset']>, Preset>> = {
  tiny: GENERIC,
  /** 323 million parameters. */
  'gpt2-moe-small': { ...GPT_TIED, blocks: 12, hiddenSize: 768, heads: 12, feedForwardSize: 3072, experts: 8 },
  /**
   * 1.7 billion. The table gives no feed-forward size: 4d would make 1.86 billion, and 3712 is the
   * multiple of 128 that makes 1.7.
   */
  'gpt2-moe-medium': { ...GPT_TIED, blocks: 24, hiddenSize: 1024, heads: 16, feedForwardSize: 3712, experts: 16 },
  /** 4.1 billion. */
  'gpt3-moe-xl': { ...GPT_TIED, blocks: 24, hiddenSize: 2048, heads: 32, feedForwardSize: 8192, experts: 8 },
  /** 6.7 billion: 5376 is the nearest multiple of 256 below 8d/3 and makes that number. */
  'llama2-moe': {
    blocks: 24,
    moeLayerFrequency: 1,
    hiddenSize: 2048,
    heads: 16,
    keyValueHeads: 4,
    feedForwardSize: 5376,
    vocabularySize: 32_000,
    tieEmbeddings: false,
    biases: false,
    norm: 'RMSNorm',
    activation: 'SwiGLU',
    positions: 'RoPE',
    experts: 8,
  },
}

/** Routed experts for each representation of a token; DGMoE has two representations. */
export const DEFAULT_TOP_K: Readonly<Record<Model['kind'], number>> = {
  Dense: 0,
  Top1: 1,
  Top2: 2,
  SharedExpert: 1,
  ScMoE: 1,
  DGMoE: 1,
}

export const hasShortcut = (kind: Model['kind']): boolean => kind === 'ScMoE' || kind === 'DGMoE'

export const hasSharedExpert = (kind: Model['kind']): boolean => kind === 'ScMoE' || kind === 'SharedExpert'

/** Different experts that one token needs; with DGMoE one for each of its two representations. */
export const expertsPerToken = ({ kind, topK }: Pick<ResolvedModel, 'kind' | 'topK'>): number =>
  kind === 'DGMoE' ? 2 : topK

/**
 * Every field of the model: the job's value, otherwise the preset's, otherwise the generic default.
 * `model` has the schema's defaults.
 */
export function resolveModel(model: Model): ResolvedModel {
  const base = model.preset === undefined ? GENERIC : PRESETS[model.preset]
  const heads = model.heads ?? base.heads
  const moeLayerFrequency = model.moeLayerFrequency ?? base.moeLayerFrequency
  return {
    kind: model.kind,
    shortcutPosition: shortcutPositionOf(model, moeLayerFrequency),
    coefficientGate: model.coefficientGate ?? (model.kind === 'ScMoE' ? 'CG1' : 'DirectAdd'),
    blocks: model.blocks ?? base.blocks,
    moeLayerFrequency,
    hiddenSize: model.hiddenSize ?? base.hiddenSize,
    heads,
    keyValueHeads: model.keyValueHeads ?? base.keyValueHeads ?? heads,
    feedForwardSize: model.feedForwardSize ?? base.feedForwardSize,
    vocabularySize: model.vocabularySize ?? base.vocabularySize,
    tieEmbeddings: model.tieEmbeddings ?? base.tieEmbeddings,
    biases: model.biases ?? base.biases,
    norm: model.norm ?? base.norm,
    activation: model.activation ?? base.activation,
    positions: model.positions ?? base.positions,
    experts: model.experts ?? base.experts,
    topK: model.topK ?? DEFAULT_TOP_K[model.kind],
    capacityFactor: model.capacityFactor === 'none' ? null : model.capacityFactor,
    balanceLossCoefficient: model.balanceLossCoefficient,
    routerZLossCoefficient: model.routerZLossCoefficient,
  }
}

/** The default is 1 if every block has an MoE layer, as positions 2 and 3 need one without. */
function shortcutPositionOf({ kind, shortcutPosition }: Model, moeLayerFrequency: number): 1 | 2 | 3 {
  if (!hasShortcut(kind)) return 1
  return shortcutPosition ?? (moeLayerFrequency >= 2 ? 2 : 1)
}
