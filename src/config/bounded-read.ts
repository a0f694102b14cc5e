/**
 * Reads a small file whole, whatever it is: regular file, FIFO, /dev/stdin or a pipe of a parent.
 * It is opened without blocking, so that a pipe without a writer costs a log line and ends in a
 * time-out instead of hanging the start for ever.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { log } from "../log.ts";

export interface BoundedReadOptions {
  /** One byte more than this is read at most: a longer result means that the file is too large. */
  readonly bytesMax: number;
  /** How long to wait for a writer and for each next piece of data. */
  readonly timeoutMs: number;
  /** What is awaited, for the log: `secret "kek"`. */
  readonly what: string;
  /** Looks at the opened file before the first byte is read; throws to refuse it. */
  readonly inspect?: (stats: Stats) => void;
  /** Ends the wait for a writer, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A pipe stayed without data for the whole time. */
export class ReadTimeoutError extends Error {}

/**
 * Returns the bytes of `path`, at most `bytesMax + 1`. The caller owns (and wipes) them.
 *
 * @throws the system's error (with `code`), `ReadTimeoutError`, what `inspect` throws, or the signal's reason.
 */
export async function readBounded(path: string, options: BoundedReadOptions): Promise<Uint8Array> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  const buffer = new Uint8Array(options.bytesMax + 1);
  try {
    const stats = fstatSync(fd);
    options.inspect?.(stats);
    const length = await fill(fd, buffer, new Waiter(path, stats.isFIFO(), options));
    return buffer.slice(0, length);
  } finally {
    buffer.fill(0);
    closeSync(fd);
  }
}

/** The system's name of an error (`ENOENT`), or nothing for other errors. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined;
}

// --- internal ---

const POLL_INTERVAL_MS = 10;
const LOG_INTERVAL_MS = 30_000;

async function fill(fd: number, buffer: Uint8Array, waiter: Waiter): Promise<number> {
  let length = 0;
  while (length < buffer.length) {
    const bytes = readNow(fd, buffer, length);
    if (bytes === "not yet" || (bytes === 0 && waiter.awaitsWriter(length))) {
      await waiter.pause();
    } else if (bytes === 0) {
      break;
    } else {
      length += bytes;
      waiter.restart();
    }
  }
  return length;
}

function readNow(fd: number, buffer: Uint8Array, offset: number): number | "not yet" {
  try {
    return readSync(fd, buffer, offset, buffer.length - offset, null);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "EAGAIN" || code === "EINTR") {
      return "not yet";
    }
    throw error;
  }
}

class Waiter {
  readonly #path: string;
  readonly #isPipe: boolean;
  readonly #options: BoundedReadOptions;
  #startMs = performance.now();
  #nextLogMs = 0;

  constructor(path: string, isPipe: boolean, options: BoundedReadOptions) {
    this.#path = path;
    this.#isPipe = isPipe;
    this.#options = options;
  }

  /** A pipe that gave nothing yet has no writer so far; after data, its end is the end. */
  awaitsWriter(lengthSoFar: number): boolean {
    return this.#isPipe && lengthSoFar === 0;
  }

  restart(): void {
    this.#startMs = performance.now();
  }

  async pause(): Promise<void> {
    this.#options.signal?.throwIfAborted();
    const waitedMs = performance.now() - this.#startMs;
    if (waitedMs >= this.#options.timeoutMs) {
      throw new ReadTimeoutError(`no data within ${this.#options.timeoutMs} ms`);
    }
    if (waitedMs >= this.#nextLogMs) {
      log.info(`waiting for ${this.#options.what}`, { path: this.#path });
      this.#nextLogMs += LOG_INTERVAL_MS;
    }
    await Bun.sleep(Math.min(POLL_INTERVAL_MS, this.#options.timeoutMs - waitedMs));
  }
}
