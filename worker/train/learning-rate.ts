// Linear warm-up, then a cosine to a tenth of the peak. Pure.

export interface LearningRate {
  peak: number
  warmupSteps: number
  totalSteps: number
}

/** Learning rate of the step with this index (0 = first). */
export function learningRate(step: number, { peak, warmupSteps, totalSteps }: LearningRate): number {
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps
  const length = totalSteps - warmupSteps
  const progress = length <= 1 ? 1 : Math.min(1, (step - warmupSteps) / (length - 1))
  const floor = peak / 10
  return floor + ((peak - floor) * (1 + Math.cos(Math.PI * progress))) / 2
}

/** The program's `hyper` input: [learning rate, 1 - beta1^t, 1 - beta2^t, 0] with t = step + 1 (bias corrections of Adam). */
export function hyperParameters(
  step: number,
  schedule: LearningRate,
  { beta1, beta2 }: { beta1: number; beta2: number },
): [number, number, number, number] {
  const t = step + 1
  return [learningRate(step, schedule), 1 - beta1 ** t, 1 - beta2 ** t, 0]
}
