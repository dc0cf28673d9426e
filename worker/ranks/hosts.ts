// Host names and addresses of ranks.

import { isIP } from 'node:net'

/** Whether all ranks that meet at this host are on this machine. */
export const isLoopback = (host: string): boolean => ['127.0.0.1', '::1', 'localhost'].includes(host)

/** An address without the prefix that IPv6 sockets give to IPv4 addresses. */
export function plainHost(address: string | undefined): string {
  const host = (address ?? '').replace(/^::ffff:/i, '')
  return isIP(host) ? host : (address ?? '')
}
