// Jobs that the rules about the form of texts refuse: decimals and names.

import type { Case } from './crd-cases-schema.ts'

export const TEXTS: readonly Case[] = [
  {
    name: 'a decimal comma',
    spec: 'training: {steps: 1, optimizer: {learningRate: "0,1"}}',
    says: [
      'spec.training.optimizer.learningRate: Invalid value: training.optimizer.learningRate is "0,1", which is not a decimal number of digits and at most one point, without sign and unit: use a text such as "6e-4"',
    ],
  },
  {
    name: 'a negative weight decay',
    spec: 'training: {steps: 1, optimizer: {weightDecay: "-1"}}',
    says: [
      'spec.training.optimizer.weightDecay: Invalid value: training.optimizer.weightDecay is "-1", which is not a decimal number of digits and at most one point, without sign and unit: use a text such as "0.1"',
    ],
  },
  {
    name: 'a clip norm in words',
    spec: 'training: {steps: 1, optimizer: {gradientClipNorm: one}}',
    says: [
      'spec.training.optimizer.gradientClipNorm: Invalid value: training.optimizer.gradientClipNorm is "one", which is not a decimal number of digits and at most one point, without sign and unit: use a text such as "1"',
    ],
  },
  {
    name: 'a capacity in percent',
    spec: 'model: {capacityFactor: 200%}',
    says: [
      'spec.model.capacityFactor: Invalid value: model.capacityFactor is "200%", which is neither a decimal number of digits and at most one point nor the word none: use a text such as "2"',
    ],
  },
  {
    name: 'a balance loss without digit before the point',
    spec: 'model: {balanceLossCoefficient: ".01"}',
    says: [
      'spec.model.balanceLossCoefficient: Invalid value: model.balanceLossCoefficient is ".01", which is not a decimal number of digits and at most one point, without sign and unit: use a text such as "0.01"',
    ],
  },
  {
    name: 'an empty z-loss',
    spec: 'model: {routerZLossCoefficient: ""}',
    says: [
      'spec.model.routerZLossCoefficient: Invalid value: model.routerZLossCoefficient is "", which is not a decimal number of digits and at most one point, without sign and unit: use a text such as "0.001"',
    ],
  },
  {
    name: 'a resource without domain',
    spec: 'workers: {gpuResourceName: gpu}',
    says: [
      'spec.workers.gpuResourceName: Invalid value: workers.gpuResourceName is "gpu", which is not the name of an extended resource: use a text such as "nvidia.com/gpu"',
    ],
  },
  {
    name: 'a queue with capitals',
    spec: 'scheduling: {queueName: Team}',
    says: [
      'spec.scheduling.queueName: Invalid value: scheduling.queueName is "Team", which is not a name of lower-case letters, digits and -: use a text such as "team-a"',
    ],
  },
  {
    name: 'a topology with a space',
    spec: 'scheduling: {constraints: {topology: [{key: "a zone"}]}}',
    says: [
      'spec.scheduling.constraints.topology: Invalid value: scheduling.constraints.topology has the key "a zone", which is not a label of nodes: use a text such as "topology.kubernetes.io/zone"',
    ],
  },
]
