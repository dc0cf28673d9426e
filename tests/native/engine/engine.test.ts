// Tests of the addon as worker/engine.ts offers it: programs, the loader, calls and close.

import { createServer } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { createEngine, type Engine, type EngineOptions, loadAddon } from '../../../worker/engine.ts'
import { EngineError } from '../../../worker/engine-error.ts'
import type { Program } from '../../../worker/program/program.ts'
import { add, lookUp, makeProgram, shapeOf } from '../../support/engine/programs.ts'
import { DEFAULTS, failureOf, World } from '../../support/engine/ranks.ts'

const engines: Engine[] = []
afterEach(() => {
  for (const engine of engines.splice(0)) engine.close()
})

const start = (options: Partial<EngineOptions> = {}): Engine => {
  const engine = createEngine({ ...DEFAULTS, ...options })
  engines.push(engine)
  return engine
}

const errorOf = (action: () => unknown): Error => {
  try {
    action()
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error('expected an error')
}

/** A program that computes a + a `times` times. */
const longProgram = (times: number): Program =>
  makeProgram(
    'long',
    shapeOf(0, 1),
    { a: 300_000, b: 300_000 },
    Array.from({ length: times }, (_, index) => add(`add ${index}`, ['a', 'a'], 'b', 300_000)),
  )

/** out = 4 in, computed through the last 256 of `elements` in transient memory. */
function transientProgram(name: string, elements: number): Program {
  const program = makeProgram(name, shapeOf(0, 1), { in: 256, out: 256, between: 256 }, [
    add('there', ['in', 'in'], 'between', 256),
    add('back', ['between', 'between'], 'out', 256),
  ])
  const between = program.buffers.find(buffer => buffer.name === 'between')
  if (!between) throw new Error('no buffer')
  between.arena = 'transient'
  between.offset = (elements - 256) * 4
  return { ...program, persistentBytes: 2048, transientBytes: elements * 4 }
}

const goodProgram = (): Program =>
  makeProgram('train', shapeOf(0, 1), { a: 64, b: 64, n: { i32: 64 } }, [
    add('first', ['a', 'a'], 'b', 64),
    { op: 'all_reduce', label: 'sum', inputs: ['b'], outputs: ['b'], attrs: { group: 'world' }, after: ['first'] },
    { ...add('last', ['b', 'b'], 'a', 64), after: ['sum'] },
  ])

describe('a program', () => {
  it('reads and writes persistent buffers, which JavaScript sees without copy and other programs share', async () => {
    const engine = start()
    engine.load(makeProgram('double', shapeOf(0, 1), { a: 100, b: 100 }, [add('double', ['a', 'a'], 'b', 100)]))
    engine.load(makeProgram('back', shapeOf(0, 1), { a: 100, b: 100 }, [add('back', ['b', 'b'], 'a', 100)]))
    const a = engine.view('a')
    const b = engine.view('b')
    expect(a.length).toBe(100)
    expect(b.every(value => value === 0)).toBe(true)
    a.fill(1.5)
    await engine.run('double')
    expect(b.every(value => value === 3)).toBe(true)
    await engine.run('back')
    expect(a.every(value => value === 6)).toBe(true)
    expect(engine.view('a')).toEqual(a)
    expect(engine.view('a').buffer).toBe(b.buffer)
  })

  // Seen failing with `connect` required for every program.
  it('without collectives needs no peers, whatever the world', async () => {
    const engine = start({ rank: 3, worldSize: 512, expertParallelSize: 8 })
    const shape = shapeOf(3, 512, 8)
    engine.load(makeProgram('alone', shape, { a: 64, b: 64 }, [add('double', ['a', 'a'], 'b', 64)]))
    engine.view('a').fill(1)
    await engine.run('alone')
    expect(engine.view('b')[63]).toBe(2)
    const sum = { op: 'all_reduce', label: 'sum', inputs: ['a'], outputs: ['a'], attrs: { group: 'world' } } as const
    engine.load(makeProgram('together', shape, { a: 64, b: 64 }, [sum]))
    await expect(engine.run('together')).rejects.toThrow('connect first')
  })

  it('replaces one of its name, and keeps what is persistent', async () => {
    const engine = start()
    engine.load(makeProgram('step', shapeOf(0, 1), { a: 64, b: 64 }, [add('first', ['a', 'a'], 'b', 64)]))
    engine.view('a').fill(2)
    await engine.run('step')
    engine.load(makeProgram('step', shapeOf(0, 1), { a: 64, b: 64 }, [add('second', ['b', 'a'], 'b', 64)]))
    await engine.run('step')
    expect(engine.view('b')[63]).toBe(6)
  })

  it('shares transient memory with programs that need more or less of it', async () => {
    const engine = start()
    engine.load(transientProgram('small', 256))
    engine.load(transientProgram('large', 1_000_000))
    engine.load(transientProgram('middle', 1024))
    for (const name of ['small', 'large', 'middle']) {
      engine.view('in').fill(name.length)
      engine.view('out').fill(0)
      await engine.run(name)
      expect(engine.view('out').every(value => value === 4 * name.length)).toBe(true)
    }
  })
})

describe('the loader', () => {
  it('refuses an output that has memory in common with another buffer of its op', () => {
    const attrs = { rows: 4, dim: 2, experts: 4, topK: 1, capacity: 4 }
    const buffers = { x: 8, w: 8, probs: 16, expert: { i32: 4 }, weight: 4, counts: { i32: 4 } }
    const outputs = ['probs', 'expert', 'weight', 'expert', 'counts']
    const router = { op: 'router', label: 'gate', inputs: ['x', 'w'], outputs, attrs } as const
    expect(errorOf(() => start().load(makeProgram('aliased', shapeOf(0, 1), buffers, [router]))).message).toContain(
      "output 'slot' of router (buffer 'expert') has memory in common with output 'expert' of router (buffer 'expert')",
    )
    const linear = { rows: 2, in: 2, out: 2, bias: 0 }
    const inPlace = { op: 'linear', label: 'layer', inputs: ['x', 'w'], outputs: ['x'], attrs: linear } as const
    expect(errorOf(() => start().load(makeProgram('aliased', shapeOf(0, 1), buffers, [inPlace]))).message).toContain(
      "output 'y' of linear (buffer 'x') has memory in common with input 'x' of linear",
    )
  })

  type Mutable = Record<string, unknown> & { buffers: Record<string, unknown>[]; ops: Record<string, unknown>[] }
  const cases: [string, (program: Mutable) => unknown, ...string[]][] = [
    ['version', p => (p['version'] = 2), 'version is 2'],
    ['another rank', p => (p['rank'] = 1), "'train'", 'rank is 1'],
    ['another world', p => (p['worldSize'] = 2), 'worldSize is 2'],
    ['negative size', p => (p['persistentBytes'] = -1), 'persistentBytes is -1'],
    ['no buffers', p => Reflect.deleteProperty(p, 'buffers'), 'buffers is missing'],
    ['buffer past the end', p => (p.buffers[1] = { ...p.buffers[1], elements: 1000 }), "buffer 'b'", 'past the end'],
    ['unaligned buffer', p => (p.buffers[1] = { ...p.buffers[1], offset: 4 }), "buffer 'b'", 'offset is 4', '64'],
    ['buffer type', p => (p.buffers[1] = { ...p.buffers[1], dtype: 'f64' }), "buffer 'b'", 'dtype is "f64"'],
    [
      'bf16 on a CPU',
      p => (p.buffers[1] = { ...p.buffers[1], dtype: 'bf16' }),
      "buffer 'b'",
      'dtype is bf16',
      'computes in f32 alone',
      'training.precision float32',
    ],
    ['buffer name twice', p => (p.buffers[1] = { ...p.buffers[1], name: 'a' }), "buffer 'a'", 'name is taken'],
    ['unknown op', p => (p.ops[0] = { ...p.ops[0], op: 'sub' }), "op 'first'", 'op is "sub"'],
    ['wrong queue', p => (p.ops[0] = { ...p.ops[0], queue: 'comm' }), "op 'first'", "'compute' for add"],
    ['index out of range', p => (p.ops[0] = { ...p.ops[0], inputs: [0, 3] }), "op 'first'", 'inputs is 3', '0 to 2'],
    ['missing input', p => (p.ops[0] = { ...p.ops[0], inputs: [0] }), "op 'first'", 'add has 1 inputs, wants a, b'],
    [
      'too many outputs',
      p => (p.ops[0] = { ...p.ops[0], outputs: [1, 1] }),
      "op 'first'",
      'add has 2 outputs, wants y',
    ],
    [
      'integers for floats',
      p => (p.ops[0] = { ...p.ops[0], inputs: [0, 2] }),
      "op 'first'",
      "'n'",
      'is i32, wants f32',
    ],
    ['missing attr', p => (p.ops[0] = { ...p.ops[0], attrs: { rows: 1 } }), "op 'first'", "attribute 'dim' is missing"],
    ['text attr', p => (p.ops[0] = { ...p.ops[0], attrs: { rows: 1, dim: 'x' } }), 'attribute \'dim\' is "x"'],
    ['infinite attr', p => (p.ops[0] = { ...p.ops[0], attrs: { rows: 1, dim: Infinity } }), "attribute 'dim' is null"],
    ['unknown attr', p => (p.ops[0] = { ...p.ops[0], attrs: { rows: 1, dim: 4, color: 3 } }), "'color'", 'no such'],
    ['buffer too short', p => (p.ops[0] = { ...p.ops[0], attrs: { rows: 1, dim: 65 } }), "'a'", '64 elements', '65'],
    ['unknown group', p => (p.ops[1] = { ...p.ops[1], attrs: { group: 'all' } }), "op 'sum'", 'group', '"all"'],
    ['not in place', p => (p.ops[1] = { ...p.ops[1], outputs: [0] }), "op 'sum'", 'in place'],
    ['wait on itself', p => (p.ops[1] = { ...p.ops[1], waits: [1] }), "op 'sum'", 'waits is 1'],
    ['wait on a later op', p => (p.ops[1] = { ...p.ops[1], waits: [2] }), "op 'sum'", 'waits is 2'],
    ['wait on its own queue', p => (p.ops[2] = { ...p.ops[2], waits: [0] }), "op 'last'", 'waits is 0', 'other queue'],
    ['label twice', p => (p.ops[2] = { ...p.ops[2], label: 'sum' }), "op 'sum'", 'label is taken'],
  ]
  for (const [name, damage, ...said] of cases) {
    it(`refuses ${name}, saying where`, () => {
      const program: Mutable = JSON.parse(JSON.stringify(goodProgram()))
      damage(program)
      const damaged: Program = JSON.parse(JSON.stringify(program))
      const error = errorOf(() => start().load(damaged))
      expect(error).toBeInstanceOf(EngineError)
      expect(error).toMatchObject({ code: 'BAD_PROGRAM' })
      for (const words of said) expect(error.message).toContain(words)
    })
  }

  it('takes the program that those cases damage', () => {
    expect(() => start().load(goodProgram())).not.toThrow()
  })

  it('refuses a program that puts a persistent buffer elsewhere or needs more persistent memory than the first', () => {
    const engine = start()
    engine.load(goodProgram())
    const moved = makeProgram('moved', shapeOf(0, 1), { b: 64, a: 64 }, [])
    expect(errorOf(() => engine.load(moved))).toMatchObject({ code: 'BAD_PROGRAM' })
    const larger = { ...goodProgram(), name: 'larger', persistentBytes: 1 << 20 }
    expect(errorOf(() => engine.load(larger))).toMatchObject({ code: 'BAD_PROGRAM' })
  })

  it('says how much memory a program needs and how much there is, and lives on', async () => {
    const engine = start()
    const huge = { ...goodProgram(), name: 'huge', transientBytes: 2 ** 46 }
    const error = errorOf(() => engine.load(huge))
    expect(error).toMatchObject({ code: 'OUT_OF_MEMORY' })
    expect(error.message).toMatch(/7036\d+ bytes needed, \d+ available/)
    engine.load(goodProgram())
    await engine.run('train')
  })
})

describe('an op', () => {
  it.each([8, -1, 2 ** 31 - 1])('is not run with the index %i, and says where it is', async token => {
    const engine = start()
    engine.load(lookUp())
    engine.view('tokens').set([0, 7, 1, 0, 0])
    await engine.run('look up')
    engine.view('tokens')[2] = token
    await expect(engine.run('look up')).rejects.toMatchObject({
      code: 'BAD_PROGRAM',
      op: 'rows of tokens',
      message: expect.stringContaining(
        `input 0 of embedding (buffer 'tokens') holds ${token} at place 2, wants at least 0 and below vocabulary (8)`,
      ),
    })
  })
})

describe('the event loop', () => {
  it('turns while a program runs', async () => {
    const engine = start()
    engine.load(longProgram(2000))
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    await engine.run('long')
    clearInterval(timer)
    expect(turns).toBeGreaterThan(5)
  })
})

describe('a call', () => {
  it('is one at a time, until its result is known', async () => {
    const engine = start()
    engine.load(longProgram(1))
    const first = engine.run('long')
    // The engine finishes in this time, while JavaScript is blocked and cannot have noticed.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
    const second = engine.run('long')
    expect(() => engine.load(longProgram(1))).toThrow('pending')
    await expect(second).rejects.toThrow('pending')
    await first
    await engine.run('long')
  })

  it('fails with ABORTED when aborted, and so does every later one', async () => {
    const engine = start()
    engine.load(longProgram(5000))
    const running = engine.run('long')
    engine.abort()
    await expect(running).rejects.toMatchObject({ name: 'EngineError', code: 'ABORTED' })
    await expect(engine.run('long')).rejects.toMatchObject({ code: 'ABORTED' })
    await expect(engine.allReduce(Float64Array.of(1))).rejects.toMatchObject({ code: 'ABORTED' })
  })

  it('that waits for a peer can be aborted, and the peer learns of it', async () => {
    await using world = new World(2)
    await world.create({ timeoutMilliseconds: 60_000 })
    await world.connect()
    const waiting = failureOf(world.rank(0).call('allReduce', Float64Array.of(1)))
    await world.rank(0).call('abort')
    expect(await waiting).toMatchObject({ code: 'ABORTED' })
    // Rank 0 may have sent enough for this all-reduce before the abort, but not for the next one.
    await world
      .rank(1)
      .call('allReduce', Float64Array.of(1))
      .catch(() => undefined)
    const peer = await failureOf(world.rank(1).call('allReduce', Float64Array.of(1)))
    expect(peer).toMatchObject({ code: 'PEER_LOST', peer: 0 })
  })

  it('is not touched by an abort before it', async () => {
    const engine = start()
    engine.abort()
    engine.load(longProgram(1))
    await engine.run('long')
  })

  it('that waits in connect ends with ABORTED when the engine is closed', async () => {
    const engine = start({ worldSize: 2, timeoutMilliseconds: 60_000 })
    await engine.listen()
    const peers = [0, 1].map(() => ({ host: '127.0.0.1', port: 1 }))
    const connecting = engine.connect(peers, 'attempt')
    engine.close()
    await expect(connecting).rejects.toMatchObject({ code: 'ABORTED' })
  })

  it('with a wrong argument says which', async () => {
    const engine = start()
    await expect(engine.run('none')).rejects.toThrow("'none'")
    await expect(engine.connect([], 'attempt')).rejects.toThrow('0 peers given, worldSize is 1')
    await expect(engine.listen(70_000)).rejects.toThrow('70000')
    expect(() => start({ rank: 3, worldSize: 2 })).toThrow('rank is 3, wants 0 to 1')
    expect(() => start({ worldSize: 4, expertParallelSize: 3 })).toThrow('expertParallelSize is 3')
    expect(() => start({ computeThreads: 0 })).toThrow('computeThreads is 0')
  })

  it('to listen on a port that is taken fails with LISTEN_FAILED naming it', async () => {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(0, resolve))
    try {
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      await expect(start().listen(port)).rejects.toMatchObject({
        code: 'LISTEN_FAILED',
        message: expect.stringContaining(String(port)),
      })
    } finally {
      server.close()
    }
  })
})

