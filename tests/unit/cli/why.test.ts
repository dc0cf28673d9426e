// Tests of the paragraph that `scmoe why` prints: for every state into which the operator brings a
// job, and for every reason and failure that exists.

import { describe, expect, it } from 'vitest'
import { why } from '../../../cli/cluster/why.ts'
import { FAILURES, REASONS } from '../../../crds/advice.ts'
import { EXIT } from '../../../crds/contract.ts'
import { ScMoEJobStatus, State } from '../../../crds/status.ts'
import { refusedStatus } from '../../../operator/plan/status.ts'
import { failure, maxRestarts, runningWorld, T0, World } from '../../support/operator-world.ts'

const said = (world: World): string => why({ job: world.job, pods: [...world.pods.values()], now: world.now })

function started(): World {
  const world = new World()
  world.settle()
  return world
}

function report(world: World): void {
  const observedTime = new Date(world.now).toISOString()
  world.job.status = {
    ...world.status,
    progress: { step: 5, totalSteps: 100, percent: 5, lossMilli: 1234, estimatedRemainingSeconds: 400 },
    throughput: { tokensPerSecond: 1000, overlapPercent: 93, observedTime },
    lastCheckpoint: { step: 4 },
  }
}

describe('a job that waits', () => {
  it('for an operator', () => {
    const world = new World()
    world.job.metadata.creationTimestamp = new Date(T0).toISOString()
    expect(said(world)).toBe(
      'gpt was created 0 s ago and no operator has looked at it yet. Run this command again in a few seconds.',
    )
    world.wait(30)
    expect(said(world)).toBe(
      'No operator has looked at gpt, created 30 s ago. Check that one is installed and running: `kubectl get deployments --all-namespaces --selector app.kubernetes.io/name=scmoe`. If it is, check that it watches namespace ns: chart value watchNamespaces.',
    )
  })

  it('for workers, and names those that are late with what Kubernetes says of them', () => {
    const world = started()
    world.ready('gpt-worker-0')
    world.waiting('gpt-worker-1', 'ContainerCreating')
    world.settle()
    expect(said(world)).toBe(
      'gpt is Starting (WorkersStarting): created the workers of attempt 1, waiting for all to be ready. 1 of 2 workers is not ready: gpt-worker-1 (ContainerCreating). If the job stays in this state, see `scmoe logs gpt`: rank 0 names the ranks that it waits for.',
    )
  })

  // Seen failing with a status that did not record the refused generation: the text then said that
  // the operator was not running.
  it('for pods that the API server refuses once it is resumed', () => {
    const world = new World({ suspend: true })
    world.settle()
    world.edit({ suspend: false })
    const refusal = { reason: 'CreateRefused', message: 'Pod gpt-worker-0: exceeded quota' }
    world.job.status = { ...world.status, ...refusedStatus(world.job, refusal, world.now) }
    expect(said(world)).toMatch(/^gpt is Pending \(CreateRefused\): Pod gpt-worker-0: exceeded quota\. /)
    expect(said(world)).not.toContain('has not acted on')
  })

  it('for an image, a Secret, or a node', () => {
    const world = started()
    world.waiting('gpt-worker-1', 'ImagePullBackOff', 'Back-off pulling image "x": ErrImagePull: not found')
    world.settle()
    expect(said(world)).toBe(
      'gpt is Starting (ImagePull): gpt-worker-1 cannot pull image "worker:1": not found. Correct the image or its pull secret in `spec.workers.template`. This field can change only while the job is suspended: `scmoe suspend gpt`, `kubectl apply`, `scmoe resume gpt`.',
    )
    world.waiting('gpt-worker-1', 'CreateContainerConfigError', 'secret "x" not found')
    world.settle()
    expect(said(world)).toContain('(ContainerConfig): gpt-worker-1: secret "x" not found. Create what is missing')
    world.unschedulable('gpt-worker-1', '0/1 nodes are available: 1 Insufficient cpu.')
    world.settle()
    expect(said(world)).toContain('1 Insufficient cpu. Add capacity or ask for less')
  })

  it('for the pods of a failed attempt, and for one whose node is gone', () => {
    const world = runningWorld()
    world.end('gpt-worker-1', { exitCode: 70, message: failure(1, 'internal', 'it broke') })
    world.settle()
    expect(said(world)).toBe(
      'gpt is restarting: gpt-worker-1 failed in attempt 1: exit code 70, internal: it broke; restart 1 of 3. Attempt 2 starts in 10 s, from the newest checkpoint if there is one. If it happens again, please report it with the output of `scmoe logs gpt`.',
    )
    world.wait(200)
    world.settle()
    expect(said(world)).toBe(
      'gpt is restarting: waiting for pod gpt-worker-0 on node node-1 to be gone. gpt-worker-0 should have ended a minute ago: if node node-1 is gone for good, run `kubectl delete pod gpt-worker-0 --namespace ns --force`. It was restarted 1 time; most recently, gpt-worker-1 failed in attempt 1: internal: it broke. If it happens again, please report it with the output of `scmoe logs gpt`.',
    )
  })

  it('for its user, because it is suspended', () => {
    const world = runningWorld()
    world.edit({ suspend: true })
    expect(said(world)).toContain('The operator has not acted on the last change of its spec yet')
    world.settle()
    expect(said(world)).toBe(
      'gpt is Suspended (Stopping): waiting for the workers to stop. It waits for 2 pods to end.',
    )
    world.gone()
    world.settle()
    expect(said(world)).toContain(
      'gpt is Suspended: spec.suspend is true: no pods until it is false. Use `scmoe resume gpt`',
    )
  })

  it('for its gang to have another size, which is no failure', () => {
    const world = runningWorld()
    const lastFailure = { attempt: 1, podName: 'gpt-worker-1', reason: 'OOMKilled', message: 'too much' }
    const message = 'starting again with 1 of 2 workers'
    const status = { state: 'Restarting', reason: 'ScaledDown', message, restarts: 1, attempt: 3, lastFailure }
    world.job.status = ScMoEJobStatus.parse(status)
    expect(said(world)).toBe(
      'gpt is restarting: starting again with 1 of 2 workers. It was restarted 1 time; most recently, gpt-worker-1 failed in attempt 1: OOMKilled: too much.',
    )
  })

  it('and stalls: what it does and until when', () => {
    const world = runningWorld()
    world.job.status = {
      ...world.status,
      state: 'Stalled',
      reason: 'NoStep',
      message: 'no step for 300 s; fails at 12:00',
    }
    expect(said(world)).toBe(
      'gpt is Stalled (NoStep): no step for 300 s; fails at 12:00. Look at the processes now, because the restart ends them: `scmoe logs gpt`. A worker that is not ready hangs.',
    )
  })

  it('to be gone', () => {
    const world = runningWorld()
    world.remove('gpt-worker-0')
    world.job.metadata.deletionTimestamp = new Date(world.now).toISOString()
    expect(said(world)).toBe('gpt is being deleted. It waits for pod gpt-worker-0 to end.')
  })

  it('for a controller that is not this operator', () => {
    const world = new World({ managedBy: 'kueue.x-k8s.io/multikueue' })
    expect(said(world)).toContain('gpt is managed by another controller (spec.managedBy)')
  })
})

