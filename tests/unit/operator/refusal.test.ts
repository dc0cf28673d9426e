// Tests of what the operator makes of an API server that refuses an object, or already has it.

import { describe, expect, it } from 'vitest'
import { LABEL } from '../../../crds/contract.ts'
import type { KubeObject } from '../../../operator/objects/wire.ts'
import { service } from '../../../operator/objects/workers.ts'
import { judgeExisting, recordRefusal, refusalOf } from '../../../operator/plan/refusal.ts'
import { readSpec } from '../../../operator/plan/view.ts'
import { World } from '../../support/operator-world.ts'

const world = new World()
const reading = readSpec(world.job)
if ('invalid' in reading) throw new Error(reading.invalid)
const wanted = service({ name: 'gpt', namespace: 'ns', uid: 'uid-1', spec: reading.spec })
const answer = (code: number, text: string) => ({ code, text, message: `POST /api/v1/namespaces/ns/services: ${text}` })

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

  // Seen failing with the path of the request, which has `namespaces` in it, taken for the server's text.
  it('of an unknown kind names the scheduler that is missing', () => {
    const group = { apiVersion: 'scheduling.x-k8s.io/v1alpha1', kind: 'PodGroup', metadata: { name: 'gpt' } }
    expect(refusalOf(group, answer(404, '404 page not found'))).toMatchObject({
      reason: 'SchedulerMissing',
      message: expect.stringContaining('does not serve scheduling.x-k8s.io/v1alpha1 PodGroup'),
    })
  })

  it('says nothing about the object where its namespace is gone or the server is busy', () => {
    expect(refusalOf(wanted, answer(404, 'namespaces "ns" not found'))).toBeUndefined()
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

  it('stops the job where it is somebody else’s', () => {
    expect(judgeExisting(wanted, found({ labels: { app: 'x' }, ownerReferences: [] }))).toMatchObject({
      reason: 'NameTaken',
      message: expect.stringContaining('Service gpt exists'),
    })
  })
})
