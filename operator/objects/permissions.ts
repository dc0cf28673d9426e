// Everything that the operator asks of the API server. A test compares the chart's roles with it.

import { GROUP, PLURAL } from '../../crds/contract.ts'
import type { ProviderName } from './providers.ts'

/** One rule of a Role or ClusterRole. */
export type Rule = {
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  /** The rule is about the objects of these names alone. */
  readonly resourceNames?: readonly string[]
  readonly verbs: readonly string[]
}

/** Needed in every watched namespace, or in the whole cluster. */
export const NAMESPACE_RULES: readonly Rule[] = [
  { apiGroups: [GROUP], resources: [PLURAL], verbs: ['list', 'watch', 'delete'] },
  { apiGroups: [GROUP], resources: [`${PLURAL}/status`], verbs: ['patch'] },
  // The admission plugin OwnerReferencesPermissionEnforcement asks for this permission when an
  // owner reference has `blockOwnerDeletion`.
  { apiGroups: [GROUP], resources: [`${PLURAL}/finalizers`], verbs: ['update'] },
  // `patch` gives a pod back the owner references that somebody removed.
  { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch', 'create', 'patch', 'delete'] },
  { apiGroups: [''], resources: ['services'], verbs: ['get', 'list', 'watch', 'create', 'patch'] },
  // No right to read any Secret, not even the operator's own ones: the kubelet gives them to pods.
  { apiGroups: [''], resources: ['secrets'], verbs: ['create'] },
  { apiGroups: ['policy'], resources: ['poddisruptionbudgets'], verbs: ['get', 'list', 'watch', 'create', 'patch'] },
  // `list` finds out why a volume of a pod is not mounted.
  { apiGroups: ['events.k8s.io'], resources: ['events'], verbs: ['list', 'create', 'patch'] },
]

/** Needed in the same namespaces if each job gets a NetworkPolicy. */
export const NETWORK_POLICY_RULES: readonly Rule[] = [
  {
    apiGroups: ['networking.k8s.io'],
    resources: ['networkpolicies'],
    verbs: ['get', 'list', 'watch', 'create', 'patch'],
  },
]

/** Needed in the same namespaces, depending on the scheduling provider. */
export const PROVIDER_RULES: Readonly<Record<ProviderName, readonly Rule[]>> = {
  none: [],
  kueue: [{ apiGroups: ['kueue.x-k8s.io'], resources: ['workloads'], verbs: ['list', 'watch', 'delete'] }],
  coscheduling: [
    {
      apiGroups: ['scheduling.x-k8s.io'],
      resources: ['podgroups'],
      verbs: ['get', 'list', 'watch', 'create', 'patch'],
    },
  ],
  volcano: [
    {
      apiGroups: ['scheduling.volcano.sh'],
      resources: ['podgroups'],
      verbs: ['get', 'list', 'watch', 'create', 'patch'],
    },
  ],
  kubernetes: [
    { apiGroups: ['scheduling.k8s.io'], resources: ['workloads'], verbs: ['get', 'list', 'watch', 'create', 'patch'] },
  ],
}

/** The Lease of the leader. */
export const LEASE = 'scmoe-operator'

/**
 * Needed in the operator's own namespace, for leader election. A right to create cannot name an
 * object, because the API server does not know the name yet when it asks.
 */
export const LEADER_ELECTION_RULES: readonly Rule[] = [
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['create'] },
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], resourceNames: [LEASE], verbs: ['get', 'update'] },
]
