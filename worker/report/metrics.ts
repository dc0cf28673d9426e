// The worker's Prometheus metrics, which every rank serves. Gauges read the record when they are
// asked for their value.

import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { RunRecord, StepFigures } from './record.ts'

export class WorkerMetrics {
  readonly registry = new Registry()
  readonly #stepSeconds: Histogram
  readonly #communicationSeconds: Counter
  readonly #exposedSeconds: Counter

  constructor(record: RunRecord) {
    const registers = [this.registry]
    const gauge = (name: string, help: string, read: () => number | undefined) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          const value = read()
          if (value !== undefined) this.set(value)
        },
      })
    gauge('scmoe_step', 'Optimizer steps done.', () => record.step)
    gauge('scmoe_loss', 'Cross entropy of the last step, nats per token.', () => record.losses.last.loss)
    gauge(
      'scmoe_evaluation_loss',
      'Cross entropy on held-out text, nats per token.',
      () => record.losses.last.evaluationLoss,
    )
    gauge(
      'scmoe_tokens_per_second',
      'Tokens of all ranks per second, over the last steps.',
      () => record.rates()?.tokensPerSecond,
    )
    gauge(
      'scmoe_overlap_percent',
      'Share of all-to-all time hidden behind computation.',
      () => record.rates()?.overlapPercent,
    )
    gauge('scmoe_last_checkpoint_step', 'Step of the newest checkpoint.', () => record.checkpointStep)
    this.#stepSeconds = new Histogram({
      name: 'scmoe_step_duration_seconds',
      help: 'Time per optimizer step.',
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      registers,
    })
    this.#communicationSeconds = new Counter({
      name: 'scmoe_communication_seconds_total',
      help: 'Time all-to-alls took.',
      registers,
    })
    this.#exposedSeconds = new Counter({
      name: 'scmoe_exposed_communication_seconds_total',
      help: 'Time computation stood still for an all-to-all.',
      registers,
    })
  }

  stepDone(figures: StepFigures): void {
    this.#stepSeconds.observe(figures.milliseconds / 1000)
    this.#communicationSeconds.inc(figures.communication / 1000)
    this.#exposedSeconds.inc(figures.waited / 1000)
  }
}
