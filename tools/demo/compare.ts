// The comparison at the end of the demo: top-2 experts in sequential order against ScMoE with the
// shortcut schedule, with the same sizes on the same limited network, in short jobs that take
// turns. The figures come from the status of the jobs.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import type { Watch } from '../../bench/turns/watch.ts'
import { type Kubectl, ROOT } from '../install.ts'
import { completed, type Job } from './follow.ts'
import { type Ask, next, type Side, type Turn } from './plan.ts'
import { askLine, turnLine } from './words.ts'

const FILES: Record<Side, string> = {
  sequential: 'examples/02-overlap-sequential.yaml',
  shortcut: 'examples/03-overlap-shortcut.yaml',
}
/** A worker profiles seven steps, which count as well. */
const STEPS = 10
/** A worker then tries up to four slots with close predictions for four steps each (ADR 14). */
const STEPS_TO_CHOOSE = 28
const LABEL = 'scmoe.dev/demo-turn'
const BANDWIDTH = 'kubernetes.io/ingress-bandwidth'

export interface Place {
  kubectl: Kubectl
  namespace: string
  watch: Watch
  say: (line: string) => void
}

/** All turns, in the order in which they ran. */
export async function runTurns(place: Place): Promise<Turn[]> {
  const { kubectl, namespace, say } = place
  // A kept cluster has the jobs of an earlier demo.
  await kubectl('delete', 'scmoejobs', '-n', namespace, '-l', LABEL, '--ignore-not-found')
  const turns: Turn[] = []
  for (let ask = next(turns); ask !== undefined; ask = next(turns)) {
    say(askLine(ask, turns.length + 1))
    const turn = await runTurn(place, ask, `turn-${turns.length + 1}-${ask.side}`)
    say(turnLine(turn))
    turns.push(turn)
  }
  return turns
}

async function runTurn({ kubectl, namespace, watch }: Place, ask: Ask, name: string): Promise<Turn> {
  const folder = mkdtempSync(join(tmpdir(), 'scmoe-demo-'))
  try {
    const file = join(folder, `${name}.yaml`)
    writeFileSync(file, manifestOf(ask, name))
    const { value: job, taken } = await watch.once(async () => {
      await kubectl('apply', '-n', namespace, '-f', file)
      return completed(kubectl, namespace, name)
    })
    return turnOf(ask, job, taken)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Manifest {
  metadata: { name: string; labels?: Record<string, string> }
  spec: {
    overlap: { slot?: number }
    training: { steps: number; evaluation: { everySteps: number } }
    workers: { template: { metadata: { annotations: Record<string, string> } } }
  }
}

/** The side's example with another name, rate, slot and number of steps. */
export function manifestOf({ side, mbit, slot }: Ask, name: string): string {
  const manifest: Manifest = parse(readFileSync(join(ROOT, FILES[side]), 'utf8'))
  const steps = side === 'shortcut' && slot === undefined ? STEPS_TO_CHOOSE : STEPS
  if (slot !== undefined) manifest.spec.overlap.slot = slot
  manifest.metadata = { name, labels: { [LABEL]: side } }
  manifest.spec.training.steps = steps
  manifest.spec.training.evaluation.everySteps = steps
  manifest.spec.workers.template.metadata.annotations[BANDWIDTH] = `${mbit}M`
  return stringify(manifest)
}

function turnOf(ask: Ask, { metadata, status }: Job, taken: Turn['taken']): Turn {
  const { tokensPerSecond, stepTimeMilliseconds, ...figures } = status?.throughput ?? {}
  if (tokensPerSecond === undefined || stepTimeMilliseconds === undefined)
    throw new Error(`${metadata.name} is Complete but its status has no throughput; look at its worker's log`)
  return {
    ...ask,
    tokensPerSecond,
    stepMilliseconds: stepTimeMilliseconds,
    allToAllMilliseconds: figures.communicationMilliseconds ?? 0,
    sharePercent: figures.communicationShareOfMoePercent ?? 0,
    hiddenPercent: figures.overlapPercent ?? 0,
    schedule: figures.schedule ?? '?',
    taken,
  }
}
