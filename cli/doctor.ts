// scmoe doctor: shows what a worker would find on this machine. A process of the worker
// (worker/doctor.ts) looks for it.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { z } from 'zod'
import { JobFileError } from './job-file.ts'

const DOCTOR = join(import.meta.dirname, '../worker/doctor.ts')

export interface DoctorOptions {
  backend?: 'cpu' | 'cuda' | undefined
  peers?: string[] | undefined
  rank: number
  json?: boolean | undefined
}

const Part = z.object({ path: z.string(), text: z.string(), missing: z.string() })
const Found = z.object({
  backend: z.enum(['cpu', 'cuda']),
  cpu: z.string(),
  threads: z.number(),
  processors: z.number(),
  availableBytes: z.number(),
  driver: Part,
  library: Part,
  nccl: Part,
  devices: z.array(
    z.object({ name: z.string(), computeCapability: z.string(), totalBytes: z.number(), freeBytes: z.number() }),
  ),
  interfaces: z.array(z.object({ name: z.string(), address: z.string() })),
  ncclEnvironment: z.record(z.string(), z.string()),
  /** The reason why a worker could not run as asked; empty if it could. */
  problem: z.string(),
  link: z
    .object({
      ranks: z.number(),
      backend: z.string(),
      connectMilliseconds: z.number(),
      bytesPerSecond: z.number(),
      latencyMicroseconds: z.number(),
    })
    .optional(),
})
export type Found = z.infer<typeof Found>
const Message = z.union([z.object({ found: Found }), z.object({ error: z.string() })])

/** Returns the exit code: 0 if a worker could run here as asked, otherwise 1. */
export async function doctorCommand(options: DoctorOptions, print: (text: string) => void): Promise<number> {
  const found = await examine(options)
  print(options.json ? JSON.stringify(found, undefined, 2) : report(found))
  return found.problem === '' ? 0 : 1
}

function examine({ backend, peers = [], rank }: DoctorOptions): Promise<Found> {
  const order = { ...(backend && { backend }), rank, peers: peers.map(peerOf) }
  if (peers.length > 0 && rank >= peers.length)
    throw new JobFileError(`--rank is ${rank}, but --peers names ranks 0 to ${peers.length - 1}`)
  const child = spawn(process.execPath, [DOCTOR], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  return new Promise((resolve, reject) => {
    child.once('message', received => {
      const message = Message.parse(received)
      if ('found' in message) resolve(message.found)
      else reject(new JobFileError(message.error))
    })
    child.once('error', reject)
    child.once('exit', (code, signal) => reject(new JobFileError(`${DOCTOR} ended early: ${code ?? signal}`)))
    child.send(order)
  })
}

function peerOf(text: string): { host: string; port: number } {
  const colon = text.lastIndexOf(':')
  const port = Number(text.slice(colon + 1))
  if (colon < 1 || !Number.isInteger(port) || port < 1 || port > 65_535)
    throw new JobFileError(`--peers: '${text}' must be host:port, with a port from 1 to 65535`)
  return { host: text.slice(0, colon).replaceAll(/^\[|\]$/g, ''), port }
}

const gibibytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`

/** A table for people: what this machine has, then what a worker would use. */
export function report(found: Found): string {
  const { cpu, threads, processors, availableBytes, driver, library, nccl, devices, interfaces, link } = found
  const part = ({ text, path, missing }: Found['driver'], otherwise: string) =>
    missing ? `missing: ${missing}` : text ? `${text}${path ? `, ${path}` : ''}` : otherwise
  const rows: [string, string][] = [
    ['processor', `${cpu}, ${threads} of ${processors} cores for computing`],
    ['memory', `${gibibytes(availableBytes)} available`],
    ['driver', part(driver, 'not looked for')],
    ...devices.map(({ name, computeCapability, totalBytes, freeBytes }, index): [string, string] => [
      `GPU ${index}`,
      `${name}, compute capability ${computeCapability}, ${gibibytes(freeBytes)} free of ${gibibytes(totalBytes)}`,
    ]),
    ['CUDA backend', part(library, 'not looked for: there is no GPU')],
    ['NCCL', part(nccl, 'not looked for')],
    ...Object.entries(found.ncclEnvironment).map(([name, value]): [string, string] => [name, value]),
    ['network', interfaces.map(({ name, address }) => `${name} ${address}`).join(', ') || 'no interface'],
    ...(link ? [['link', linkText(link)] satisfies [string, string]] : []),
    ['a worker', found.problem === '' ? chosen(found) : `could not run with ${found.backend}: ${found.problem}`],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, text]) => `${name.padEnd(width)}  ${text}`).join('\n')
}

const linkText = ({ ranks, backend, bytesPerSecond, latencyMicroseconds }: NonNullable<Found['link']>) =>
  `${(bytesPerSecond / 1e9).toFixed(2)} GB/s each way in a sum over ${ranks} ranks (${backend}), ${latencyMicroseconds.toFixed(0)} us for the smallest sum between hosts`

const chosen = ({ backend, cpu, threads, devices }: Found) =>
  backend === 'cuda'
    ? `would compute on ${devices.length === 1 ? 'the GPU' : `${devices.length} GPUs, one rank for each`}`
    : `would compute with ${cpu} and ${threads} ${threads === 1 ? 'thread' : 'threads'}`
