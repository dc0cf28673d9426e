// Who may import whom (ARCHITECTURE.md), for `import` and for `#include`. Rules apply to files that exist.

import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, it } from 'vitest'

const SOURCES = globSync(
  ['crds', 'operator', 'worker', 'cli', 'tools', 'bench', 'tests'].map(folder => `${folder}/**/*.ts`),
)
const NATIVE = globSync('worker/native/**/*.{h,cc,cu,cuh}')

interface File {
  path: string
  text: string
  /** Files of this repository. */
  own: string[]
  /** Packages and `node:` modules. */
  foreign: string[]
}

const isOwn = (specifier: string) => specifier.startsWith('.')
const SPECIFIER = /(?:\bfrom|\bimport\s*\(|^import)\s*['"]([^'"]+)['"]/gm

function load(path: string): File {
  const text = readFileSync(path, 'utf8')
  const specifiers = [...text.matchAll(SPECIFIER)].map(match => match[1] ?? '')
  return {
    path,
    text,
    own: specifiers.filter(isOwn).map(specifier => normalize(join(dirname(path), specifier))),
    foreign: specifiers.filter(specifier => !isOwn(specifier)),
  }
}

const files = new Map(SOURCES.map(path => [path, load(path)]))
const under = (...prefixes: string[]) =>
  [...files.values()].filter(({ path }) => prefixes.some(p => path.startsWith(p)))

/** `file -> imported` pairs that `allowed` refuses. */
const refused = (list: File[], allowed: (imported: string, file: File) => boolean) =>
  list.flatMap(file => file.own.filter(path => !allowed(path, file)).map(path => `${file.path} -> ${path}`))

const within = (folder: string) => (path: string) => path.startsWith(folder) || path.startsWith('crds/')

/** The files given and all they import, without crds/. */
function closure(...roots: string[]): File[] {
  const reached = new Set<string>()
  const visit = (path: string) => {
    if (reached.has(path) || path.startsWith('crds/')) return
    reached.add(path)
    for (const next of files.get(path)?.own ?? []) visit(next)
  }
  for (const root of roots) if (files.has(root)) visit(root)
  return [...reached].flatMap(path => files.get(path) ?? [])
}

const WORKER_PURE = ['worker/model', 'worker/program/', 'worker/schedule/']
const OPERATOR_PURE = [...SOURCES].filter(path => /^operator\/(plan|objects)\//.test(path))
const isWorkerPure = (path: string) => WORKER_PURE.some(prefix => path.startsWith(prefix))

/** What a file that decides may not do: reach out, wait, or look at a clock. Comments and strings are not code. */
const EFFECT =
  /\bawait\b|\basync\b|\bDate\.now\b|\bnew Date\(\)|\bprocess\.|\bperformance\.|\bMath\.random\b|\bconsole\.|\bsetTimeout\b|\bfetch\(/
const code = (text: string) =>
  text
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/\/\/.*$/gm, '')
    .replaceAll(/'[^'\n]*'|`[^`]*`/g, "''")
const impurities = (list: File[]) =>
  list.flatMap(({ path, text, foreign }) => {
    const effect = EFFECT.exec(code(text))?.[0]
    const modules = foreign.filter(name => name !== 'zod')
    return [...modules, ...(effect === undefined ? [] : [effect])].map(what => `${path}: ${what}`)
  })

describe('TypeScript imports', () => {
  it('finds the files it speaks about', () => {
    expect(SOURCES).toContain('worker/program/emit.ts')
    expect(files.get('worker/program/emit.ts')?.own).toContain('worker/program/unit.ts')
  })

  it('crds imports nothing of ours', () => {
    expect(refused(under('crds/'), path => path.startsWith('crds/'))).toEqual([])
  })

  it('operator and worker never import each other, nor cli, tools or bench; both import crds', () => {
    expect(refused(under('operator/'), within('operator/'))).toEqual([])
    expect(refused(under('worker/'), within('worker/'))).toEqual([])
  })

  it('cli imports crds and only what decides: never what acts on a cluster or an engine', () => {
    const pure = new Set([...closure(...OPERATOR_PURE)].map(file => file.path))
    const allowed = (path: string) =>
      path === 'package.json' ||
      path.startsWith('cli/') ||
      path.startsWith('crds/') ||
      pure.has(path) ||
      isWorkerPure(path)
    expect(refused(under('cli/'), allowed)).toEqual([])
  })

  it('nothing imports tests; only tests, tools and benchmarks import tools', () => {
    const outside = [...files.values()].filter(({ path }) => !path.startsWith('tests/'))
    expect(refused(outside, path => !path.startsWith('tests/'))).toEqual([])
    expect(
      refused(
        outside.filter(({ path }) => !path.startsWith('tools/') && !path.startsWith('bench/')),
        path => !path.startsWith('tools/'),
      ),
    ).toEqual([])
  })

  it('model, program and schedule are pure and import downwards: schedule -> program -> model -> crds', () => {
    const layers = ['crds/', 'worker/model', 'worker/program/', 'worker/schedule/']
    const layer = (path: string) => layers.findIndex(prefix => path.startsWith(prefix))
    const list = under(...WORKER_PURE)
    // schedule.ts is the facade of program's last step too; nothing of program imports schedule.
    expect(refused(list, (path, file) => layer(path) >= 0 && layer(path) <= layer(file.path))).toEqual([])
    expect(impurities(list)).toEqual([])
  })

  it('operator/plan, operator/objects and all they import are pure', () => {
    expect(impurities(closure(...OPERATOR_PURE))).toEqual([])
  })

  it('operator/kube and cli/cluster alone import the Kubernetes client; only observe, apply, events, reflector, elector, main and follow import kube', () => {
    const clients = under('operator/', 'worker/', 'cli/').filter(({ foreign }) =>
      foreign.includes('@kubernetes/client-node'),
    )
    expect(clients.map(({ path }) => path).toSorted()).toEqual(['cli/cluster/cluster.ts', 'operator/api/kube.ts'])
    const callers = new Set(
      ['observe', 'apply', 'events', 'api/reflector', 'api/elector', 'main', 'follow'].map(
        name => `operator/${name}.ts`,
      ),
    )
    expect(
      refused(under('operator/'), (path, file) => path !== 'operator/api/kube.ts' || callers.has(file.path)),
    ).toEqual([])
  })

  it('engine alone loads the native addon', () => {
    const loaders = under('operator/', 'worker/', 'cli/').filter(({ text }) => /dlopen|scmoe\.node['"`]/.test(text))
    expect(loaders.map(({ path }) => path).filter(path => path !== 'worker/engine.ts')).toEqual([])
  })
})

const includes = (path: string) =>
  [...readFileSync(path, 'utf8').matchAll(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm)].map(match => ({
    path,
    quoted: match[1] === '"',
    name: match[2] ?? '',
  }))
const folderOf = (path: string) => /^worker\/native\/(\w+)\//.exec(path)?.[1] ?? ''

describe('native includes', () => {
  const all = NATIVE.flatMap(includes)
  const show = (list: typeof all) => list.map(({ path, name }) => `${path} -> ${name}`)

  it('napi.h only in binding.cc', () => {
    expect(
      show(all.filter(({ path, name }) => /napi|node_api/.test(name) && path !== 'worker/native/binding.cc')),
    ).toEqual([])
  })

  it('CUDA, cuBLAS and NCCL only under cuda/', () => {
    expect(show(all.filter(({ path, name }) => /^(cuda|cublas|nccl)/.test(name) && folderOf(path) !== 'cuda'))).toEqual(
      [],
    )
  })

  it('cpu/ and cuda/ know backend.h, device.h, chunk.h, ops.generated.h and themselves; nobody knows them', () => {
    const foreign = all.filter(({ path, quoted, name }) => {
      const folder = folderOf(path)
      const from = quoted ? (/^(cpu|cuda)\//.exec(name)?.[1] ?? '') : ''
      const shared = ['backend.h', 'device.h', 'chunk.h', 'ops.generated.h'].includes(name)
      const outside = quoted && !name.includes('/') && !existsSync(join(dirname(path), name)) && !shared
      return from === folder ? folder !== '' && outside : from !== ''
    })
    expect(show(foreign)).toEqual([])
  })

  it('backend.h includes only the standard library; below binding nobody includes it, below engine nobody includes that', () => {
    expect(show(all.filter(({ path, quoted }) => quoted && path.endsWith('/backend.h')))).toEqual([])
    const upwards = all.filter(
      ({ path, name }) =>
        /(^|\/)binding\./.test(name) ||
        (/(^|\/)engine\.h$/.test(name) && /\/(program|backend|mesh|exchange|communicator)\./.test(path)),
    )
    expect(show(upwards)).toEqual([])
  })
})
