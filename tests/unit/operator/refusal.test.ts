// Tests of how the operator judges an object that the API server refuses, or already has.

import { describe, expect, it } from 'vitest'
import { LABEL } from '../../../crds/contract.ts'
import type { KubeObject } from '../../../operator/objects/wire.ts'
import { service } from '../../../operator/objects/workers.ts'
import { inOrder, withoutCreates } from '../../../operator/plan/plan.ts'
import { judgeExisting, mutation, recordRefusal, refusalOf } from '../../../operator/plan/refusal.ts'
import { readSpec } from '../../../operator/plan/view.ts'
import { World } from '../../support/operator-world.ts'

const world = new World()
const reading = readSpec(world.job)
if ('invalid' in reading) throw new Error(reading.invalid)
const wanted = service({ name: 'gpt', namespace: 'ns', uid: 'uid-1', spec: reading.spec })
const answer = (code: number, text: string, kind = 'services') => ({
  code,
  kind,
  message: `POST /api/v1/namespaces/ns/services: ${text}`,
})
const group = { apiVersion: 'scheduling.x-k8s.io/v1alpha1', kind: 'PodGroup', metadata: { name: 'gpt' } }

describe('a refused object', () => {
  it('stops the job until the user changes something, in the words of the server', () => {
    for (const code of [400, 403, 409, 413, 422])
      expect(refusalOf(wanted, answer(code, 'exceeded quota'))).toEqual({
        reason: 'CreateRefused',
        message: 'Service gpt: POST /api/v1/namespaces/ns/services: exceeded quota',
      })
  })

  it('is tried again with back-off where the server itself failed', () => {
    expect(refusalOf(wanted, answer(500, 'failed calling webhook'))).toMatchObject({
      reason: 'CreateFailed',
      mayPass: true,
    })
  })

  // Seen failing with `namespaces` searched in the whole message, where the path contains it.
  it('of an unknown kind names the scheduler that is missing', () => {
    expect(refusalOf(group, answer(404, '404 page not found', ''))).toMatchObject({
      reason: 'SchedulerMissing',
      message: expect.stringContaining('does not serve scheduling.x-k8s.io/v1alpha1 PodGroup'),
    })
  })

  it('says nothing about the object where its namespace is gone or the server is busy', () => {
    expect(refusalOf(wanted, answer(404, 'namespaces "ns" not found', 'namespaces'))).toBeUndefined()
    expect(refusalOf(group, answer(404, 'namespaces "ns" not found', 'namespaces'))).toBeUndefined()
    expect(refusalOf(wanted, answer(404, '404 page not found', ''))).toBeUndefined()
    expect(refusalOf(wanted, answer(503, 'overloaded'))).toBeUndefined()
  })

  it('is told once, in the status and in an event', () => {
    const refusal = { reason: 'CreateRefused', message: 'exceeded quota' }
    const record = recordRefusal(world.job, refusal, world.now)
    expect(record).toMatchObject({
      status: { state: 'Pending', ...refusal },
      note: { type: 'Warning', reason: 'CreateRefused', note: 'exceeded quota' },
    })
    expect(recordRefusal({ ...world.job, status: record.status }, refusal, world.now)).toEqual({})
  })
})

describe('the actions of a plan', () => {
  const names = (groups: ReturnType<typeof inOrder>) =>
    groups.map(actions => actions.map(action => ('object' in action ? action.object.metadata.name : action.kind)))

  // Seen failing with all actions in one group: pods were created although their group was refused.
  it('begin with the object that stands for the gang, before its pods', () => {
    const { actions } = new World({ workers: { replicas: 2 } }, 'coscheduling').plan()
    const [first, ...rest] = inOrder(actions, false)
    expect(first).toMatchObject([{ object: { kind: 'PodGroup' } }, { object: { kind: 'Secret' } }])
    expect(names(rest)).toEqual([['gpt', 'gpt-worker-0', 'gpt-worker-1']])
  })

  it('try one pod before the others where it may be refused', () => {
    const { actions } = new World({ workers: { replicas: 3 } }).plan()
    expect(names(inOrder(actions, true))).toEqual([
      ['gpt-uid-1'],
      ['gpt-worker-0', 'gpt'],
      ['gpt-worker-1', 'gpt-worker-2'],
    ])
  })

  it('create nothing until a refused job is tried again, and do what else is due', () => {
    const refused = new World()
    const { actions, status } = refused.plan()
    expect([actions.length, status?.state]).toEqual([4, 'Starting'])
    expect(withoutCreates(refused.plan())).toEqual({ actions: [] })
    refused.settle()
    refused.end('gpt-worker-1', { exitCode: 70 })
    refused.step()
    expect(withoutCreates(refused.plan()).actions).toHaveLength(2)
  })
})

describe('an object that exists already', () => {
  const found = (change: Partial<KubeObject['metadata']>): KubeObject => ({
    ...wanted,
    metadata: { ...wanted.metadata, ...change },
  })

  it('is ours where the operator created it before', () => {
    expect(judgeExisting(wanted, found({}))).toBe('ours')
  })

  it('is waited for where it stops, or is of an earlier attempt or job', () => {
    const labels = { ...wanted.metadata.labels }
    expect(judgeExisting(wanted, found({ deletionTimestamp: '2026-01-01T00:00:00Z' }))).toBe('leaving')
    expect(judgeExisting(wanted, found({ labels: { ...labels, [LABEL.attempt]: '1' } }))).toBe('leaving')
    expect(judgeExisting(wanted, found({ labels: { ...labels, [LABEL.jobUid]: 'uid-0' } }))).toBe('leaving')
  })

  it('stops the job where an earlier job of this name left it without an owner', () => {
    const labels = { ...wanted.metadata.labels, [LABEL.jobUid]: 'uid-0' }
    expect(judgeExisting(wanted, found({ labels, ownerReferences: [] }))).toMatchObject({ reason: 'NameTaken' })
  })

  it('would never be seen again if an admission webhook changed its labels', () => {
    const labels = { ...wanted.metadata.labels, 'mesh.example.com/injected': 'true' }
    expect(mutation(wanted, found({ labels }))).toBeUndefined()
    expect(mutation(wanted, found({ labels: { ...labels, [LABEL.jobUid]: 'other' } }))).toMatchObject({
      reason: 'PodChanged',
      message: expect.stringContaining(`an admission webhook changed the label ${LABEL.jobUid} to "other"`),
    })
    expect(mutation(wanted, found({ labels: { [LABEL.jobUid]: 'uid-1' } }))?.message).toContain('removed the label')
  })

  it('stops the job where it is somebody else’s', () => {
    expect(judgeExisting(wanted, found({ labels: { app: 'x' }, ownerReferences: [] }))).toMatchObject({
      reason: 'NameTaken',
      message: expect.stringContaining('Service gpt exists'),
    })
  })
})
