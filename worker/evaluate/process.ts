// The process that `scmoe eval` starts. It takes one order over its channel, sends how far it is,
// and at the end the result or the reason why there is none.

import { type EvaluationMessage, EvaluationOrder } from '../../crds/evaluation.ts'
import { asFailure } from '../failure.ts'
import { evaluate } from './run.ts'

process.on('disconnect', () => process.exit())
process.once('message', order => void answer(order))

const send = (message: EvaluationMessage, sent = () => {}) => process.send?.(message, sent)

async function answer(order: unknown): Promise<void> {
  try {
    const result = await evaluate(EvaluationOrder.parse(order), (done, sequences) => send({ done, sequences }))
    send({ result }, () => process.exit())
  } catch (error) {
    send({ error: asFailure(error).message }, () => process.exit(1))
  }
}
