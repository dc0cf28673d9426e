// Writes files beside training: on a thread of its own, so that nothing waits for a checksum, and with a low priority, so that a step on the
// same cores hardly slows down.

import { Worker } from 'node:worker_threads'
import type { Written } from './safetensors.ts'

/** Beside a thread that computes all the time it gets a thirtieth of a core; cores that wait are its own. */
const NICE = 15
const CHUNK = 4 << 20

interface Task {
  id: number
  path: string
  head: Uint8Array
  body: ArrayBuffer
}

type Answer = { id: number; body: ArrayBuffer } & (Written | { message: string; code: string | undefined })

/** What the thread does. Only its text goes there, so that a bundle in one file has it too: it may name nothing outside itself. */
function serve(nice: number, chunkBytes: number): void {
  const { closeSync, fsyncSync, openSync, readlinkSync, writeSync } = process.getBuiltinModule('node:fs')
  const { createHash } = process.getBuiltinModule('node:crypto')
  const { setPriority } = process.getBuiltinModule('node:os')
  const { parentPort } = process.getBuiltinModule('node:worker_threads')
  try {
    setPriority(Number(readlinkSync('/proc/thread-self').split('/').at(-1)), nice)
  } catch {
    // With the priority of all others it does the same.
  }
  const write = ({ path, head, body }: Task): Written => {
    const hash = createHash('sha256')
    const file = openSync(path, 'wx')
    try {
      for (const part of [head, new Uint8Array(body)]) {
        for (let at = 0; at < part.length; at += chunkBytes) {
          const chunk = part.subarray(at, at + chunkBytes)
          hash.update(chunk)
          for (let done = 0; done < chunk.length; ) done += writeSync(file, chunk, done)
        }
      }
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    return { bytes: head.byteLength + body.byteLength, sha256: hash.digest('hex') }
  }
  const answer = (task: Task): Answer => {
    const { id, body } = task
    try {
      return { id, body, ...write(task) }
    } catch (error) {
      const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
      return { id, body, message: error instanceof Error ? error.message : String(error), code }
    }
  }
  parentPort?.on('message', (task: Task) => {
    const answered = answer(task)
    parentPort.postMessage(answered, [answered.body])
  })
}

type Result = Written & { body: ArrayBuffer }
const waiting = new Map<number, PromiseWithResolvers<Result>>()
let thread: Worker | undefined
let last = 0

function start(): Worker {
  const started = new Worker(`(${serve.toString()})(${NICE}, ${CHUNK})`, { eval: true })
  started.on('message', (answer: Answer) => {
    const { id, body } = answer
    const { resolve, reject } = waiting.get(id) ?? {}
    waiting.delete(id)
    if (waiting.size === 0) started.unref()
    if ('sha256' in answer) resolve?.({ body, bytes: answer.bytes, sha256: answer.sha256 })
    else reject?.(Object.assign(new Error(answer.message), answer.code !== undefined && { code: answer.code }))
  })
  started.on('error', error => {
    thread = undefined
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
  })
  return started
}

/**
 * Writes and fsyncs a new file of `head` and `body`; fails when it exists. `body` is taken away meanwhile and given back with the result.
 * Several are written one after another.
 */
export function writeBeside(path: string, head: Uint8Array, body: ArrayBuffer): Promise<Result> {
  thread ??= start()
  thread.ref()
  const result = Promise.withResolvers<Result>()
  const task: Task = { id: ++last, path, head, body }
  waiting.set(task.id, result)
  thread.postMessage(task, [body])
  return result.promise
}
