// The metadata that every object owned by a job has in common.

import { API_VERSION, KIND, LABEL } from '../../crds/contract.ts'
import type { Json } from './json.ts'
import type { KubeObject, Metadata, OwnerReference } from './wire.ts'

/** A complete object as it is sent to the API server. */
export type Wanted<K extends string = string> = KubeObject & Json & { kind: K }

/** The job that owns an object. */
export type Owner = { name: string; namespace: string; uid: string }

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

/**
 * Whether the object has the job's uid as its label, and the job as its owner. An object whose
 * owner references somebody removed is still the job's.
 */
export const isOwnedBy = ({ metadata: { labels, ownerReferences = [] } }: KubeObject, uid: string): boolean =>
  labels?.[LABEL.jobUid] === uid &&
  (ownerReferences.some(owner => owner.uid === uid) || !ownerReferences.some(({ controller }) => controller === true))

/** Whether the garbage collector would not delete the object with its job. */
export const isOrphan = ({ metadata: { ownerReferences = [] } }: KubeObject, uid: string): boolean =>
  !ownerReferences.some(owner => owner.uid === uid)
