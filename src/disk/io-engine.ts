/**
 * What a queue worker needs of an I/O engine: prepare work under an id, hand it over in one call that may
 * also wait, then read the completions. One engine belongs to one worker; nothing here allocates, throws
 * or returns a promise after the constructor.
 *
 * An id is any number below 2^31; it comes back with the result: bytes moved, 0, or a negative errno.
 * The memory that an entry names must stay valid until its completion was read.
 */
export interface IoEngine extends Disposable {
  readonly kind: "io_uring" | "sync";

  /**
   * A descriptor that another engine of the same thread can `watch`: signalled when this one has completions to
   * bring. -1 when work is complete as soon as it was prepared.
   */
  readonly waitFd: number;

  /** Entries that can still be prepared before the next `submit`. */
  room(): number;

  /** Reads to or writes from plain memory. */
  prepareRead(id: number, offset: number, address: number, lengthBytes: number): void;
  prepareWrite(id: number, offset: number, address: number, lengthBytes: number): void;

  /** The same with `count` struct iovec at `vector`, at most 1024. */
  prepareReadVector(id: number, offset: number, vector: number, count: number): void;
  prepareWriteVector(id: number, offset: number, vector: number, count: number): void;

  /** The same with memory inside registered buffer `buffer` (`registerBuffer`). */
  prepareReadFixed(
    id: number,
    offset: number,
    address: number,
    lengthBytes: number,
    buffer: number,
  ): void;
  prepareWriteFixed(
    id: number,
    offset: number,
    address: number,
    lengthBytes: number,
    buffer: number,
  ): void;

  /** fdatasync(2). */
  prepareSync(id: number): void;

  /** fallocate(2). */
  prepareAllocate(id: number, mode: number, offset: number, lengthBytes: number): void;

  /** Later writes are durable when they complete (RWF_DSYNC), or not. */
  setWriteThrough(isWriteThrough: boolean): void;

  /**
   * Completes `id` with a positive result whenever `fd` is signalled, until `unwatch`. Completions from
   * WATCH_ID on whose result is not positive mean nothing: they are what is left of earlier watches.
   */
  watch(id: number, fd: number): void;
  unwatch(id: number): void;

  /** Makes memory cheap for the Fixed calls. False when the kernel refuses (memory lock limit). */
  registerBuffer(buffer: number, address: number, lengthBytes: number): boolean;

  /** Hands over what was prepared and waits until `completionsMin` completions are there (0: does not wait). */
  submit(completionsMin: number): void;

  /** Completions that can be read now, without a system call. */
  completions(): number;
  /** Id and result of completion `index`, 0 to `completions() - 1`. */
  completedId(index: number): number;
  completedResult(index: number): number;
  /** Drops the first `count` completions. */
  release(count: number): void;

  /** True when a `submit(0)` would hand something over or bring completions, or some are there. */
  hasWork(): boolean;
}

/** How often one piece of work is tried again after a passing failure. */
export const RETRIES_MAX = 3;

const EINTR = -4;
const EAGAIN = -11;

/** Whether work that ended with `result`, which is not what was asked for, is worth another try. */
export function isPassing(result: number): boolean {
  return result === EINTR || result === EAGAIN || result >= 0;
}

/** Ids of watches start here; an id is not used again for another descriptor. Requests use lower ones. */
export const WATCH_ID = 0x4000_0000;

/** The file an engine works on. */
export interface EngineFile {
  readonly fd: number;
  readonly isWriteThrough: boolean;
}
