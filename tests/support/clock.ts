// Preloaded into a process whose clock is to jump (`node --import`): at SIGUSR2 it goes by CLOCK_JUMP_MILLISECONDS, back or forth. Timers do not notice, as
// on a machine whose time is set.

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
