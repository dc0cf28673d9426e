// Floating-point settings are decimal strings: the Kubernetes API conventions allow no floats.

import { z } from 'zod'

export const DECIMAL = '[0-9]+(\\.[0-9]+)?([eE]-?[0-9]{1,2})?'

export const decimal = z
  .string()
  .max(32)
  .regex(new RegExp(`^${DECIMAL}$`), 'must be a decimal number in quotes, such as "0.0006" or "6e-4"')
