// What happens next is in the type: Stalled waits for the user, Waiting for a time, anything else is retried with back-off.

/** Nothing will change until the user changes something; the text goes into the job's status. */
export class Stalled extends Error {
  override readonly name = 'Stalled'
  /** One CamelCase word. */
  readonly reason: string

  constructor(reason: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.reason = reason
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
