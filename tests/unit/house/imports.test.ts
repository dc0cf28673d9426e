// Who may import whom (ARCHITECTURE.md), for `import` and for `#include`. Rules apply to files that exist.

import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
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

const WORKER_PURE = ['worker/median', 'worker/model', 'worker/program/', 'worker/schedule/']
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
    const layers = ['crds/', 'worker/median', 'worker/model', 'worker/program/', 'worker/schedule/']
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
    expect(clients.map(({ path }) => path).toSorted()).toEqual(['cli/cluster/client.ts', 'operator/api/kube.ts'])
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

/**
 * What each part of worker/native may include, from the lowest part to the highest. A part is a folder, or a file at
 * the top by its name without the ending. A part includes itself and the standard library besides.
 */
const PARTS: readonly (readonly [string, ...string[]])[] = [
  // The contracts between the engine and its backends.
  ['backend'],
  ['device.h', 'backend'],
  ['chunk'],
  ['compute_ops'],
  // The backends.
  ['cpu', 'backend', 'chunk', 'compute_ops'],
  ['cuda', 'backend', 'device.h', 'chunk', 'compute_ops'],
  // The engine.
  ['error'],
  ['interrupt', 'error'],
  ['program', 'backend', 'error'],
  ['mesh', 'program', 'chunk', 'error', 'interrupt'],
  ['executor', 'mesh', 'program', 'error', 'interrupt'],
  ['engine', 'executor', 'mesh', 'program', 'error', 'interrupt'],
  // Executors for a device.
  ['device', 'device.h', 'executor', 'mesh', 'program', 'error', 'interrupt'],
  ['device/nccl', 'device', 'device.h', 'mesh', 'program', 'error', 'interrupt'],
  // The choice between kinds of hardware, and the two programs that make it.
  ['hardware', 'executor', 'device', 'device/nccl', 'device.h', 'error'],
  ['binding', 'engine', 'hardware', 'program', 'error'],
  ['run', 'engine', 'hardware', 'device', 'mesh', 'program', 'error'],
]

const ROOT = 'worker/native'

/** The part that a file of worker/native belongs to. */
function partOf(path: string): string {
  const [folder = '', ...rest] = path.split('/')
  if (rest.length === 0) return path === 'device.h' ? path : path.replace(/\.\w+$/, '')
  return rest.length > 1 && folder === 'device' ? `${folder}/${rest[0]}` : folder
}

interface Include {
  path: string
  name: string
  /** The file of worker/native that is included, relative to that folder; undefined for a system header. */
  own: string | undefined
}

const includes = (path: string): Include[] =>
  [...readFileSync(path, 'utf8').matchAll(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm)].map(match => {
    const name = match[2] ?? ''
    const beside = join(dirname(path), name)
    const own = existsSync(beside) ? beside : join(ROOT, name)
    return { path, name, own: match[1] === '"' && existsSync(own) ? relative(ROOT, own) : undefined }
  })

describe('native includes', () => {
  const all = NATIVE.flatMap(includes)
  const arrows = new Set(
    all.flatMap(({ path, own }) => {
      const from = partOf(relative(ROOT, path))
      return own === undefined || partOf(own) === from ? [] : [`${from} -> ${partOf(own)}`]
    }),
  )
  const allowed = new Set(PARTS.flatMap(([part, ...others]) => others.map(other => `${part} -> ${other}`)))
  const users = (header: RegExp) => [
    ...new Set(all.flatMap(({ path, name }) => (header.test(name) ? [partOf(relative(ROOT, path))] : []))),
  ]

  it('a part includes only the parts that it names', () => {
    expect([...arrows].filter(arrow => !allowed.has(arrow))).toEqual([])
  })

  it('a part names only parts that it includes', () => {
    expect([...allowed].filter(arrow => !arrows.has(arrow))).toEqual([])
  })

  it('no part includes one above it, so there is no circle', () => {
    const height = new Map(PARTS.map(([part], index) => [part, index]))
    const upwards = PARTS.flatMap(([part, ...others], index) =>
      others
        .filter(other => (height.get(other) ?? Number.POSITIVE_INFINITY) >= index)
        .map(other => `${part} -> ${other}`),
    )
    expect(upwards).toEqual([])
  })

  it('every quoted include names a file of worker/native', () => {
    const text = (path: string) => readFileSync(path, 'utf8')
    const unknown = NATIVE.flatMap(path =>
      [...text(path).matchAll(/^\s*#\s*include\s*"([^"]+)"/gm)].flatMap(([, name = '']) =>
        existsSync(join(dirname(path), name)) || existsSync(join(ROOT, name)) ? [] : [`${path} -> ${name}`],
      ),
    )
    expect(unknown).toEqual([])
  })

  it('only binding knows Node-API; only cuda knows CUDA and cuBLAS; nobody compiles against NCCL', () => {
    expect(users(/napi|node_api/)).toEqual(['binding'])
    expect(users(/^(cuda|cublas)\w*\.h$/)).toEqual(['cuda'])
    expect(users(/^nccl\.h$/)).toEqual([])
  })
})
