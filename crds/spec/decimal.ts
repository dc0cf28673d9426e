// Floating-point settings are decimal strings: the Kubernetes API conventions allow no floats.

import { z } from 'zod'

/** A regular expression that CEL reads too. The rules of decimal fields ask it. */
export const DECIMAL = '[0-9]+([.][0-9]+)?([eE]-?[0-9]{1,2})?'

/** The form has a rule (crds/rules.ts), whose message says what to write. */
export const decimal = z.string().max(32)
