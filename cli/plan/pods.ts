// The containers of a worker's pod, as `scmoe plan` shows them.

import { z } from 'zod'
import { CONTAINER } from '../../crds/contract.ts'

const Quantities = z.record(z.string(), z.union([z.string(), z.number()]).transform(String)).default({})
const Container = z
  .looseObject({
    name: z.string(),
    image: z.string().default(''),
    resources: z.looseObject({ limits: Quantities, requests: Quantities }).prefault({}),
  })
  .transform(({ name, image, resources: { limits, requests } }) => ({ name, image, limits, requests }))
export type Container = z.output<typeof Container>

const Pod = z.looseObject({
  kind: z.literal('Pod'),
  spec: z.looseObject({ initContainers: z.array(Container).default([]), containers: z.array(Container) }),
})
export type Pod = z.output<typeof Pod>

/** The first pod among the objects. */
export function firstPod(objects: readonly unknown[]): Pod | undefined {
  return objects.flatMap(object => Pod.safeParse(object).data ?? [])[0]
}

export const workerOf = (pod: Pod | undefined): Container | undefined =>
  pod?.spec.containers.find(({ name }) => name === CONTAINER)

/** A line for each container of a worker's pod. */
export function containersText({ spec: { initContainers, containers } }: Pod): string {
  const rows = [
    ...initContainers.map(each => ({ ...each, role: 'runs before' })),
    ...containers.map(each => ({ ...each, role: each.name === CONTAINER ? 'trains' : 'runs beside it' })),
  ]
  return ['Each pod has', ...rows.map(row => `  container ${row.name}, which ${row.role}: ${parts(row)}`)].join('\n')
}

function parts({ image, limits, requests }: Container): string {
  const list = (what: Readonly<Record<string, string>>) =>
    Object.entries(what).map(([name, value]) => `${name} ${value}`)
  const [asked, most] = [list(requests), list(limits)]
  return [
    image === '' ? 'no image' : `image ${image}`,
    asked.length > 0 && `requests ${asked.join(', ')}`,
    most.length > 0 ? `limits ${most.join(', ')}` : 'no limits',
  ]
    .filter(Boolean)
    .join('; ')
}
