// The process that `scmoe eval` starts: takes one order over its channel, sends how far it is, and at the end the result or what is wrong.

import { asFailure } from '../failure.ts'
import { Evaluation, EvaluationOrder, evaluate } from './run.ts'

process.on('disconnect', () => process.exit())
process.once('message', order => void answer(order))

async function answer(order: unknown): Promise<void> {
  try {
    const progress = (done: number, sequences: number) => process.send?.({ done, sequences })
    const result = Evaluation.parse(await evaluate(EvaluationOrder.parse(order), progress))
    process.send?.({ result }, () => process.exit())
  } catch (error) {
    process.send?.({ error: asFailure(error).message }, () => process.exit(1))
  }
}
