// The facade of this folder, which decides where and when the ops of a program run, and makes the
// memory plan and the program file of a schedule. Pure.
//
//   const emitted = emitTrain(config, rank)
//   const { scheduled } = choose(emitted, estimate(emitted, machine), { strategy: 'Auto' })
//   engine.load(assemble(scheduled, config, rank))

export { assemble } from './assemble.ts'
export { choices, choose, describe, schedule } from './choose.ts'
export { contenders, Trial } from './contenders.ts'
export { estimate, type Machine, makespan } from './makespan.ts'
export { contentionOf, durations, latencyOf, type Sharing } from './measured.ts'
export { planMemory } from './memory.ts'
export { hiddenPercentOf, type Overlap, overlap, overlapOfAll } from './overlap.ts'
export { timeline } from './timeline.ts'
export {
  type Candidate,
  type Choice,
  type Profile,
  type Spans,
  type Strategy,
  type Times,
  type Wish,
} from './types.ts'
