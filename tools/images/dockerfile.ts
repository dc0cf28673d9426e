// Reads the few instructions of a Dockerfile that our images use, so that Docker and the build
// without Docker share one description. Pure.

export type Recipe = {
  /** The archive of the operating system, which `ADD` unpacks into the root. */
  readonly system: string
  readonly files: readonly { readonly from: string; readonly to: string }[]
  readonly env: Readonly<Record<string, string>>
  readonly workdir: string
  readonly user: string
  readonly entrypoint: readonly string[]
}

/** Reads a Dockerfile. Throws for an unknown instruction, so that the two builds cannot differ. */
export function parseDockerfile(text: string): Recipe {
  const files: { from: string; to: string }[] = []
  const env: Record<string, string> = {}
  const last: Record<string, string> = {}
  for (const line of text.split('\n')) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const [word = '', ...rest] = line.trim().split(/\s+/)
    if (word === 'COPY') files.push(...copies(rest, line))
    else if (word === 'ENV') for (const setting of rest) Object.assign(env, assignment(setting, line))
    else if (['FROM', 'ADD', 'WORKDIR', 'USER', 'ENTRYPOINT'].includes(word)) last[word] = rest.join(' ')
    else throw new Error(`the build without Docker does not know '${word}' in '${line}'`)
  }
  if (last['FROM'] !== 'scratch') throw new Error(`FROM must be scratch, not '${last['FROM'] ?? ''}'`)
  const system = /^(\S+\.tar) \/$/.exec(last['ADD'] ?? '')?.[1]
  if (system === undefined) throw new Error(`ADD must unpack one archive into /, not '${last['ADD'] ?? ''}'`)
  return {
    system,
    files,
    env,
    workdir: last['WORKDIR'] ?? '/',
    user: last['USER'] ?? '0',
    entrypoint: entrypointOf(last['ENTRYPOINT'] ?? ''),
  }
}

function copies(words: readonly string[], line: string): { from: string; to: string }[] {
  const target = words.at(-1)
  const sources = words.slice(0, -1)
  if (target === undefined || sources.length === 0 || words.some(word => word.startsWith('--') || word.includes('*'))) {
    throw new Error(`COPY must name plain files and their target: '${line}'`)
  }
  if (!target.endsWith('/') && sources.length > 1)
    throw new Error(`the target of several files must end in a slash: '${line}'`)
  return sources.map(from => ({ from, to: target.endsWith('/') ? `${target}${from.split('/').at(-1)}` : target }))
}

function assignment(setting: string, line: string): Record<string, string> {
  const equals = setting.indexOf('=')
  if (equals < 1) throw new Error(`ENV must be NAME=VALUE: '${line}'`)
  return { [setting.slice(0, equals)]: setting.slice(equals + 1) }
}

function entrypointOf(text: string): string[] {
  const words: unknown = text === '' ? undefined : JSON.parse(text)
  if (!Array.isArray(words) || !words.every(word => typeof word === 'string')) {
    throw new Error(`ENTRYPOINT must be a JSON list of words, not '${text}'`)
  }
  return words
}
