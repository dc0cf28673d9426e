// The learning rate: a linear warm-up, then a cosine down to a tenth of the peak. Pure.

export interface LearningRate {
  peak: number
  warmupSteps: number
  totalSteps: number
}

/** The learning rate of the step with this index, from 0. */
export function learningRate(step: number, { peak, warmupSteps, totalSteps }: LearningRate): number {
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps
  const length = totalSteps - warmupSteps
  const progress = length <= 1 ? 1 : Math.min(1, (step - warmupSteps) / (length - 1))
  const floor = peak / 10
  return floor + ((peak - floor) * (1 + Math.cos(Math.PI * progress))) / 2
}

/**
 * The `hyper` input of programs: [learning rate, 1 - beta1^t, 1 - beta2^t, 0] with t = step + 1.
 * The middle two are the bias corrections of Adam.
 */
export function hyperParameters(
  step: number,
  schedule: LearningRate,
  { beta1, beta2 }: { beta1: number; beta2: number },
): [number, number, number, number] {
  const t = step + 1
  return [learningRate(step, schedule), 1 - beta1 ** t, 1 - beta2 ** t, 0]
}
