// Which actions of a plan are carried out, and in which order, where objects may be refused.

import { isGroup, type Kind, kindOf } from '../objects/wire.ts'
import type { Action } from './decision.ts'
import type { Plan } from './plan.ts'

const creates = (action: Action) => action.kind === 'create'
export const hasCreates = ({ actions }: Plan): boolean => actions.some(creates)

/**
 * The part of a plan that a refused job needs until it is tried again. Nothing is created, and the
 * status keeps the refusal.
 */
export const withoutCreates = ({ actions, report, requeueAt }: Plan): Plan => ({
  actions: actions.filter(action => !creates(action)),
  ...(report === undefined ? {} : { report }),
  ...(requeueAt === undefined ? {} : { requeueAt }),
})

/**
 * The actions in groups, each of which is begun when the one before is done. The object that stands
 * for the gang and the Secret that its pods refer to are there before the pods. With `oneFirst` one
 * pod is tried before the others, so that a gang that is refused costs one request.
 */
export function inOrder(actions: readonly Action[], oneFirst: boolean): Action[][] {
  const isPod = (action: Action) => action.kind === 'create' && action.object.kind === 'Pod'
  const before = actions.filter(action => 'object' in action && comesBefore(kindOf(action.object)))
  const first = oneFirst ? actions.find(isPod) : undefined
  const then = actions.filter(action => !before.includes(action) && (first === undefined || !isPod(action)))
  const rest = actions.filter(action => first !== undefined && isPod(action) && action !== first)
  return [before, first === undefined ? then : [first, ...then], rest].filter(group => group.length > 0)
}

const comesBefore = (kind: Kind) => kind === 'Secret' || isGroup(kind)
