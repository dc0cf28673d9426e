// Test of a pod that has the address of a job and means no good. The network plugin of this cluster
// enforces no NetworkPolicy, so what holds here, holds by the secret of the job alone.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { z } from 'zod'
import { LABEL } from '../../crds/contract.ts'
import { manifest, NAMESPACE, startWorld, until, type World } from '../support/node.ts'

/** The first cluster on a machine waits for its programs to be built. */
const BUILD_MILLISECONDS = 1_800_000

const folder = mkdtempSync(join(tmpdir(), 'scmoe-hostile-'))
let world: World
beforeAll(async () => {
  world = await startWorld()
}, BUILD_MILLISECONDS)
afterAll(async () => {
  await world?.down()
  rmSync(folder, { recursive: true })
})

const apply = async (name: string, text: string): Promise<void> => {
  const file = join(folder, `${name}.yaml`)
  writeFileSync(file, text)
  await world.kubectl('apply', '-n', NAMESPACE, '-f', file)
}

/**
 * Keeps a thousand connections open to rank 0, and opens another one whenever one ends. Half of
 * them say the beginning of a rendezvous, half the beginning of a question for a report. Prints
 * how many there were and the bytes that the rendezvous has sent.
 */
const SCRIPT = `
  const { connect } = require('node:net')
  const seen = { opened: 0, heard: 0 }
  const hold = (port, said) => {
    const socket = connect({ host: process.argv[1], port })
    socket.on('connect', () => { seen.opened++; socket.write(said) })
    socket.on('data', chunk => { if (port === 29500) seen.heard += chunk.length })
    socket.on('error', () => undefined)
    socket.on('close', () => setTimeout(hold, 50, port, said))
  }
  for (let i = 0; i < 500; i++) {
    hold(29500, ['', '{"magic":"scmoe-rendezvous-2","rank":1', 'x'.repeat(5000)][i % 3])
    hold(8080, 'GET /readyz HTTP/1.1\\r\\nHost: worker\\r\\n')
  }
  setInterval(() => console.log(JSON.stringify(seen)), 500)
`
const Seen = z.object({ opened: z.int(), heard: z.int() })

const hostile = (image: string, job: string): string =>
  stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'hostile' },
    spec: {
      terminationGracePeriodSeconds: 0,
      securityContext: { runAsNonRoot: true, runAsUser: 65_532, seccompProfile: { type: 'RuntimeDefault' } },
      containers: [
        {
          name: 'hostile',
          image,
          command: ['node', '-e', SCRIPT, `${job}-worker-0.${job}.${NAMESPACE}.svc`],
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
          // It shares the processors of the node with the workers, and may not slow them by that.
          resources: { limits: { cpu: '200m' } },
        },
      ],
    },
  })

const Pods = z.object({
  items: z.array(
    z.object({
      spec: z.object({ containers: z.array(z.object({ image: z.string() })) }),
      status: z.object({
        containerStatuses: z.array(z.object({ state: z.object({ running: z.object({ startedAt: z.string() }) }) })),
        conditions: z.array(z.object({ type: z.string(), status: z.string(), lastTransitionTime: z.string() })),
      }),
    }),
  ),
})

/** Seconds from the start of the last container to the last worker that is ready, and the image. */
async function meeting(job: string): Promise<{ seconds: number; image: string }> {
  await until(world.kubectl, job, ({ state }) => state === 'Running')
  const json = await world.kubectl('get', 'pods', '-n', NAMESPACE, '-l', `${LABEL.jobName}=${job}`, '-o', 'json')
  const { items } = Pods.parse(JSON.parse(json))
  const started = items.map(({ status }) => Date.parse(status.containerStatuses[0]?.state.running.startedAt ?? ''))
  const ready = items.map(({ status: { conditions } }) =>
    Date.parse(conditions.find(({ type }) => type === 'Ready')?.lastTransitionTime ?? ''),
  )
  return {
    seconds: (Math.max(...ready) - Math.max(...started)) / 1000,
    image: items[0]?.spec.containers[0]?.image ?? '',
  }
}

const spec = { training: { steps: 100_000, globalBatchSequences: 4, sequenceLength: 32 } }

it('a pod with the address of a job and a thousand sockets hears nothing, delays no gang and fails no probe', async () => {
  await apply('alone', manifest({ name: 'alone', spec }))
  const alone = await meeting('alone')
  await world.kubectl('delete', 'scmoejob', 'alone', '-n', NAMESPACE, '--wait')
  await apply('hostile', hostile(alone.image, 'attacked'))
  await world.kubectl('wait', '-n', NAMESPACE, '--for=condition=Ready', 'pod/hostile', '--timeout=120s')
  await apply('attacked', manifest({ name: 'attacked', spec }))
  const attacked = await meeting('attacked')
  // Kubelets look for readiness every two seconds, and these times have no fractions.
  expect(attacked.seconds, `seconds; alone it took ${alone.seconds}`).toBeLessThanOrEqual(2 * alone.seconds + 3)

  const then = await until(world.kubectl, 'attacked', ({ progress }) => (progress?.step ?? 0) > 0)
  const later = await until(world.kubectl, 'attacked', s => (s.progress?.step ?? 0) > (then.progress?.step ?? 0))
  expect(later).toMatchObject({ state: 'Running', restarts: 0, workers: { ready: 2 } })
  const events = await world.kubectl(
    'get',
    'events',
    '-n',
    NAMESPACE,
    '-o',
    'jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\\n"}{end}',
  )
  const unanswered = events.split('\n').filter(line => /^attacked-.*probe.*(timeout|exceeded|reset|EOF)/i.test(line))
  expect(unanswered).toEqual([])
  const said = (await world.kubectl('logs', '-n', NAMESPACE, 'hostile', '--tail=1')).trim()
  const { opened, heard } = Seen.parse(JSON.parse(said))
  expect(opened, 'connections of the hostile pod').toBeGreaterThan(1000)
  expect(heard, 'bytes from the rendezvous').toBe(0)
})

it('each job has its Secret and network policy, which go with it, and the job shows no secret', async () => {
  const owned = async (kinds: string) =>
    world.kubectl('get', kinds, '-n', NAMESPACE, '-l', `${LABEL.jobName}=attacked`, '-o', 'name')
  const [secret = ''] = (await owned('secrets')).trim().split('\n')
  expect(await owned('secrets,networkpolicies')).toMatch(/secret\/attacked-\w+\nnetworkpolicy\S*\/attacked\n/)
  const encoded = await world.kubectl('get', secret, '-n', NAMESPACE, '-o', 'jsonpath={.data.secret}')
  const text = Buffer.from(encoded, 'base64').toString()
  expect(text).toMatch(/^[0-9a-f]{64}$/)
  for (const kind of ['scmoejobs', 'pods', 'events'])
    expect(await world.kubectl('get', kind, '-n', NAMESPACE, '-o', 'yaml'), kind).not.toContain(text)
  await world.kubectl('delete', 'scmoejob', 'attacked', '-n', NAMESPACE, '--wait')
  await expect.poll(() => owned('secrets,networkpolicies'), { timeout: 60_000, interval: 500 }).toBe('')
})
