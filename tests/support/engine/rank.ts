// The process of one rank. It makes the calls that ranks.ts sends over the IPC channel and answers.

import { readdirSync } from 'node:fs'
import { createEngine, type Engine, EngineError, type EngineOptions, type PeerAddress } from '../../../worker/engine.ts'
import type { Program } from '../../../worker/program/program.ts'

let engine: Engine

export const methods = {
  create: (options: EngineOptions) => {
    engine = createEngine(options)
    return engine.description
  },
  listen: (port?: number) => engine.listen(port),
  connect: (peers: PeerAddress[], token: string) => engine.connect(peers, token),
  load: (program: Program) => engine.load(program),
  run: (name: string) => engine.run(name),
  write: (buffer: string, values: ArrayLike<number>) => {
    engine.view(buffer).set(values)
    engine.upload([buffer])
  },
  read: (buffer: string) => {
    engine.download([buffer])
    return engine.view(buffer).slice()
  },
  allReduce: (values: Float64Array) => engine.allReduce(values),
  bytesSent: () => engine.bytesSent,
  abort: () => engine.abort(),
  close: () => engine.close(),
  descriptors: () => readdirSync('/proc/self/fd').length,
  threads: () => readdirSync('/proc/self/task').length,
}

export type Methods = typeof methods
export interface Request {
  id: number
  method: keyof Methods
  args: unknown[]
}
export type Reply = { id: number; value: unknown } | { id: number; failure: Failure }
export interface Failure {
  name: string
  code: string | undefined
  op: string | undefined
  peer: number | undefined
  message: string
}

const describe = (error: unknown): Failure => ({
  name: error instanceof Error ? error.name : 'unknown',
  code: error instanceof EngineError ? error.code : undefined,
  op: error instanceof EngineError ? error.op : undefined,
  peer: error instanceof EngineError ? error.peer : undefined,
  message: error instanceof Error ? error.message : String(error),
})

const answer = async ({ id, method, args }: Request): Promise<void> => {
  try {
    const value: unknown = await Reflect.apply(methods[method], undefined, args)
    process.send?.({ id, value } satisfies Reply)
  } catch (error) {
    process.send?.({ id, failure: describe(error) } satisfies Reply)
  }
}

process.on('message', (request: Request) => void answer(request))
// The test has ended.
process.on('disconnect', () => process.exit())
