import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bootstrapObjects, VOLUMES } from '../../../tools/cluster/bootstrap.ts'
import { hierarchies } from '../../../tools/cluster/cgroups.ts'
import { apiserver, etcd, type Layout, nodeComponents, nodeFiles } from '../../../tools/cluster/config.ts'
import { kindCommands } from '../../../tools/cluster/kind.ts'
import { extensions, leaves } from '../../../tools/cluster/pki.ts'
import {
  fileOf,
  GO_FOLDER,
  goBuild,
  kubernetesVersion,
  NODE_BINARIES,
  requiredVersion,
} from '../../../tools/cluster/programs/modules.ts'
import { DEBIAN_PACKAGES, packagesError, searchPath } from '../../../tools/cluster/programs/packages.ts'
import { checkedStateDir, clusterId, mountsBelow } from '../../../tools/cluster/state.ts'
import { tail } from '../../../tools/cluster/supervisor.ts'

const binaries = Object.fromEntries(NODE_BINARIES.map(name => [name, `/bin/${name}`]))
const layout = (mode: 'api' | 'node'): Layout => ({
  mode,
  root: '/run/scmoe',
  port: 20_001,
  binaries,
  cniPlugins: '/usr/lib/cni',
  cgroup: 'scmoe-1',
})

describe('the cluster as data', () => {
  it('an API server alone listens on loopback only, and etcd takes no port in either mode', () => {
    expect(apiserver(layout('api')).command).toContain('--bind-address=127.0.0.1')
    for (const mode of ['api', 'node'] as const) {
      const listening = etcd(layout(mode)).command.filter(flag => flag.startsWith('--listen-'))
      expect(listening.length).toBe(2)
      for (const flag of listening) expect(flag).toMatch(/=unix:\/\/\/run\/scmoe\//)
    }
  })

  it('nobody has a shared secret: certificates name every user, and tokens are in no command line', () => {
    const commands = [apiserver, etcd].flatMap(make => make(layout('node')).command)
    expect([...commands, ...nodeComponents(layout('node')).flatMap(c => c.command)].join(' ')).not.toMatch(
      /token-auth|insecure/,
    )
    const users = leaves({ node: 'n', nodeAddress: '10.0.0.1', serviceAddress: '10.96.0.1' }).map(leaf => leaf.user)
    expect(users).toEqual(
      expect.arrayContaining(['admin', 'system:node:n', 'system:kube-scheduler', 'system:kube-proxy']),
    )
  })

  it("the API server's certificate answers to its names, and a client's to none", () => {
    const list = leaves({ node: 'n', nodeAddress: '10.0.0.1', serviceAddress: '10.96.0.1' })
    const of = (file: string) => list.filter(leaf => leaf.file === file).flatMap(extensions)
    expect(of('apiserver').join(' ')).toMatch(
      /DNS:localhost.*DNS:kubernetes\.default\.svc.*IP:127\.0\.0\.1,IP:10\.96\.0\.1,IP:10\.0\.0\.1/,
    )
    expect(of('admin').join(' ')).toContain('clientAuth')
    expect(of('admin').join(' ')).not.toContain('subjectAltName')
  })

  it('every file of a node that is JSON can be read as such, and paths stay below the state folder', () => {
    const files = nodeFiles(layout('node'))
    const json = Object.keys(files).filter(path => /\.(json|conflist)$/.test(path))
    expect(json).toEqual(['config/cni/10-scmoe.conflist', 'config/kubelet.json'])
    for (const path of json) expect(JSON.parse(files[path] ?? '')).toBeTypeOf('object')
    expect(files['config/kubelet.json']).toContain('"cgroupRoot": "/scmoe-1"')
    expect(files['config/containerd.toml']).toContain('restrict_oom_score_adj = true')
  })

  it('a program that was not looked up is named', () => {
    expect(() => etcd({ ...layout('api'), binaries: {} })).toThrow("etcd is needed in mode 'api'")
  })

  it('there is a default storage class with volumes for one and for many writers', () => {
    const objects = bootstrapObjects('/run/scmoe')
    const volumes = objects.filter(object => object.path.endsWith('persistentvolumes'))
    expect(volumes.length).toBe(VOLUMES)
    expect(JSON.stringify(volumes[0]?.body)).toContain('ReadWriteMany')
    expect(JSON.stringify(objects)).toContain('"storageclass.kubernetes.io/is-default-class":"true"')
  })
})

describe("the plugin that shapes pods' traffic", () => {
  it.each([
    ['ingressRate', 'ingressBurst'],
    ['EgressRate', 'EgressBurst'],
  ])('gives %s a burst of 20 ms and leaves a direction without a limit alone', (rate, burst) => {
    const folder = mkdtempSync(join(tmpdir(), 'scmoe-cni-'))
    try {
      writeFileSync(join(folder, 'bandwidth'), '#!/bin/sh\ncat\n', { mode: 0o755 })
      const bandwidth = { [rate]: 100_000_000, [burst]: 4_294_967_295, otherRate: 0, otherBurst: 0 }
      const answer = execFileSync('sh', [join(GO_FOLDER, '..', 'cni-shaping.sh')], {
        env: { ...process.env, CNI_PATH: folder },
        input: JSON.stringify({ runtimeConfig: { bandwidth } }),
        encoding: 'utf8',
      })
      expect(JSON.parse(answer)).toEqual({ runtimeConfig: { bandwidth: { ...bandwidth, [burst]: 2_000_000 } } })
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('the state folder', () => {
  it('is refused when a socket in it would have too long a path', () => {
    expect(() => checkedStateDir(`/${'x'.repeat(100)}`)).toThrow('--state')
    expect(checkedStateDir('/tmp/a/../b')).toBe('/tmp/b')
  })

  it('names its control groups: another folder is another name', () => {
    expect(clusterId('/a')).toMatch(/^scmoe-[0-9a-f]{8}$/)
    expect(clusterId('/a')).not.toBe(clusterId('/b'))
    expect(kindCommands('/a').delete).toContain(clusterId('/a'))
  })

  it('its mounts are found innermost first, and those of a folder with a longer name are not', () => {
    const mounts = 'x /s tmpfs rw\nx /s/a\\040b tmpfs rw\nx /s2 tmpfs rw\n'
    expect(mountsBelow(mounts, '/s')).toEqual(['/s/a b', '/s'])
  })
})

describe('the machine', () => {
  it('both versions of control groups are recognised in /proc/mounts', () => {
    const mounts =
      'cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nx / ext4 rw 0 0\n'
    expect(hierarchies(mounts)).toEqual([
      { path: '/sys/fs/cgroup/cpu', version: 1 },
      { path: '/sys/fs/cgroup/unified', version: 2 },
    ])
  })

  it('what is missing is one error with one command', () => {
    expect(packagesError([])).toBeUndefined()
    expect(packagesError(['containerd', 'runc'])).toMatch(/run: apt-get install .*containerd runc$/)
    expect(DEBIAN_PACKAGES).toEqual(expect.arrayContaining(['containerd', 'containernetworking-plugins', 'openssl']))
  })

  it('the folders of the administrator are searched as well', () => {
    expect(searchPath('/bin:/usr/sbin')).toBe('/bin:/usr/sbin:/usr/local/sbin:/sbin')
  })
})

describe('what is built', () => {
  it('the version comes from go.mod and is what the programs report', () => {
    expect(requiredVersion('module a\n\nrequire k8s.io/kubernetes v1.2.3\n', 'k8s.io/kubernetes')).toBe('v1.2.3')
    expect(requiredVersion('require (\n\ta/b v0.1.0 // indirect\n)\n', 'a/b')).toBe('v0.1.0')
    expect(() => requiredVersion('module a\n', 'b')).toThrow('does not require b')
    expect(goBuild('kubernetes').ldflags).toContain(`gitVersion=${kubernetesVersion()}`)
  })

  it('the programs of Kubernetes are one file, which knows each of them by its name', () => {
    const source = readFileSync(join(GO_FOLDER, 'kubernetes', 'main.go'), 'utf8')
    const names = NODE_BINARIES.filter(name => fileOf(name) === 'kubernetes')
    expect(names.length).toBe(5)
    for (const name of names) expect(source).toContain(`"${name}":`)
    expect(['etcd', 'coredns', 'kubectl'] as const).toEqual((['etcd', 'coredns', 'kubectl'] as const).map(fileOf))
  })

  it('an error shows the end of a log without blank lines', () => {
    expect(tail('a\n\nb\nc\n', 2)).toBe('b\nc')
  })
})
