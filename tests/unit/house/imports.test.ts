// Folders are the import rule: ARCHITECTURE.md says what each folder may import, and this test
// compares every `import`, every `#include` and every path string with that page.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { circles, folderOf, native, rulesOf, type Source, typescript } from '../../support/sources.ts'

const rules = rulesOf(readFileSync('ARCHITECTURE.md', 'utf8'))
const all = [...typescript.values(), ...native.values()]
const folderIn = (path: string) => folderOf(path, rules.keys()) ?? ''

/** The name under which a rule allows the path: the file itself, its folder or everything. */
const nameIn = (names: ReadonlySet<string>, path: string) => [path, folderIn(path), '*'].find(name => names.has(name))

/** Imports, or path strings, that the page does not allow, as `file -> other`. */
function refused(files: Iterable<Source>, kind: 'imports' | 'starts'): string[] {
  return [...files].flatMap(file => {
    const from = folderIn(file.path)
    const rule = rules.get(from)
    const allowed = kind === 'imports' ? rule?.imports : new Set([...(rule?.imports ?? []), ...(rule?.starts ?? [])])
    const mayReach = (to: string) => folderIn(to) === from || nameIn(allowed ?? new Set(), to) !== undefined
    return file[kind].filter(path => !mayReach(path)).map(path => `${file.path} -> ${path}`)
  })
}

const under = (...prefixes: string[]) =>
  [...typescript.values()].filter(({ path }) => prefixes.some(prefix => path.startsWith(prefix)))

describe('ARCHITECTURE.md', () => {
  it('states a rule for every folder that has source files, and for no other', () => {
    const isNamed = (path: string) =>
      path.startsWith('worker/native/') ? folderIn(path).startsWith('worker/native/') : folderIn(path) !== ''
    expect(all.filter(({ path }) => !isNamed(path)).map(({ path }) => path)).toEqual([])
    for (const folder of rules.keys())
      expect(
        all.some(({ path }) => folderIn(path) === folder),
        `files in ${folder}`,
      ).toBe(true)
    expect(rules.size).toBeGreaterThan(30)
  })

  it('allows nothing that no file does', () => {
    const unused = [...rules].flatMap(([folder, rule]) => {
      const files = all.filter(({ path }) => folderIn(path) === folder)
      const used = (names: ReadonlySet<string>, kind: 'imports' | 'starts') =>
        new Set(files.flatMap(file => file[kind].map(path => nameIn(names, path))))
      const left = (kind: 'imports' | 'starts') => [...rule[kind]].filter(name => !used(rule[kind], kind).has(name))
      return [...left('imports'), ...left('starts')].map(name => `${folder} -> ${name}`)
    })
    expect(unused).toEqual([])
  })
})

describe('files', () => {
  it('import only what their folder may import', () => {
    expect(refused(typescript.values(), 'imports')).toEqual([])
    expect(refused(native.values(), 'imports')).toEqual([])
  })

  it('name the path of another file only where their folder may start it', () => {
    expect(refused(under('crds/', 'operator/', 'worker/', 'cli/', 'tools/', 'bench/'), 'starts')).toEqual([])
  })

  it('never import in a circle, also not for types alone', () => {
    expect(circles(typescript)).toEqual([])
    expect(circles(native)).toEqual([])
  })

  it('are found by this test: an import, a type, a path string and an include', () => {
    expect(typescript.get('worker/emit/emit.ts')?.imports).toContain('worker/emit/unit.ts')
    expect(typescript.get('cli/eval.ts')?.starts).toContain('worker/evaluate/process.ts')
    expect(native.get('worker/native/engine/engine.h')?.imports).toContain('worker/native/program/program.h')
  })
})

/** Effects that a file that decides must not have: reaching out, waiting, or looking at a clock. */
const EFFECT =
  /\bawait\b|\basync\b|\bDate\.now\b|\bnew Date\(\)|\bprocess\.|\bperformance\.|\bMath\.random\b|\bconsole\.|\bsetTimeout\b|\bfetch\(/

/** Comments and strings are not code. */
const code = (text: string) =>
  text
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/\/\/.*$/gm, '')
    .replaceAll(/'[^'\n]*'|`[^`]*`/g, "''")

const impurities = (files: readonly Source[]) =>
  files.flatMap(({ path, text, foreign }) => {
    const effect = EFFECT.exec(code(text))?.[0]
    const modules = foreign.filter(name => name !== 'zod')
    return [...modules, ...(effect === undefined ? [] : [effect])].map(what => `${path}: ${what}`)
  })

/** The given files and all that they import, without crds/. */
function closure(roots: readonly Source[]): Source[] {
  const reached = new Set<Source>()
  const visit = (file: Source | undefined) => {
    if (file === undefined || reached.has(file) || file.path.startsWith('crds/')) return
    reached.add(file)
    for (const path of file.imports) visit(typescript.get(path))
  }
  for (const root of roots) visit(root)
  return [...reached]
}

describe('files that decide', () => {
  it('have no effect, and import nothing that has one: operator/plan and operator/objects', () => {
    expect(impurities(closure(under('operator/plan/', 'operator/objects/')))).toEqual([])
  })

  it('have no effect, and import nothing that has one: worker/program and worker/schedule', () => {
    expect(impurities(closure(under('worker/program/', 'worker/schedule/')))).toEqual([])
  })
})

describe('packages', () => {
  it('knows the Kubernetes client in one file of the operator and one of the command line', () => {
    const clients = under('operator/', 'worker/', 'cli/').filter(({ foreign }) =>
      foreign.includes('@kubernetes/client-node'),
    )
    expect(clients.map(({ path }) => path).toSorted()).toEqual(['cli/cluster/client.ts', 'operator/api/kube.ts'])
  })

  it('loads the native addon in worker/engine.ts alone', () => {
    const loaders = under('operator/', 'worker/', 'cli/').filter(({ text }) => /dlopen|scmoe\.node['"`]/.test(text))
    expect(loaders.map(({ path }) => path)).toEqual(['worker/engine.ts'])
  })

  it('includes Node-API in binding alone, and CUDA, cuBLAS and NCCL below cuda/ alone', () => {
    const shown = (pattern: RegExp, allowed: RegExp) =>
      [...native.values()]
        .filter(({ path }) => path.startsWith('worker/native/') && !allowed.test(path))
        .flatMap(({ path, foreign }) => foreign.filter(name => pattern.test(name)).map(name => `${path} -> ${name}`))
    expect(shown(/napi|node_api/, /\/binding(\.cc$|\/)/)).toEqual([])
    expect(shown(/^(cuda|cublas|nccl)/, /\/cuda\//)).toEqual([])
  })
})
