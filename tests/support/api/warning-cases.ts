// Valid jobs that would probably not do what is meant, each with the beginning of the one message
// that it gets.

export interface WarningCase {
  name: string
  /** Fields of the spec. */
  spec: Record<string, unknown>
  path: string
  says: string
}

const pod = (container: object, more: object = {}) => ({
  workers: { template: { spec: { containers: [container], ...more } } },
})
const optimizer = (fields: object) => ({ training: { steps: 100, optimizer: fields } })

export const WARNING_CASES: readonly WarningCase[] = [
  {
    name: 'a container with another name',
    spec: pod({ name: 'pytorch', image: 'mine:1', resources: { limits: { cpu: '4' } } }),
    path: 'spec.workers.template.spec.containers',
    says: 'workers.template has containers, but none of them is named worker',
  },
  {
    name: 'GPUs that nobody computes on',
    spec: pod({ name: 'worker', resources: { limits: { 'nvidia.com/gpu': 1 } } }),
    path: 'spec.workers.gpusPerWorker',
    says: 'workers.template asks for GPUs, but workers.gpusPerWorker is 0',
  },
  {
    name: "a variable of the operator's",
    spec: pod({ name: 'worker', env: [{ name: 'SCMOE_RANK', value: '1' }] }),
    path: 'spec.workers.template.spec.containers',
    says: 'workers.template sets a variable of the worker that the operator sets itself',
  },
  {
    name: 'a restartPolicy',
    spec: pod({ name: 'worker' }, { restartPolicy: 'OnFailure' }),
    path: 'spec.workers.template.spec.restartPolicy',
    says: 'workers.template sets restartPolicy, which is not used',
  },
  {
    name: 'a learning rate that vanishes in float32',
    spec: optimizer({ learningRate: '1e-50' }),
    path: 'spec.training.optimizer.learningRate',
    says: 'training.optimizer.learningRate is 1e-50, which is too small to change a float32 weight',
  },
  {
    name: 'a learning rate without its exponent',
    spec: optimizer({ learningRate: '0.6' }),
    path: 'spec.training.optimizer.learningRate',
    says: 'training.optimizer.learningRate is 0.6, and AdamW moves every weight by about that much',
  },
  {
    name: 'a norm below the epsilon of AdamW',
    spec: optimizer({ gradientClipNorm: '1e-60' }),
    path: 'spec.training.optimizer.gradientClipNorm',
    says: 'gradientClipNorm is 1e-60, which scales gradients below the epsilon',
  },
  {
    name: 'a decay that takes everything away',
    spec: optimizer({ weightDecay: '1000' }),
    path: 'spec.training.optimizer.weightDecay',
    says: 'training.optimizer.weightDecay is 1000, which times learningRate 6e-4 takes most',
  },
  {
    name: 'a warm-up that is longer than the job',
    spec: { training: { steps: 6, optimizer: { warmupSteps: 1000 } } },
    path: 'spec.training.optimizer.warmupSteps',
    says: 'training.optimizer.warmupSteps is 1000, but training.steps is 6',
  },
  {
    name: 'an evaluation that is never reached',
    spec: { training: { steps: 100, evaluation: { everySteps: 1000 } } },
    path: 'spec.training.evaluation.everySteps',
    says: 'training.evaluation.everySteps is 1000, more than training.steps 100',
  },
  {
    name: 'tokens that uint16 cannot hold',
    spec: { model: { vocabularySize: 151_936 }, data: { path: '/data/t', tokens: 'uint16' } },
    path: 'spec.model.vocabularySize',
    says: 'model.vocabularySize is 151936, but data.tokens is uint16, which has no number above 65535',
  },
  {
    name: 'bytes that the vocabulary does not have',
    spec: { model: { vocabularySize: 128 } },
    path: 'spec.model.vocabularySize',
    says: 'model.vocabularySize is 128, but data.tokens is bytes',
  },
  {
    name: 'a capacity that drops most tokens',
    spec: { model: { capacityFactor: '0.01' } },
    path: 'spec.model.capacityFactor',
    says: 'model.capacityFactor is 0.01, so experts take at most that share',
  },
  {
    name: 'no capacity on many ranks',
    spec: { model: { capacityFactor: 'none' }, workers: { replicas: 8 } },
    path: 'spec.model.capacityFactor',
    says: 'model.capacityFactor is none, so each rank keeps room for all tokens of its group of 8 ranks',
  },
  {
    name: 'a checkpoint that is never reached',
    spec: {
      training: { steps: 50 },
      checkpoint: { everySteps: 1000, volume: { persistentVolumeClaim: { claimName: 'c' } } },
    },
    path: 'spec.checkpoint.everySteps',
    says: 'checkpoint.everySteps is 1000, more than training.steps 50',
  },
  {
    name: 'a checkpoint that goes with its pod',
    spec: { checkpoint: { volume: { emptyDir: {} } } },
    path: 'spec.checkpoint.volume',
    says: 'checkpoint.volume goes with its pod',
  },
]
