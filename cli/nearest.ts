// Finds the word that somebody probably meant. Pure.

/** The words that differ from `word` in few characters, the nearest first. */
export function nearWords(word: string, words: readonly string[]): string[] {
  const most = word.length <= 3 ? 1 : Math.max(2, Math.floor(word.length / 3))
  return words
    .map(each => ({ each, far: distance(each.toLowerCase(), word.toLowerCase()) }))
    .filter(({ far }) => far <= most)
    .toSorted((a, b) => a.far - b.far)
    .map(({ each }) => each)
}

/** The number of characters to change, add, remove or swap to turn one text into the other. */
export function distance(a: string, b: string): number {
  let [before, row] = [[] as number[], Array.from({ length: b.length + 1 }, (_, column) => column)]
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const [left = 0, above = 0, corner = 0] = [next[j - 1], row[j], row[j - 1]]
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY
      next.push(Math.min(left + 1, above + 1, corner + (a[i - 1] === b[j - 1] ? 0 : 1), swapped))
    }
    ;[before, row] = [row, next]
  }
  return row.at(-1) ?? 0
}
