import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { readJob, readJobs } from '../../../cli/job-file.ts'
import { COMPILED } from '../../support/compiled.ts'

const scmoe = (args: string[], input = '') =>
  spawnSync(process.execPath, ['cli/scmoe.ts', ...args], {
    input,
    encoding: 'utf8',
    env: { ...process.env, ...COMPILED },
  })

const JOB = `apiVersion: scmoe.dev/v1alpha1
kind: ScMoEJob
metadata:
  name: job
spec:
  training:
    steps: 10
`

describe('scmoe validate', () => {
  it('says that a valid job is valid, and ends with 0', () => {
    const { stdout, status } = scmoe(['validate', '-'], JOB)
    expect(stdout).toBe('-:1: ScMoEJob job is valid\n')
    expect(status).toBe(0)
  })

  it('names file, line and field, and ends with 1', () => {
    const { stdout, status } = scmoe(
      ['validate', '-'],
      `${JOB}  model:\n    experts: 8\n    blocks: 3\n  workers:\n    replica: 2\n`,
    )
    expect(stdout.trim().split('\n')).toEqual([
      '-:12: error: unknown field "spec.workers.replica": did you mean replicas?',
      '-:1: note: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation',
    ])
    expect(status).toBe(1)
  })

  it('finds the line in block and in flow style, and in lists', () => {
    const text = `${JOB}  model: {kind: ScMoE,\n    blocks: 3}\n  workers:\n    template:\n      spec:\n        containers:\n          - name: a\n            image: b\n`
    expect(readJobs(text)).toMatchObject([{ kind: 'error', line: 9 }])
    expect(readJobs(text.replace('blocks: 3', 'blocks: 2').replace('image: b', 'imag: b'))[0]).toMatchObject({
      line: 15,
    })
  })

  it('points to the nearest parent where a field is missing', () => {
    expect(readJobs(JOB.replace('    steps: 10\n', '    seed: 1\n'))[0]).toMatchObject({
      line: 6,
      message: 'spec.training.steps: Required value',
    })
  })

  it('reads several documents, and leaves alone what is not ours', () => {
    const findings = readJobs(
      `kind: ConfigMap\napiVersion: v1\n---\n${JOB}---\n\n---\n${JOB.replace('steps: 10', 'steps: 0')}`,
    )
    expect(findings).toMatchObject([
      { kind: 'skipped', line: 1, message: 'ConfigMap: not a ScMoEJob, not checked' },
      { kind: 'job', line: 4 },
      { kind: 'error', line: 20 },
    ])
  })

  it('refuses another version, and a misspelt kind of this group', () => {
    expect(readJobs(JOB.replace('v1alpha1', 'v1'))).toMatchObject([
      { kind: 'error', message: expect.stringContaining('no matches for kind "ScMoEJob" in version "scmoe.dev/v1"') },
    ])
    expect(readJobs(JOB.replace('ScMoEJob', 'ScmoeJob'))).toMatchObject([{ kind: 'error' }])
  })

  it('reads JSON, and yes as true, as Kubernetes does', () => {
    expect(
      readJobs(
        `{"apiVersion":"scmoe.dev/v1alpha1","kind":"ScMoEJob","metadata":{"name":"a"},"spec":{"training":{"steps":1}}}`,
      ),
    ).toMatchObject([{ kind: 'job' }])
    expect(readJobs(`${JOB}  suspend: yes\n`)).toMatchObject([{ kind: 'job', job: { spec: { suspend: true } } }])
  })

  it('tells broken YAML, and a key given twice, by its line', () => {
    expect(readJobs(`${JOB}  model: [\n`)).toMatchObject([{ kind: 'error', line: 9 }])
    expect(readJobs(`${JOB}    steps: 11\n`)).toMatchObject([
      { kind: 'error', message: expect.stringContaining('unique') },
    ])
  })

  it('does not call a file valid in which there is no job', () => {
    const { stdout, status } = scmoe(['validate', '-'], 'kind: ConfigMap\napiVersion: v1\n')
    expect(stdout).toContain('no ScMoEJob in -')
    expect(status).toBe(1)
  })

  it.each([
    ['no-such-file.yaml', 'ENOENT: no such file or directory'],
    ['docs/measurements', 'EISDIR: illegal operation on a directory'],
  ])('says that %s cannot be read, without a stack', (file, why) => {
    const { stderr, status } = scmoe(['validate', file])
    expect(stderr).toBe(`${file} cannot be read (${why}): give a YAML or JSON file with a ScMoEJob\n`)
    expect(status).toBe(1)
  })

  it('takes all examples', () => {
    const files = globSync('examples/*.yaml')
    const { stdout, status } = scmoe(['validate', ...files])
    const valid = [...stdout.matchAll(/^(\S+):\d+: ScMoEJob \S+ is valid$/gm)].map(([, file]) => file)
    expect([status, new Set(valid)]).toEqual([0, new Set(files)])
  })
})

describe('readJob', () => {
  it('is for files with one job', () => {
    expect(readJob('examples/01-two-workers.yaml').name).toBe('moby-dick')
    expect(() => readJob('crds/scmoejob.yaml')).toThrow('crds/scmoejob.yaml: no ScMoEJob in it')
  })
})
