// Tests of what the operator says about a valid job that would probably not do what is meant.

import { expect, it } from 'vitest'
import { World } from '../../../support/operator-world.ts'

const SIDECAR = { workers: { replicas: 1, template: { spec: { containers: [{ name: 'pytorch' }] } } } }
const doubt = (world: World) => world.status.conditions?.find(({ type }) => type === 'Doubtful')

/** The events of all plans until nothing is left to do. */
function doubts(world: World): (string | undefined)[] {
  return Array.from({ length: 5 }, () => world.step().doubt?.note).filter(note => note !== undefined)
}

// Seen failing without the condition in the status.
it('a container with a wrong name: a condition in the status, and one event', () => {
  const world = new World(SIDECAR)
  const [said, ...more] = doubts(world)
  expect(said).toContain('none of them is named worker')
  expect(more).toEqual([])
  expect(doubt(world)).toMatchObject({ status: 'True', reason: 'SpecWarnings', message: said })
  world.ready('gpt-worker-0')
  expect(doubts(world)).toEqual([])
  world.end('gpt-worker-0', { exitCode: 0 })
  expect(doubts(world)).toEqual([])
  expect(world.status.state).toBe('Complete')
  expect(doubt(world)).toMatchObject({ status: 'True' })
})

it('a job without doubts has no such condition; one that was corrected says so', () => {
  const plain = new World()
  expect(doubts(plain)).toEqual([])
  expect(doubt(plain)).toBeUndefined()
  const world = new World({ ...SIDECAR, suspend: true })
  world.settle()
  expect(doubt(world)).toMatchObject({ status: 'True' })
  world.edit({ workers: { replicas: 1 } })
  expect(doubts(world)).toEqual([])
  expect(doubt(world)).toMatchObject({ status: 'False', reason: 'NoWarnings', message: '' })
})
