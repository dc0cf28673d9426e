// What every object that a job owns has in common, and how parts of a pod template are read. Pure.

import { API_VERSION, KIND, LABEL } from '../../crds/contract.ts'
import type { View } from '../plan/view.ts'
import { isRecord, type Json, type KubeObject, type Metadata, type OwnerReference } from './wire.ts'

/** An object to send. */
export type Wanted<K extends string = string> = KubeObject & Json & { kind: K }
/** An element of a list that has names for keys. */
export type Named = { readonly name: string; readonly [key: string]: unknown }
export type Owner = Pick<View, 'name' | 'namespace' | 'uid'>

export function metadata({ name: job, namespace, uid }: Owner, name: string): Metadata {
  const owner: OwnerReference = {
    apiVersion: API_VERSION,
    kind: KIND,
    name: job,
    uid,
    controller: true,
    blockOwnerDeletion: true,
  }
  return {
    name,
    namespace,
    labels: { [LABEL.jobName]: job, [LABEL.jobUid]: uid },
    ownerReferences: [owner],
  }
}

export const record = (value: unknown): Json => (isRecord(value) ? value : {})
export const list = (value: unknown): Named[] => (Array.isArray(value) ? value : [])
export const strings = (value: unknown): Record<string, string> =>
  Object.fromEntries(Object.entries(record(value)).map(([key, text]) => [key, String(text)]))
