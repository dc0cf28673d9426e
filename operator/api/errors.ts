// What happens next is in the type: Stalled waits for the user, Waiting for a time, Unusable ends the operator, anything else is retried with back-off.

/** Nothing will change until somebody changes something; the text goes into the job's status. */
export class Stalled extends Error {
  override readonly name = 'Stalled'
  /** One CamelCase word. */
  readonly reason: string
  /** It may pass by itself, and is tried again with back-off. */
  readonly mayPass: boolean

  constructor(
    reason: string,
    message: string,
    { cause, mayPass = false }: { cause?: unknown; mayPass?: boolean } = {},
  ) {
    super(message, { cause })
    this.reason = reason
    this.mayPass = mayPass
  }
}

/** Not an error: something has to go away or come first. */
export class Waiting extends Error {
  override readonly name = 'Waiting'
  readonly delayMilliseconds: number

  constructor(message: string, delayMilliseconds: number) {
    super(message)
    this.delayMilliseconds = delayMilliseconds
  }
}

/** It cannot run as it was started; the text says which flag or file has to be changed. */
export class Unusable extends Error {
  override readonly name = 'Unusable'
}

/** The API server said no. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly code: number
  /** metav1.Status.reason, e.g. AlreadyExists; empty where the body was no Status. */
  readonly reason: string
  readonly retryAfterMilliseconds: number | undefined

  constructor(answer: {
    code: number
    reason: string
    message: string
    request: string
    retryAfterMilliseconds?: number | undefined
  }) {
    super(`${answer.request}: ${answer.code} ${answer.message}`)
    this.code = answer.code
    this.reason = answer.reason
    this.retryAfterMilliseconds = answer.retryAfterMilliseconds
  }
}

export const isCode = (error: unknown, ...codes: number[]): error is ApiError =>
  error instanceof ApiError && codes.includes(error.code)

export const messageOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.cause.message !== ''
    ? `${error.message}: ${error.cause.message}`
    : error.message
}
