// The Secret by which the workers of a job know each other, as data.

import { metadata, type Owner, type Wanted } from './owned.ts'

/** The key of the random text in the Secret. */
export const SECRET_KEY = 'secret'

/**
 * One for each job. With a part of the job's uid in its name, a Secret that is left of an earlier
 * job of the same name is never taken for this job's.
 */
export const secretName = ({ name, uid }: Owner): string => `${name}-${uid.slice(0, 8)}`

/**
 * The object has no random text, so that no plan and no log has it. The text is added when the
 * object is sent. Only the first object of this name is created, so the text never changes.
 */
export function secret(owner: Owner): Wanted<'Secret'> {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: metadata(owner, secretName(owner)),
    type: 'Opaque',
    immutable: true,
  }
}
