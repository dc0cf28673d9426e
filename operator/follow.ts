#!/usr/bin/env node
// `helm test` runs `node follow.mjs NAMESPACE/NAME SECONDS`. It prints every change of a job's
// state until the job has ended, and exits with 0 if the job is Complete.

import { setTimeout as sleep } from 'node:timers/promises'
import { isCode, messageOf } from './api/errors.ts'
import { Kube } from './api/kube.ts'
import { type Job, pathOf } from './objects/wire.ts'
import { readStatus } from './plan/view.ts'

const LOOK_MILLISECONDS = 1000

async function follow(namespace: string, name: string, seconds: number): Promise<boolean> {
  const kube = new Kube()
  const end = performance.now() + seconds * 1000
  let last = ''
  while (performance.now() < end) {
    const status = readStatus(await kube.call<Job>({ method: 'GET', path: pathOf('ScMoEJob', namespace, name) }))
    const { state = 'no operator has looked at the job yet', reason, message } = status
    const line = [state, reason === state ? undefined : reason, message].filter(Boolean).join(': ')
    if (line !== last) console.log(line)
    last = line
    if (state === 'Complete' || state === 'Failed') return state === 'Complete'
    await sleep(LOOK_MILLISECONDS)
  }
  console.log(`the job has not ended after ${seconds} s`)
  return false
}

const [job = '', seconds = '300'] = process.argv.slice(2)
const [namespace = '', name = ''] = job.split('/')
try {
  process.exitCode = (await follow(namespace, name, Number(seconds))) ? 0 : 1
} catch (error) {
  console.log(isCode(error, 404) ? `there is no ScMoEJob ${name} in namespace ${namespace}` : messageOf(error))
  process.exitCode = 1
}
