// Sums of gradients over ranks. Every gradient is a sum over the world's tokens. Dense gradients
// are summed over all ranks. The experts of one EP group have already seen all tokens of the group,
// so their gradients are summed only over the experts' replicas (edp).

import { groupSize } from '../program/cost.ts'
import { type Emitter, gradients } from './emitter.ts'

export function allReduce(e: Emitter, buffers: string[], io: { group: 'world' | 'ep' | 'edp'; label: string }): void {
  if (groupSize(io.group, e.config) === 1) return
  const { segment } = e
  e.at({ part: 'reduce' })
  e.op('all_reduce', { inputs: buffers, outputs: buffers, attrs: { group: io.group }, label: io.label })
  e.at(segment)
}

/**
 * Sums the gradients of one bucket over ranks. It is called where the last of them is complete, and
 * does nothing before the last micro-batch.
 */
export function reduceBucket(e: Emitter, bucket: string): void {
  if (!e.reduces) return
  const members = e.tensors.filter(tensor => tensor.bucket === bucket)
  if (members.length === 0) return
  const group = members[0]?.kind === 'expert' ? 'edp' : 'world'
  allReduce(e, gradients(members), { group, label: bucket })
}
