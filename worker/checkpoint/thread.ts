// Writes files while training goes on. A thread of its own computes the checksums, so that nothing
// waits for them. It has a low priority, so that it hardly slows down a step on the same cores.

import { Worker } from 'node:worker_threads'
import type { Written } from './safetensors/file.ts'

/** With this priority the thread gets a thirtieth of a busy core, and all of an idle one. */
const NICE = 15
const CHUNK = 4 << 20

interface Task {
  id: number
  path: string
  head: Uint8Array
  body: ArrayBuffer
}

type Answer = { id: number; body: ArrayBuffer } & (Written | { message: string; code: string | undefined })

/**
 * The program of the thread. It is passed as text, so that it also works in a bundle of one file,
 * and therefore must not refer to anything outside itself.
 */
function serve(nice: number, chunkBytes: number): void {
  const { closeSync, fsyncSync, openSync, readlinkSync, writeSync } = process.getBuiltinModule('node:fs')
  const { createHash } = process.getBuiltinModule('node:crypto')
  const { setPriority } = process.getBuiltinModule('node:os')
  const { parentPort } = process.getBuiltinModule('node:worker_threads')
  try {
    setPriority(Number(readlinkSync('/proc/thread-self').split('/').at(-1)), nice)
  } catch {
    // The thread works as well with normal priority.
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
 * Writes and fsyncs a new file of `head` and `body`; fails if the file exists. `body` is detached
 * meanwhile, and its memory is given back with the result. Files are written one after another.
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
