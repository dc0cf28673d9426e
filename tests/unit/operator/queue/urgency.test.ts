import { describe, expect, it } from 'vitest'
import { recordRefusal } from '../../../../operator/plan/refusal.ts'
import { isUrgent } from '../../../../operator/plan/urgency.ts'
import { runningWorld, World } from '../../../support/operator-world.ts'

const urgent = (world: World) => isUrgent(world.job, [...world.pods.values()])

describe('a job is looked at first', () => {
  it('until it has its pods, and not while it just waits for them or runs', () => {
    const world = new World()
    expect(urgent(world)).toBe(true)
    world.settle()
    expect(urgent(world)).toBe(false)
    expect(urgent(runningWorld())).toBe(false)
  })

  // Seen failing with only jobs without pods urgent, and with a job in its back-off not urgent.
  it('from a failure until its old pods are told to stop, and again from their end, to wait for the end of the back-off', () => {
    const world = runningWorld()
    world.end('gpt-worker-1', { exitCode: 70 })
    expect(urgent(world)).toBe(true)
    world.step()
    expect(world.status.state).toBe('Restarting')
    expect(urgent(world)).toBe(true)
    world.step()
    expect(urgent(world)).toBe(false)
    world.gone()
    expect(urgent(world)).toBe(true)
    expect(world.plan()).toMatchObject({ actions: [], requeueAt: world.now + 10_000 })
  })

  // Seen failing with every job without pods urgent: 120 refused jobs were a burst without end.
  it('but not again while the API server refuses its pods, unless somebody edits it', () => {
    const world = new World()
    const { status } = recordRefusal(world.job, { reason: 'CreateRefused', message: 'exceeded quota' }, world.now)
    Object.assign(world.job, { status })
    expect(urgent(world)).toBe(false)
    world.edit({ reporting: { intervalSeconds: 20 } })
    expect(urgent(world)).toBe(true)
  })

  it('never where it is suspended, finished, deleted, or left to another controller', () => {
    expect(urgent(new World({ suspend: true }))).toBe(false)
    expect(urgent(new World({ managedBy: 'kueue.x-k8s.io/multikueue' }))).toBe(false)
    const failed = runningWorld({ failurePolicy: { maxRestarts: 0 } })
    failed.end('gpt-worker-1', { exitCode: 70 })
    failed.settle()
    expect(failed.status.state).toBe('Failed')
    expect(urgent(failed)).toBe(false)
    const deleted = new World()
    deleted.job.metadata.deletionTimestamp = new Date(deleted.now).toISOString()
    expect(urgent(deleted)).toBe(false)
  })
})
