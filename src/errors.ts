/**
 * Operating errors: what a disk, a guest, a peer, a file or a user can do wrong. Each has a stable
 * code (a row in docs/errors.md) and a one-line message: what failed, on what, why, what to do.
 * Programmer errors are assertions: they stop the process, since a wrong block is worse than none.
 */

/** Every code that a user can meet. A test holds this list against docs/errors.md. */
export const ERROR_CODES = [
  "E_USAGE",
  "E_CONFIG",
  "E_CONFIG_READ",
  "E_CONFIG_SYNTAX",
  "E_CONFIG_INCLUDE",
  "E_CONFIG_KEY",
  "E_CONFIG_VALUE",
  "E_CONFIG_DANGER",
  "E_CONFIG_REFERENCE",
  "E_SECRET",
  "E_SECRET_READ",
  "E_SECRET_SIZE",
  "E_SECRET_ENVELOPE",
  "E_SECRET_REFERENCE",
  "E_SECRET_OUTPUT",
  "E_INIT",
  "E_NATIVE_LIBRARY",
  "E_CIPHER",
  "E_DISK_OPEN",
  "E_DISK_SIZE",
  "E_DISK_LOCKED",
  "E_DISK_IO",
  "E_METADATA",
  "E_METADATA_FILE",
  "E_METADATA_KEPT",
  "E_METADATA_SIZE",
  "E_RESIZE",
  "E_UPGRADE",
  "E_STRIPE_SOURCE",
  "E_PREFETCH",
  "E_STORE",
  "E_STORE_OBJECT",
  "E_CREDENTIALS",
  "E_ARCHIVE",
  "E_ARCHIVE_KEY",
  "E_ARCHIVE_TAMPERED",
  "E_ARCHIVE_DATA",
  "E_MEMORY",
  "E_URING",
  "E_SOCKET",
  "E_SOCKET_IN_USE",
  "E_SOCKET_NOT_OURS",
  "E_PROTOCOL",
  "E_UBLK_DRIVER",
  "E_UBLK_DEVICE",
  "E_UBLK_LINK",
  "E_REMOTE",
  "E_REMOTE_PSK",
  "E_WORKER",
  "E_RPC_REQUEST",
  "E_RPC_COMMAND",
  "E_RPC_LIMIT",
  "E_RPC_NO_FETCH",
  "E_ARCHIVE_EXISTS",
  "E_ARCHIVE_RUN",
  "E_EXPORT",
  "E_SCRUB",
  "E_INTERRUPTED",
  "E_XTS_RANGE",
  "E_XTS_OUTPUT",
  "E_TOP",
  "E_METRICS",
  "E_BENCH",
  "E_VERIFY",
  "E_DOCTOR",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** An operating error. `message` is one line that a person can act on; it never holds a secret. */
export class UbiError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = "UbiError";
    this.code = code;
  }
}

/** Several operating errors found in one go, such as all mistakes of one config file. */
export class UbiErrors extends Error {
  readonly errors: readonly UbiError[];

  constructor(errors: readonly UbiError[]) {
    super(errors.map((error) => error.message).join("\n"));
    this.name = "UbiErrors";
    this.errors = errors;
  }
}

/** A programmer error: the process must not go on. */
export class AssertionError extends Error {
  constructor(message: string) {
    super(`assertion failed: ${message}`);
    this.name = "AssertionError";
  }
}

/** Stays on in production. `message` states what was expected to hold. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) {
    throw new AssertionError(message);
  }
}

/** Ends a `switch` over a tagged union: reaching it is a programmer error. */
export function assertNever(value: never): never {
  throw new AssertionError(`unexpected value ${JSON.stringify(value)}`);
}

const ERRNO_NAMES: Readonly<Record<number, string>> = {
  1: "EPERM (operation not permitted)",
  2: "ENOENT (no such file or directory)",
  3: "ESRCH (no such process)",
  4: "EINTR (interrupted)",
  5: "EIO (input/output error)",
  6: "ENXIO (no such device or address)",
  9: "EBADF (bad file descriptor)",
  11: "EAGAIN (try again)",
  12: "ENOMEM (out of memory)",
  13: "EACCES (permission denied)",
  14: "EFAULT (bad address)",
  16: "EBUSY (device or resource busy)",
  17: "EEXIST (already exists)",
  19: "ENODEV (no such device)",
  20: "ENOTDIR (not a directory)",
  21: "EISDIR (is a directory)",
  22: "EINVAL (invalid argument)",
  24: "EMFILE (too many open files)",
  25: "ENOTTY (not supported by this file)",
  26: "ETXTBSY (text file busy)",
  27: "EFBIG (file too large)",
  28: "ENOSPC (no space left)",
  30: "EROFS (read-only file system)",
  32: "EPIPE (broken pipe)",
  36: "ENAMETOOLONG (name too long)",
  38: "ENOSYS (not implemented by this kernel)",
  39: "ENOTEMPTY (folder is not empty)",
  40: "ELOOP (a symbolic link, which is not followed here)",
  74: "EBADMSG (damaged data)",
  95: "EOPNOTSUPP (operation not supported)",
  98: "EADDRINUSE (address in use)",
  99: "EADDRNOTAVAIL (this host has no such address)",
  101: "ENETUNREACH (network unreachable)",
  104: "ECONNRESET (connection reset)",
  110: "ETIMEDOUT (timed out)",
  111: "ECONNREFUSED (connection refused)",
  125: "ECANCELED (given up)",
  113: "EHOSTUNREACH (no route to host)",
};

/** The text for a kernel result: `errno` is positive or negative, as system calls return it. */
export function errnoText(errno: number): string {
  const positive = Math.abs(errno);
  return ERRNO_NAMES[positive] ?? `errno ${positive}`;
}

/** One line for any thrown value, without a stack. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
