import { describe, expect, it } from 'vitest'
import { readJobs } from '../../cli/job-file.ts'
import { brokenRules, fill, messageExpression, RULES } from '../../crds/rules.ts'
import { ScMoEJobSpec } from '../../crds/scmoejob.ts'
import { CASES, yamlOf } from '../api/crd-cases.ts'

describe('rules', () => {
  // The API server is asked the same in tests/api/crd-refusals.test.ts.
  it.each(CASES)('refuse $name with this message', ({ spec, job, says }) => {
    const findings = readJobs(yamlOf({ spec, ...(job !== undefined && { job }) }))
    const errors = findings.flatMap(finding => (finding.kind === 'error' ? [finding.message] : []))
    // Beside an unknown field there may be more to say than the API server does.
    const isUnknown = says.some(line => line.startsWith('unknown field'))
    const compared = isUnknown ? errors.filter(line => says.includes(line)) : errors
    expect(compared.toSorted()).toEqual(says.toSorted())
  })

  it.each(RULES.map(({ field, message }) => ({ field, message })))(
    'are each broken by a case: $field, $message',
    ({ field, message }) => {
      const [before = ''] = message.split('{')
      const said = CASES.flatMap(({ says }) => says)
      const after = message.split('}').at(-1) ?? ''
      expect(said.some(line => line.startsWith(`${field}: Invalid value: ${before}`) && line.endsWith(after))).toBe(
        true,
      )
    },
  )

  it('say nothing about the defaults', () => {
    expect(brokenRules(ScMoEJobSpec.parse({ training: { steps: 1 } }), 'job')).toEqual([])
  })

  it('name something that can be done', () => {
    for (const { message } of RULES) expect(message).toMatch(/\b(use|change|remove|choose|raise|set)\b/)
  })
})

describe('messages as CEL', () => {
  it('quote what CEL would read', () => {
    expect(messageExpression("it's 5 % of a \\ b", String)).toBe(String.raw`'it\'s 5 % of a \\ b'`)
    expect(messageExpression("{a} isn't 5 % of {b}", name => `self.${name}`)).toBe(
      String.raw`'%s isn\'t 5 %% of %s'.format([self.a, self.b])`,
    )
  })

  it('fill in every term', () => {
    expect(fill('{a} of {b} and {a}', name => name.toUpperCase())).toBe('A of B and A')
  })
})
