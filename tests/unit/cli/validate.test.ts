import { spawnSync } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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

/** Nine levels of ten aliases each. */
function bomb(): string {
  const lines = Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(10)}]`)
  return `a0: &a0 x\n${lines.join('\n')}\n`
}

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

  // Seen failing for every line: each had the words of the API server alone, and a decimal comma a
  // bare regular expression.
  it.each([
    ['training: {steps: "10"}', 'write it without quotes: 10'],
    ['training: {steps: 10.5}', 'write a whole number, such as 11'],
    ['training: {steps: ten}', 'write a whole number from 1 to 100000000'],
    ['training: {steps: 1, optimizer: {learningRate: 0.001}}', 'write it in quotes: "0.001"'],
    [
      'training: {steps: 1, optimizer: {learningRate: "1,5"}}',
      /which is not a decimal number .*: use a text such as "6e-4"$/,
    ],
    ['training: {steps: 1, optimizer: adam}', 'write fields below it, such as learningRate, warmupSteps, weightDecay'],
    ['training: {steps: 1}\n  suspend: "yes"', 'write it without quotes: true'],
    ['training: {steps: 1}\n  suspend: 3', 'write true or false'],
    ['training: {steps: 1}\n  model: {blocks: 300}', 'use a number from 1 to 256'],
    ['training: {steps: 1}\n  model: {kind: Scmoe}', 'did you mean ScMoE?'],
    ['training: {steps: 1}\n  model: {kind: Sparse}', 'use one of these'],
    ['training: {steps: 1}\n  model: {hidenSize: 64}', 'did you mean hiddenSize?'],
    ['training: {steps: 1}\n  model: {hiddensize: 64}', 'did you mean hiddenSize?'],
    ['training: {steps: 1}\n  replicas: 2', 'did you mean spec.workers.replicas?'],
    ['training: {steps: 1}\n  learningRate: "1"', 'did you mean spec.training.optimizer.learningRate?'],
    ['training: {steps: 1}\n  data: {url: x}', 'remove it; the fields here are builtin, path, tokens'],
    ['training: {}', 'add steps (Optimizer steps)'],
    [
      'training: {steps: 1}\n  checkpoint: {volume: {emptyDir: {}, hostPath: {}}}',
      'keep one of "emptyDir", "hostPath"',
    ],
    ['training: {steps: 1}\n  workers: {template: {spec: {containers: {name: a}}}}', /^write a list: put "- "/],
  ])('says what to do about %s', (spec, remedy) => {
    const [text] = readJobs(`${JOB.split('spec:')[0]}spec:\n  ${spec}\n`).flatMap(finding =>
      finding.kind === 'error' ? [finding.remedy ?? finding.message] : [],
    )
    expect(text).toEqual(typeof remedy === 'string' ? remedy : expect.stringMatching(remedy))
  })

  it('says the same remedies where `run` and `plan` refuse a job', () => {
    const { stderr, status } = scmoe(['plan', '-'], `${JOB}  modle: {}\n`)
    expect(stderr).toBe('-:8: unknown field "spec.modle": did you mean model?\n')
    expect(status).toBe(1)
  })

  // Seen failing: the output of `kubectl get -o yaml` was "List: not a ScMoEJob, not checked".
  it('looks into lists, and names what it skips', () => {
    const item = JOB.trim().split('\n')
    const list = `apiVersion: v1\nkind: List\nitems:\n- kind: ConfigMap\n  metadata: {name: web}\n- ${item.join('\n  ')}\n    seed: one\n`
    expect(readJobs(list)).toMatchObject([
      { kind: 'skipped', line: 4, message: 'ConfigMap web: not a ScMoEJob, not checked' },
      { kind: 'error', line: 13, path: 'spec.seed', remedy: 'did you mean spec.training.seed?' },
      { kind: 'note', line: 6 },
    ])
  })

  it('checks all files of folders, and goes on after one that cannot be read', () => {
    const folder = mkdtempSync(join(tmpdir(), 'scmoe-validate-'))
    try {
      mkdirSync(join(folder, 'below'))
      writeFileSync(join(folder, 'a.yaml'), JOB)
      writeFileSync(join(folder, 'below/b.yml'), JOB.replace('steps: 10', 'steps: 0'))
      writeFileSync(join(folder, 'notes.txt'), 'no manifest')
      writeFileSync(join(folder, 'empty.json'), '')
      const { stdout, stderr, status } = scmoe(['validate', 'no-such-file', folder])
      expect(stdout.trim().split('\n')).toEqual([
        `${folder}/a.yaml:1: ScMoEJob job is valid`,
        expect.stringContaining(`${folder}/below/b.yml:7: error: spec.training.steps: Invalid value: 0`),
        `${folder}/empty.json:1: note: there is no document in it`,
      ])
      expect(stderr).toContain('no-such-file cannot be read')
      expect(status).toBe(1)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('prints one JSON object with --json', () => {
    const { stdout, status } = scmoe(['validate', '--json', '-'], `kind: A\n---\n${JOB}---\n${JOB}  modle: {}\n`)
    expect(JSON.parse(stdout)).toMatchObject({
      valid: false,
      jobs: 1,
      errors: 1,
      findings: [
        { kind: 'skipped', file: '-', line: 1 },
        { kind: 'job', file: '-', line: 3, name: 'job' },
        { kind: 'error', file: '-', line: 18, path: 'spec.modle', remedy: 'did you mean model?' },
        { kind: 'note' },
      ],
    })
    expect(status).toBe(1)
  })

  it.each([
    ['a list', '- a\n', 'a list is no object of Kubernetes'],
    ['a text', 'hello\n', 'a single value is no object of Kubernetes'],
    ['a spec without kind', 'spec: {}\n', 'the document has a spec, but no kind'],
    ['a tab', 'kind: ScMoEJob\nspec:\n\ta: 1\n', 'Tabs are not allowed'],
    ['an alias without anchor', 'a: *b\n', 'Unresolved alias'],
    ['aliases that would fill the memory', bomb(), 'Excessive alias count'],
  ])('refuses %s in a sentence', (_, text, says) => {
    expect(readJobs(text)).toMatchObject([{ kind: 'error', message: expect.stringContaining(says) }])
  })

  it('reads a byte order mark, anchors, and a thousand jobs in one file', () => {
    expect(readJobs(`\uFEFF${JOB}`)).toMatchObject([{ kind: 'job' }])
    expect(readJobs(`${JOB}  workers: &a {replicas: 2}\n  parallelism: {<<: *a}\n`)[0]).toMatchObject({
      message: 'unknown field "spec.parallelism.replicas"',
    })
    expect(readJobs(`${JOB}---\n`.repeat(1000)).map(({ kind }) => kind)).toEqual(Array(1000).fill('job'))
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