describe('close', () => {
  it('gives back threads and descriptors, whatever was under way', async () => {
    await using world = new World(2)
    const count = () => world.each(async rank => [await rank.call('threads'), await rank.call('descriptors')])
    const cycle = async (interrupted: boolean): Promise<void> => {
      await world.create({ computeThreads: 2 })
      await world.connect()
      const pending = interrupted ? world.rank(0).call('allReduce', Float64Array.of(1)) : Promise.resolve()
      await Promise.all([pending.catch(() => undefined), world.each(rank => rank.call('close'))])
    }
    await cycle(false) // Node itself starts some threads once
    const before = (await count()).flat()
    for (const interrupted of [false, true, false]) await cycle(interrupted)
    // The kernel may list a joined thread for a moment.
    const more = async () => (await count()).flat().map((now, i) => Math.max(0, now - (before[i] ?? 0)))
    await expect.poll(more, { timeout: 10_000 }).toEqual(before.map(() => 0))
  })

  it('empties every view, and later calls fail with ABORTED', async () => {
    const engine = start()
    engine.load(longProgram(1))
    const view = engine.view('a')
    view.fill(1)
    engine.close()
    expect(view.length).toBe(0)
    expect(view[0]).toBeUndefined()
    expect(errorOf(() => engine.view('a'))).toMatchObject({ code: 'ABORTED' })
    await expect(engine.run('long')).rejects.toMatchObject({ code: 'ABORTED' })
    engine.close()
  })
})

describe('the addon', () => {
  it('that cannot be loaded is reported with what to do', () => {
    const error = errorOf(() => loadAddon('/nowhere/scmoe.node'))
    expect(error).toMatchObject({ name: 'EngineError', code: 'ADDON_MISSING' })
    expect(error.message).toMatch(/\/nowhere\/scmoe\.node[\s\S]*Possible solutions:\n - build it/)
  })

  it('says what it computes with', () => {
    expect(start({ computeThreads: 2 }).description).toMatch(/^cpu-.*, 2 threads$/)
  })
})
