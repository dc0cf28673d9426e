// Errors of the operator. The type of an error says what happens next: Stalled waits for the user,
// Waiting for some time, Unusable ends the operator, and anything else is retried with back-off.

/** Nothing changes until somebody acts. The text goes into the job's status. */
export class Stalled extends Error {
  override readonly name = 'Stalled'
  /** One CamelCase word. */
  readonly reason: string
  /** The cause may pass by itself, so the job is tried again with back-off. */
  readonly mayPass: boolean

  constructor(
    { reason, message, mayPass = false }: { reason: string; message: string; mayPass?: boolean },
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.reason = reason
    this.mayPass = mayPass
  }
}

/** Not a failure: something else has to happen first, or to be gone. */
export class Waiting extends Error {
  override readonly name = 'Waiting'
  readonly delayMilliseconds: number

  constructor(message: string, delayMilliseconds: number) {
    super(message)
    this.delayMilliseconds = delayMilliseconds
  }
}

/** The operator cannot run as it was started. The text says which flag or file to change. */
export class Unusable extends Error {
  override readonly name = 'Unusable'
}

/** The API server did not answer in time. Whether it did what was asked is not known. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer'

  constructor(request: string, milliseconds: number) {
    super(`${request}: no answer within ${milliseconds / 1000} s`)
  }
}

/** The API server refused a request. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  /** HTTP status. */
  readonly code: number
  /** metav1.Status.reason, e.g. AlreadyExists. Empty if the body was not a Status. */
  readonly reason: string
  /** metav1.Status.details.kind: the kind that the answer is about, in plural. Empty if unknown. */
  readonly kind: string
  /** The server's own text. */
  readonly text: string
  readonly retryAfterMilliseconds: number | undefined

  constructor(answer: {
    code: number
    reason: string
    kind?: string
    message: string
    request: string
    retryAfterMilliseconds?: number | undefined
  }) {
    super(`${answer.request}: ${answer.code} ${answer.message}`)
    this.code = answer.code
    this.reason = answer.reason
    this.kind = answer.kind ?? ''
    this.text = answer.message
    this.retryAfterMilliseconds = answer.retryAfterMilliseconds
  }
}

export const isCode = (error: unknown, ...codes: number[]): error is ApiError =>
  error instanceof ApiError && codes.includes(error.code)

/** The error's text, with that of its cause. */
export const messageOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.cause.message !== ''
    ? `${error.message}: ${error.cause.message}`
    : error.message
}
