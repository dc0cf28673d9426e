// Tests that the output of stages which `npm test` runs in parallel is shown one after another.

import { expect, it } from 'vitest'
import { InOrder } from '../../../tools/in-order.ts'

it('shows the first as it comes, and of the others what they had to say when it is their turn', () => {
  let shown = ''
  const order = new InOrder(text => (shown += text))
  const [first, second, third] = [order.writer(), order.writer(), order.writer()]
  second.write('b')
  first.write('A')
  third.write('c')
  expect([shown, first.isShown, second.isShown]).toEqual(['A', true, false])
  third.close()
  first.write('A')
  first.close()
  expect([shown, second.isShown], 'the second is shown, the third waits although it is done').toEqual(['AAb', true])
  second.write('b')
  second.close()
  expect(shown).toBe('AAbbc')
})
