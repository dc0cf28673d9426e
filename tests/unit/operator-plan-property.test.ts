// Whatever happens in whatever order, some things are always true.

import fc from 'fast-check'
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
  else if (what.kind === 'vanish' && name !== undefined) world.pods.delete(name)
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

it('holds for every sequence of events', () => {
  const run = (events: Event[]) => {
    const world = new World({
      workers: { replicas: 3 },
      failurePolicy: { maxRestarts: MAX_RESTARTS, backoff: { initialSeconds: 5 } },
    })
    let [attempt, restarts, end] = [0, 0, '']
    for (const what of events) {
      happen(world, what)
      for (let i = 0; i < 5; i++) {
        const before = new Set([...world.pods.values()].map(attemptOf))
        const wanted = world.step()
        const made = wanted.actions.flatMap(action =>
          action.kind === 'create' && action.object.kind === 'Pod' ? [attemptOf(action.object)] : [],
        )
        // Pods are made only where no pod of another attempt is left, and never for a suspended or finished job.
        for (const each of made) expect([...before].every(existing => existing === each)).toBe(true)
        if (made.length > 0) expect([world.job.spec['suspend'] === true, end]).toEqual([false, ''])
      }
      const { status } = world
      const current = [...world.pods.values()].filter(pod => attemptOf(pod) === status.attempt).length
      const { active = 0, succeeded = 0, failed = 0, ready = 0 } = status.workers ?? {}
      // Only pods of one attempt are counted.
      if (end === '' && status.state !== 'Complete' && status.state !== 'Failed')
        expect(active + succeeded + failed).toBeLessThanOrEqual(current)
      expect(ready).toBeLessThanOrEqual(active)
      // Numbers only grow, and within the policy.
      expect(status.attempt ?? 0).toBeGreaterThanOrEqual(attempt)
      expect(status.restarts ?? 0).toBeGreaterThanOrEqual(restarts)
      expect(status.restarts ?? 0).toBeLessThanOrEqual(MAX_RESTARTS)
      ;[attempt, restarts] = [status.attempt ?? 0, status.restarts ?? 0]
      // The end is one of two, and stays.
      const terminal = truths(world).filter(type => type === 'Complete' || type === 'Failed')
      expect(terminal.length).toBeLessThanOrEqual(1)
      if (end !== '') expect(terminal[0]).toBe(end)
      end = terminal[0] ?? ''
      if (end !== '') expect([status.state, truths(world)]).toEqual([end, [end]])
      // What needs nothing writes nothing.
      const again = world.plan()
      expect([again.actions, again.status, again.report]).toEqual([[], undefined, undefined])
    }
  }
  fc.assert(fc.property(fc.array(event, { maxLength: 60 }), run), { numRuns: 1500 })
})

it('gets a job to its end however often it is disturbed, if it is then left alone', () => {
  const run = (events: Event[]) => {
    const world = new World({ workers: { replicas: 3 }, failurePolicy: { maxRestarts: 1000 } })
    for (const what of events) {
      happen(world, what)
      world.step()
    }
    world.edit({ suspend: false })
    for (let i = 0; i < 40 && !['Complete', 'Failed'].includes(world.status.state ?? ''); i++) {
      world.wait(400)
      world.gone()
      world.settle()
      if (world.status.state === 'Starting')
        for (const [name, pod] of world.pods) if (pod.status?.phase === 'Pending') world.ready(name)
      if (world.status.state === 'Running')
        for (const [name, pod] of world.pods) if (pod.status?.phase === 'Running') world.end(name, { exitCode: 0 })
    }
    expect(['Complete', 'Failed']).toContain(world.status.state)
  }
  fc.assert(fc.property(fc.array(event, { maxLength: 30 }), run), { numRuns: 500 })
})
