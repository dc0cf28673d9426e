// The first objects of a cluster: the rights of DNS, and volumes for plain claims. Pure.

import { join } from 'node:path'

export const VOLUMES = 16

export type ApiObject = { readonly path: string; readonly body: Readonly<Record<string, unknown>> }

const RBAC = '/apis/rbac.authorization.k8s.io/v1'
const STORAGE_CLASS = 'standard'

export function volumeFolder(root: string, index: number): string {
  return join(root, 'volumes', String(index).padStart(2, '0'))
}

/** `root` is the state folder as the kubelet sees it. */
export function bootstrapObjects(root: string): ApiObject[] {
  const metadata = { name: 'system:coredns' }
  const role: ApiObject = {
    path: `${RBAC}/clusterroles`,
    body: {
      metadata,
      rules: [watch([''], ['services', 'namespaces']), watch(['discovery.k8s.io'], ['endpointslices'])],
    },
  }
  const binding: ApiObject = {
    path: `${RBAC}/clusterrolebindings`,
    body: {
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:coredns' },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'system:coredns' }],
    },
  }
  return [role, binding, storageClass(), ...Array.from({ length: VOLUMES }, (_, index) => volume(root, index + 1))]
}

function watch(apiGroups: readonly string[], resources: readonly string[]): unknown {
  return { apiGroups, resources, verbs: ['list', 'watch'] }
}

function storageClass(): ApiObject {
  return {
    path: '/apis/storage.k8s.io/v1/storageclasses',
    body: {
      metadata: { name: STORAGE_CLASS, annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
      provisioner: 'kubernetes.io/no-provisioner',
      reclaimPolicy: 'Retain',
      volumeBindingMode: 'WaitForFirstConsumer',
    },
  }
}

function volume(root: string, index: number): ApiObject {
  return {
    path: '/api/v1/persistentvolumes',
    body: {
      metadata: { name: `embedded-${String(index).padStart(2, '0')}` },
      spec: {
        capacity: { storage: '100Gi' },
        accessModes: ['ReadWriteOnce', 'ReadOnlyMany', 'ReadWriteMany'],
        persistentVolumeReclaimPolicy: 'Retain',
        storageClassName: STORAGE_CLASS,
        hostPath: { path: volumeFolder(root, index), type: 'Directory' },
      },
    },
  }
}
