// The learning rate: a linear warm-up, then a cosine down to a tenth of the peak. A run that goes
// on from a checkpoint goes on from the value that was reached. Pure.

export interface LearningRate {
  peak: number
  warmupSteps: number
  totalSteps: number
  /** Steps done where this schedule took over from another one. Default: 0. */
  from?: number | undefined
  /** The share of the peak that the step before `from` had. Default: 0. */
  reached?: number | undefined
}

/** The share of the peak that the last step has. */
const FLOOR = 0.1

/** The learning rate of the step with this index, from 0. */
export const learningRate = (step: number, rate: LearningRate): number => rate.peak * share(step, rate)

/**
 * With W = warmupSteps, T = totalSteps, and (f, r) = (from, reached):
 *
 *     s < W     r + (1 - r) (s + 1 - f) / (W - f)
 *     s >= W    0.1 + (v - 0.1) (1 + cos(pi (s - a) / (T - 1 - a))) / 2
 *
 * The decay begins at (a, v) = (W, 1), or at (f - 1, r) if the warm-up was over at f.
 */
function share(step: number, { warmupSteps, totalSteps, from = 0, reached = 0 }: LearningRate): number {
  if (step < warmupSteps) return reached + ((1 - reached) * (step + 1 - from)) / (warmupSteps - from)
  const [begin, value] = from > warmupSteps ? [from - 1, reached] : [warmupSteps, 1]
  const length = totalSteps - 1 - begin
  const progress = length <= 0 ? 1 : Math.min(1, (step - begin) / length)
  return FLOOR + ((value - FLOOR) * (1 + Math.cos(Math.PI * progress))) / 2
}

/**
 * The schedule of a run that goes on after `step` steps, the last of which followed `before`. With
 * the same warm-up and number of steps it is `before`. Otherwise it begins here, at the value that
 * was reached, so raised steps do not make the learning rate jump. Another peak scales it.
 */
export function continued(before: LearningRate | undefined, wanted: LearningRate, step: number): LearningRate {
  if (before === undefined || step === 0) return wanted
  const { warmupSteps, totalSteps } = wanted
  const hasNotDecayed = step <= warmupSteps || before.totalSteps === totalSteps
  if (before.warmupSteps === warmupSteps && hasNotDecayed) return { ...before, ...wanted }
  return { ...wanted, from: step, reached: share(step - 1, before) }
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
