// Properties of plans that hold for every sequence of events. Each was seen failing: with one
// restart too many, with a grown gang that kept its attempt number, with finished jobs that were
// judged again, and with a probe that was created while another pod of its name was ending.

import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { EXIT, LABEL } from '../../../crds/contract.ts'
import type { Pod } from '../../../operator/objects/wire.ts'
import type { Plan } from '../../../operator/plan/plan.ts'
import { attemptOf, World } from '../../support/operator-world.ts'

const MAX_RESTARTS = 1
/** A rank from 0 to 3. The batch of 8 can be divided by the sizes 1, 2 and 4. */
const rank = fc.integer({ min: 0, max: 3 })
const codes = [1, 137, ...Object.values(EXIT).map(({ code }) => code)]
const happening = <K extends string>(kind: K) => ({ kind: fc.constant(kind) })

const event = fc.oneof(
  { weight: 6, arbitrary: fc.record({ ...happening('ready'), rank }) },
  { weight: 1, arbitrary: fc.record({ ...happening('unready'), rank }) },
  { weight: 3, arbitrary: fc.record({ ...happening('end'), rank, exitCode: fc.constantFrom(...codes) }) },
  { weight: 3, arbitrary: fc.record({ ...happening('end'), rank, exitCode: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ ...happening('remove'), rank, disrupted: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ ...happening('vanish'), rank }) },
  { weight: 4, arbitrary: fc.record(happening('gone')) },
  { weight: 2, arbitrary: fc.record({ ...happening('suspend'), suspend: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ ...happening('wait'), seconds: fc.integer({ min: 1, max: 60 }) }) },
  { weight: 1, arbitrary: fc.record({ ...happening('wait'), seconds: fc.integer({ min: 300, max: 2000 }) }) },
  { weight: 4, arbitrary: fc.record(happening('turn')) },
  { weight: 3, arbitrary: fc.record({ ...happening('answer'), step: fc.integer({ min: 0, max: 3 }) }) },
  { weight: 3, arbitrary: fc.record({ ...happening('room'), room: fc.integer({ min: 0, max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ ...happening('scale'), replicas: fc.constantFrom(1, 2, 4) }) },
  { weight: 1, arbitrary: fc.record({ ...happening('raise'), steps: fc.integer({ min: 101, max: 200 }) }) },
  // The operator dies after some of its actions, before it writes the status.
  { weight: 2, arbitrary: fc.record({ ...happening('die'), actions: fc.integer({ min: 0, max: 6 }) }) },
)
type Event = typeof event extends fc.Arbitrary<infer E> ? E : never

const kind = fc.constantFrom('fixed' as const, 'elastic' as const)
type Kind = typeof kind extends fc.Arbitrary<infer K> ? K : never

function worldOf(what: Kind, maxRestarts: number): World {
  const shape =
    what === 'fixed'
      ? { workers: { replicas: 4 } }
      : { workers: { replicas: 4, minReplicas: 1 }, checkpoint: { volume: { emptyDir: {} } } }
  const failurePolicy = { maxRestarts, backoff: { initialSeconds: 5, resetAfterSeconds: 400 } }
  return new World({ ...shape, failurePolicy, podTerminationTimeoutSeconds: 900 })
}

/** Applies an event to one pod, if the pod exists and the event is possible in its state. */
function happenTo(world: World, name: string, what: Extract<Event, { rank: number }>): void {
  const pod = world.pods.get(name)
  const placed = pod?.spec?.nodeName !== undefined
  const alive = placed && (pod?.status?.phase === 'Pending' || pod?.status?.phase === 'Running')
  if (pod === undefined) return
  if (what.kind === 'vanish') world.vanish(name)
  else if (what.kind === 'remove')
    world.remove(name, what.disrupted ? { reason: 'PreemptionByScheduler', message: 'preempted' } : undefined)
  else if (!alive) return
  else if (what.kind === 'ready') world.ready(name)
  else if (what.kind === 'unready') world.unready(name)
  else world.end(name, { exitCode: what.exitCode })
}

function happen(world: World, what: Event): void {
  const { state } = world.status
  if ('rank' in what) happenTo(world, `gpt-worker-${what.rank}`, what)
  else if (what.kind === 'gone') world.gone()
  else if (what.kind === 'suspend') world.edit({ suspend: what.suspend })
  else if (what.kind === 'wait') world.wait(what.seconds)
  else if (what.kind === 'answer' && (state === 'Running' || state === 'Stalled')) world.answers(what.step)
  else if (what.kind === 'scale') scale(world, what.replicas)
  else if (what.kind === 'raise') raise(world, what.steps)
  else if (what.kind === 'die') world.step({ actions: what.actions, write: false })
  else if (what.kind === 'turn') turn(world)
  else if (what.kind === 'room') {
    world.room = what.room
    world.schedule()
  }
}

function scale(world: World, replicas: number): void {
  const workers: object = world.job.spec['workers'] ?? {}
  if ('minReplicas' in workers || world.job.spec['suspend'] === true) world.edit({ workers: { ...workers, replicas } })
}

/** The API server refuses fewer steps than before, and other steps of a job that is over. */
function raise(world: World, steps: number): void {
  const { steps: before = 0 } = world.job.spec['training'] as { steps?: number }
  if (steps > before && terminalOf(world).length === 0) world.edit({ training: { steps } })
}

/** Lets the old pods go, the back-off end, and the new pods be created and become ready. */
function turn(world: World): void {
  for (let i = 0; i < 4; i++) {
    world.gone()
    world.schedule()
    world.wait(5)
    world.step()
  }
  for (const [name, { spec, status }] of world.pods)
    if (spec?.nodeName !== undefined && status?.phase === 'Pending') world.ready(name)
}

/** Doubtful is about the spec, whatever the state. */
const truths = (world: World) =>
  world.status.conditions
    ?.filter(({ type, status }) => status === 'True' && type !== 'Doubtful')
    .map(({ type }) => type) ?? []
const terminalOf = (world: World) => truths(world).filter(type => type === 'Complete' || type === 'Failed')
const sizeOf = (pod: Pod) => Number(pod.metadata.labels?.[LABEL.worldSize])

type Check = readonly [holds: boolean, sentence: string]

/** Checks one step: the pods that it created, and the status, given the pods before. */
function checkStep(world: World, before: { pods: Pod[]; attempt: number; over: boolean }, { actions }: Plan): Check[] {
  const made = actions.flatMap(action =>
    action.kind === 'create' && action.object.kind === 'Pod' ? [action.object as Pod] : [],
  )
  const gang = made.filter(pod => attemptOf(pod) === before.attempt)
  const { attempt: counted, workers, state } = world.status
  const { active = 0, succeeded = 0, failed = 0, ready = 0, desired = 0 } = workers ?? {}
  const ofGang = (pod: Pod) => attemptOf(pod) === counted && sizeOf(pod) === desired
  // Pods that this step deleted were still counted.
  const current = new Set([...before.pods, ...world.pods.values(), ...world.gonePods.values()].filter(ofGang))
  const over = state === 'Complete' || state === 'Failed'
  const replicas = Number(Object(world.job.spec['workers'])['replicas'])
  return [
    [
      gang.every(pod =>
        before.pods.every(other => attemptOf(other) === attemptOf(pod) && sizeOf(other) === sizeOf(pod)),
      ),
      'pods of a gang are made only where no other pod is left',
    ],
    [
      made.length === gang.length || state === 'Running',
      'pods that ask for room are made only beside a gang that runs',
    ],
    [made.length === 0 || (world.job.spec['suspend'] !== true && !before.over), 'none for a suspended or finished job'],
    [over || active + succeeded + failed <= Math.min(current.size, desired), 'only pods of one attempt are counted'],
    [ready <= active, 'what is ready is active'],
    // A gang that has lost a worker is judged for that first, a few seconds later.
    [
      state !== 'Running' || active + succeeded < desired || desired <= replicas,
      'no whole gang runs with more than was asked for',
    ],
  ]
}

/** Checks a status that has settled, given the status before. */
function checkStatus(
  world: World,
  before: { attempt: number; restarts: number; counted: number; end: string },
): Check[] {
  const { attempt = 0, restarts = 0, restartsCountTowardsMax: counted = 0, state } = world.status
  const terminal = terminalOf(world)
  const again = world.plan()
  return [
    [attempt >= before.attempt && restarts >= before.restarts && counted >= before.counted, 'numbers only grow'],
    [counted <= MAX_RESTARTS && counted <= restarts, 'restarts that count stay within the policy'],
    [
      state === 'Running' || !world.status.progress?.estimatedRemainingSeconds,
      'only a job that runs has a time that remains',
    ],
    [terminal.length <= 1, 'a job is not both Complete and Failed'],
    [before.end === '' || terminal[0] === before.end, 'the end stays'],
    [
      terminal.length === 0 || (state === terminal[0] && truths(world).join() === terminal[0]),
      'nothing else is true of a finished job',
    ],
    [
      again.actions.length === 0 && again.status === undefined && again.report === undefined,
      'nothing is written twice',
    ],
  ]
}

/** The properties that a sequence of events breaks, as sentences. */
function broken(events: readonly Event[], what: Kind): string[] {
  const world = worldOf(what, MAX_RESTARTS)
  const list: string[] = []
  const judge = (checks: readonly Check[]) => {
    for (const [holds, sentence] of checks) if (!holds) list.push(`${sentence}: ${JSON.stringify(world.status)}`)
  }
  let before = { attempt: 0, restarts: 0, counted: 0, end: '' }
  for (const each of events) {
    happen(world, each)
    for (let i = 0; i < 8; i++) {
      const pods = [...world.pods.values()]
      const seen = { pods, attempt: world.status.attempt ?? 1, over: terminalOf(world).length > 0 }
      const done = world.step()
      judge(checkStep(world, seen, done))
      if (done.actions.length === 0 && done.status === undefined && done.report === undefined) break
    }
    judge(checkStatus(world, before))
    const { attempt = 0, restarts = 0, restartsCountTowardsMax: counted = 0 } = world.status
    before = { attempt, restarts, counted, end: terminalOf(world)[0] ?? '' }
  }
  return list
}

/** The state of a job that was disturbed, and then has nothing but its kubelet act on it. */
function stateAfter(events: readonly Event[], what: Kind): string | undefined {
  const world = worldOf(what, 1000)
  for (const each of events) {
    happen(world, each)
    world.step()
  }
  world.edit({ suspend: false })
  world.room = Number.POSITIVE_INFINITY
  for (let i = 0; i < 40; i++) {
    world.wait(400)
    world.gone()
    world.schedule()
    world.settle()
    const { state, attempt } = world.status
    for (const [name, pod] of world.pods) {
      if (attemptOf(pod) !== attempt) continue
      if (state === 'Starting' && pod.status?.phase === 'Pending') world.ready(name)
      if (state === 'Running' && pod.status?.phase === 'Running') world.end(name, { exitCode: 0 })
    }
  }
  return world.status.state
}

const sequence = (maxLength: number) => fc.array(event, { maxLength })

it('holds for every sequence of events', () => {
  const property = fc.property(sequence(60), kind, (events, what) => {
    expect(broken(events, what)).toEqual([])
  })
  fc.assert(property, { numRuns: 1000 })
})

it('gets a job to its end however often it is disturbed, if it is then left alone', () => {
  const property = fc.property(sequence(30), kind, (events, what) => {
    expect(['Complete', 'Failed']).toContain(stateAfter(events, what))
  })
  fc.assert(property, { numRuns: 300 })
})