describe('a job that failed', () => {
  it('for good, with what to do about the cause', () => {
    const world = runningWorld()
    world.end('gpt-worker-1', { exitCode: 65, message: failure(1, 'badData', '/text.txt cannot be read') })
    world.settle()
    expect(said(world)).toBe(
      'gpt has failed: gpt-worker-1 failed in attempt 1: exit code 65, badData: /text.txt cannot be read; a restart would not help. Check `spec.data` and the volume that holds the file. Correct what the message names, then delete the job and apply it again.',
    )
  })

  it('too often', () => {
    const world = runningWorld(maxRestarts(0))
    world.end('gpt-worker-1', { exitCode: 137, reason: 'OOMKilled' })
    world.settle()
    expect(said(world)).toMatch(
      /OOMKilled: .*failurePolicy\.maxRestarts is 0\. Raise the memory limit .* Remove the cause that/,
    )
  })
})

describe('a job that runs', () => {
  it('shows its figures, and that rank 0 is silent for too long', () => {
    const world = runningWorld()
    expect(said(world)).toBe('gpt is running; rank 0 has not reported a step yet.')
    report(world)
    const text =
      'gpt is running: step 5 of 100, loss 1.234, 1000 tokens/s, 93 % of the all-to-all hidden, 7 min left, newest checkpoint at step 4.'
    expect(said(world)).toBe(text)
    world.wait(59)
    expect(said(world)).toBe(text)
    world.wait(241)
    expect(said(world)).toContain(`${text} Rank 0 has not reported for 5 min. `)
  })

  it('names the worker that is not ready any more, and what happened before', () => {
    const world = runningWorld()
    world.end('gpt-worker-1', { exitCode: 75, message: failure(1, 'internal', 'it broke') })
    world.settle()
    world.gone()
    world.wait(20)
    world.settle()
    for (const name of world.pods.keys()) world.ready(name)
    world.settle()
    report(world)
    world.waiting('gpt-worker-0', 'CrashLoopBackOff')
    world.settle()
    expect(said(world)).toMatch(
      /Not all workers are ready\. 1 of 2 workers is not ready: gpt-worker-0 \(CrashLoopBackOff\)\..* It was restarted 1 time; most recently, gpt-worker-1 failed in attempt 1: internal: it broke\.$/,
    )
  })

  it('to its end', () => {
    const world = runningWorld()
    for (const name of world.pods.keys()) world.end(name, { exitCode: 0 })
    world.wait(70)
    world.settle()
    expect(said(world)).toBe('gpt is complete: all 2 workers reached step 100 in 70 s.')
  })
})

describe('of every state, reason and failure', () => {
  const reasons = ['SomethingNew', ...Object.keys(REASONS)]
  const failures = [undefined, 'SomethingNew', ...Object.keys(FAILURES), ...Object.keys(EXIT)]
  const cases = State.options.flatMap(state => reasons.map(reason => ({ state, reason })))

  it.each(cases)('$state, $reason: whole sentences with everything filled in', ({ state, reason }) => {
    for (const last of failures) {
      const world = started()
      world.ready('gpt-worker-0')
      const lastFailure = last && { attempt: 1, podName: 'gpt-worker-1', reason: last, message: 'words' }
      world.job.status = ScMoEJobStatus.parse({ state, reason, message: 'words', restarts: 1, attempt: 2, lastFailure })
      const text = said(world)
      expect(text).toMatch(/^gpt (is|has) .*[.?]$/s)
      expect(text).not.toMatch(/undefined|NaN|null|\{|\}| {2}|\.\.|: ?\./)
      if (state === 'Complete' || state === 'Running' || reason === 'SomethingNew') continue
      const { remedy } = REASONS[reason as keyof typeof REASONS]
      const start = remedy.split(/[{`]/)[0] ?? ''
      if (state !== 'Restarting' || !remedy.startsWith('Nothing'))
        expect(text).toContain(reason === 'WaitingForPods' && state === 'Restarting' ? '' : start)
    }
  })
})
