// Whatever happens in whatever order, some things are always true.

import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { EXIT } from '../../crds/contract.ts'
import { attemptOf, World } from './operator-world.ts'

const MAX_RESTARTS = 1
const rank = fc.integer({ min: 0, max: 2 })
const codes = [1, 137, ...Object.values(EXIT).map(({ code }) => code)]

const event = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('ready' as const), rank }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('end' as const), rank, exitCode: fc.constantFrom(...codes) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('end' as const), rank, exitCode: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), rank }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('vanish' as const), rank }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('gone' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('suspend' as const), suspend: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 60 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('turn' as const) }) },
  // The operator dies after some of its actions, before its status write.
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('die' as const), actions: fc.integer({ min: 0, max: 4 }) }) },
)
type Event = typeof event extends fc.Arbitrary<infer E> ? E : never

function happen(world: World, what: Event): void {
  const pod = 'rank' in what ? world.pods.get(`gpt-worker-${what.rank}`) : undefined
  const name = pod?.metadata.name
  const alive = pod?.status?.phase === 'Pending' || pod?.status?.phase === 'Running'
  if (what.kind === 'ready' && name !== undefined && pod?.status?.phase === 'Pending') world.ready(name)
  else if (what.kind === 'end' && name !== undefined && alive) world.end(name, { exitCode: what.exitCode })
  else if (what.kind === 'remove' && name !== undefined) world.remove(name)
  else if (what.kind === 'vanish' && name !== undefined) world.vanish(name)
  else if (what.kind === 'gone') world.gone()
  else if (what.kind === 'suspend') world.edit({ suspend: what.suspend })
  else if (what.kind === 'wait') world.wait(what.seconds)
  else if (what.kind === 'turn') {
    // The old pods go, the back-off ends, the new pods are made and become ready.
    for (let i = 0; i < 4; i++) {
      world.gone()
      world.wait(5)
      world.step()
    }
    for (const [each, { status }] of world.pods) if (status?.phase === 'Pending') world.ready(each)
  } else if (what.kind === 'die') world.step({ actions: what.actions, write: false })
}

const truths = (world: World) =>
  world.status.conditions?.filter(({ status }) => status === 'True').map(({ type }) => type) ?? []

/** What is not as it always has to be, as sentences. */
function broken(events: readonly Event[]): string[] {
  const world = new World({
    workers: { replicas: 3 },
    failurePolicy: { maxRestarts: MAX_RESTARTS, backoff: { initialSeconds: 5 } },
  })
  const list: string[] = []
  const mustBe = (holds: boolean, sentence: string) =>
    holds || list.push(`${sentence}: ${JSON.stringify(world.status)}`)
  let [attempt, restarts, end] = [0, 0, '']
  for (const what of events) {
    happen(world, what)
    for (let i = 0; i < 5; i++) {
      const existing = [...world.pods.values()].map(attemptOf)
      const made = world
        .step()
        .actions.flatMap(action =>
          action.kind === 'create' && action.object.kind === 'Pod' ? [attemptOf(action.object)] : [],
        )
      mustBe(
        made.every(each => existing.every(other => other === each)),
        'pods are made only where no pod of another attempt is left',
      )
      mustBe(
        made.length === 0 || (world.job.spec['suspend'] !== true && end === ''),
        'none for a suspended or finished job',
      )
      const { attempt: counted, workers, state } = world.status
      const { active = 0, succeeded = 0, failed = 0, ready = 0 } = workers ?? {}
      const current = [...world.pods.values()].filter(pod => attemptOf(pod) === counted).length
      const over = state === 'Complete' || state === 'Failed'
      mustBe(over || active + succeeded + failed <= current, 'only pods of one attempt are counted')
      mustBe(ready <= active, 'what is ready is active')
    }
    const { status } = world
    const terminal = truths(world).filter(type => type === 'Complete' || type === 'Failed')
    mustBe((status.attempt ?? 0) >= attempt && (status.restarts ?? 0) >= restarts, 'numbers only grow')
    mustBe((status.restarts ?? 0) <= MAX_RESTARTS, 'restarts stay within the policy')
    mustBe(terminal.length <= 1, 'a job is not both Complete and Failed')
    mustBe(end === '' || terminal[0] === end, 'the end stays')
    ;[attempt, restarts, end] = [status.attempt ?? 0, status.restarts ?? 0, terminal[0] ?? '']
    mustBe(
      end === '' || (status.state === end && truths(world).join() === end),
      'nothing else is true of a finished job',
    )
    const again = world.plan()
    mustBe(
      again.actions.length === 0 && again.status === undefined && again.report === undefined,
      'nothing is written twice',
    )
  }
  return list
}

/** The state of a job that was disturbed and is then left alone by all but its kubelet. */
function stateAfter(events: readonly Event[]): string | undefined {
  const world = new World({ workers: { replicas: 3 }, failurePolicy: { maxRestarts: 1000 } })
  for (const what of events) {
    happen(world, what)
    world.step()
  }
  world.edit({ suspend: false })
  for (let i = 0; i < 40; i++) {
    world.wait(400)
    world.gone()
    world.settle()
    const { state } = world.status
    for (const [name, { status }] of world.pods) {
      if (state === 'Starting' && status?.phase === 'Pending') world.ready(name)
      if (state === 'Running' && status?.phase === 'Running') world.end(name, { exitCode: 0 })
    }
  }
  return world.status.state
}

it('holds for every sequence of events', () => {
  const property = fc.property(fc.array(event, { maxLength: 60 }), events => {
    expect(broken(events)).toEqual([])
  })
  fc.assert(property, { numRuns: 1500 })
})

it('gets a job to its end however often it is disturbed, if it is then left alone', () => {
  const property = fc.property(fc.array(event, { maxLength: 30 }), events => {
    expect(['Complete', 'Failed']).toContain(stateAfter(events))
  })
  fc.assert(property, { numRuns: 500 })
})
