// The policy by which the API server warns of jobs as `scmoe validate` does. It refuses nothing.

import { GROUP, PLURAL, VERSION } from '../contract.ts'
import { WARNINGS } from '../warnings.ts'

/** CEL of a policy calls the object `object`; that of the table calls its spec `self`. */
const inPolicy = (cel: string) => cel.replaceAll(/\bself\b/g, 'object.spec')

export const POLICY_API = 'admissionregistration.k8s.io/v1'

/** `spec` of a ValidatingAdmissionPolicy. */
export const warningPolicy = () => ({
  // Nobody is kept from a job because a warning could not be worked out.
  failurePolicy: 'Ignore',
  matchConstraints: {
    resourceRules: [
      { apiGroups: [GROUP], apiVersions: [VERSION], operations: ['CREATE', 'UPDATE'], resources: [PLURAL] },
    ],
  },
  validations: WARNINGS.map(({ path, cel, messageExpression }) => ({
    expression: inPolicy(cel),
    message: `${path} is valid, but probably not what is meant: see scmoe validate`,
    messageExpression: inPolicy(messageExpression),
  })),
})

/** `spec` of the binding of the policy of this name. */
export const warningBinding = (policyName: string) => ({ policyName, validationActions: ['Warn'] })
