// Half of the processor time that a program takes to start goes into compiling its TypeScript.

import { join } from 'node:path'

/** Processes that end by themselves leave what they compiled here, for those that come after. */
export const COMPILED = { NODE_COMPILE_CACHE: join(import.meta.dirname, '../../build/test/compiled') }
