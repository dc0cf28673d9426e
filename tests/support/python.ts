// Finds a Python with numpy and safetensors: that of this machine, or an environment under build/,
// which is made once and kept.

import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'

const ENVIRONMENT = join(import.meta.dirname, '../../build/python')
const PACKAGES = ['safetensors==0.8.0', 'numpy']

/** Runs a program. Returns its output, and the reason if it failed. */
export function run(program: string, ...args: string[]): { output: string; problem: string | undefined } {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: 90_000 })
  const said = (error?.message ?? stderr ?? '').trim().split('\n').at(-1)
  return {
    output: stdout ?? '',
    problem: status === 0 ? undefined : `${program} ${args.slice(0, 3).join(' ')}: ${said}`,
  }
}

/** The path of Python, or the reason why there is none, which is also printed. */
export function findPython(): { python: string; problem: undefined } | { python: undefined; problem: string } {
  const own = join(ENVIRONMENT, 'bin/python')
  const found = () =>
    ['python3', own].find(each => run(each, '-c', 'import numpy, safetensors.numpy').problem === undefined)
  const python = found()
  if (python !== undefined) return { python, problem: undefined }
  rmSync(ENVIRONMENT, { recursive: true, force: true })
  const problem =
    run('python3', '-m', 'venv', ENVIRONMENT).problem ??
    run(own, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--retries', '1', ...PACKAGES).problem
  if (problem === undefined) return { python: own, problem }
  console.log(`skipped: no Python with numpy and safetensors: ${problem}`)
  return { python: undefined, problem }
}
