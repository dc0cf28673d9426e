import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { cliDocs } from '../../../cli/docs.ts'

it("docs/cli.md is the commands' own help (npm run generate)", () => {
  expect(readFileSync('docs/cli.md', 'utf8')).toBe(cliDocs())
})
