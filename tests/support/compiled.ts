// A shared compile cache, because half of a program's start-up time is compiling its TypeScript.

import { join } from 'node:path'

/** Processes that end normally write their compiled code here, and later ones read it. */
export const COMPILED = { NODE_COMPILE_CACHE: join(import.meta.dirname, '../../build/test/compiled') }
