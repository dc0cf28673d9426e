// The NetworkPolicy of a job, as data: who may open connections to its workers.

import { LABEL } from '../../crds/contract.ts'
import { ranksPerWorker } from '../../crds/ranks.ts'
import type { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import type { Json } from './json.ts'
import { metadata, type Owner, type Wanted } from './owned.ts'

/** NetworkPolicyPeers that may ask workers for their reports. If there are none, everybody may. */
export type ReportReaders = readonly Json[]

/**
 * Workers of the job reach each other on every port, because engines and NCCL listen on free ports.
 * Others reach the reports alone. A kubelet's probes come from its node, which network plugins
 * always let through. Connections that workers open are not restricted.
 */
export function networkPolicy(
  subject: Owner & { spec: ScMoEJobSpec },
  readers: ReportReaders,
): Wanted<'NetworkPolicy'> {
  const workers = { matchLabels: { [LABEL.jobUid]: subject.uid } }
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: metadata(subject, subject.name),
    spec: {
      podSelector: workers,
      policyTypes: ['Ingress'],
      ingress: [
        { from: [{ podSelector: workers }] },
        { ports: [reportPorts(subject.spec)], ...(readers.length === 0 ? {} : { from: readers }) },
      ],
    },
  }
}

/** The ports on which the ranks of one worker serve their reports. */
function reportPorts(spec: ScMoEJobSpec): Json {
  const [ranks, port] = [ranksPerWorker(spec), spec.network.httpPort]
  return { port, ...(ranks === 1 ? {} : { endPort: port + ranks - 1 }), protocol: 'TCP' }
}
