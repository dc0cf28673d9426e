// Random numbers and lists for test cases.

/** A generator of random integers below a bound, which gives the same numbers every time. */
export const generator = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

export const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index)
export const at = <T>(list: ArrayLike<T>, index: number): T => {
  const value = list[index]
  if (value === undefined) throw new Error(`nothing at ${index}`)
  return value
}
