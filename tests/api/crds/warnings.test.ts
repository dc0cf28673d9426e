// The API server's warnings about valid jobs, by the policy of the chart.

import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { API_VERSION, KIND } from '../../../crds/contract.ts'
import { ScMoEJobSpec } from '../../../crds/scmoejob.ts'
import { warningsOf } from '../../../crds/warnings.ts'
import { helm } from '../../../tools/cluster/helm.ts'
import { Server } from '../../support/api/crd-server.ts'
import { WARNING_CASES } from '../../support/api/warning-cases.ts'

/** The chart has no images of its own. */
const IMAGES = ['operator', 'worker', 'gpuWorker'].flatMap(each => [
  '--set',
  `image.${each}.repository=example.com/${each}`,
])

let server: Server
beforeAll(async () => {
  server = await Server.start({ crd: true })
  const args = ['template', 'scmoe', 'charts/scmoe', '--show-only', 'templates/warnings.yaml', ...IMAGES]
  const { stdout, stderr } = spawnSync(await helm('4'), args, { encoding: 'utf8' })
  if (stderr !== '') throw new Error(stderr)
  await server.must('apply', '--filename', server.file(stdout))
  // A policy is asked a moment after it is there.
  while ((await warned({ model: { capacityFactor: '0.01' } })).length === 0) await sleep(50)
})
afterAll(() => server?.stop())

const fileOf = (spec: object) =>
  stringify({
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name: 'j' },
    spec: { training: { steps: 100 }, ...spec },
  })

/** The warnings that kubectl prints about a job, which the server takes. */
async function warned(spec: object): Promise<string[]> {
  const { ok, error } = await server.kubectl('create', '--dry-run=server', '--filename', server.file(fileOf(spec)))
  if (!ok) throw new Error(error)
  return [...error.matchAll(/^Warning: .*'scmoe-warnings': (.*)$/gm)].map(match => match[1] ?? '')
}

// Seen failing with a field in an expression that no spec has: a policy that cannot be worked out
// says nothing.
it.each(WARNING_CASES)('says what scmoe validate says: $name', async ({ spec }) => {
  const own = warningsOf(ScMoEJobSpec.parse({ training: { steps: 100 }, ...spec })).map(({ message }) => message)
  expect(await warned(spec)).toEqual(own)
})

it('says nothing about the defaults', async () => {
  expect(await warned({})).toEqual([])
})

it('is a policy without a mistake in its types', async () => {
  const found = await server.must(
    'get',
    'validatingadmissionpolicy',
    'scmoe-warnings',
    '--output',
    'jsonpath={.status.typeChecking}',
  )
  expect(found).not.toContain('ERROR')
})
