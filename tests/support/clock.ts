// Preloaded with `node --import` into a process whose clock is to jump. At SIGUSR2 the clock moves
// by CLOCK_JUMP_MILLISECONDS, forwards or backwards. Timers do not change, as on a machine whose
// time is set.

const Real = Date
let offset = Number(process.env['CLOCK_OFFSET_MILLISECONDS'] ?? 0)
const jump = Number(process.env['CLOCK_JUMP_MILLISECONDS'] ?? 0)
process.on('SIGUSR2', () => {
  offset += jump
})

globalThis.Date = new Proxy(Real, {
  construct: (_, given: unknown[]) => Reflect.construct(Real, given.length === 0 ? [Real.now() + offset] : given),
  get: (target, name) => (name === 'now' ? () => Real.now() + offset : Reflect.get(target, name)),
})
