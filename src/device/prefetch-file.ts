/** The files of `prefetch` and `record`: read once at the start, and written now and then. */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import {
  formatRange,
  parseRangeList,
  RANGE_LIST_BYTES_MAX,
  RANGE_LIST_HEAD,
} from "../formats/range-list.ts";
import { LogLimiter } from "../log.ts";
import type { TouchOrder } from "../stripes/touch-order.ts";

/** As pairs of a first stripe and the one behind the last, inside the disk. */
export type StripeOrder = Float64Array;

interface StripedDisk {
  readonly stripeSectors: number;
  readonly stripeCount: number;
}

/**
 * What a disk with stripes to fetch begins with: the order of `prefetch`, empty without one, and a `record` that can be
 * written.
 * @throws UbiError E_PREFETCH
 */
export function openLists(
  lists: { readonly prefetch?: string | undefined; readonly record?: string | undefined },
  disk: StripedDisk,
): StripeOrder {
  if (lists.record !== undefined) {
    checkRecord(lists.record);
  }
  return lists.prefetch === undefined ? new Float64Array(0) : readPrefetch(lists.prefetch, disk);
}

/** @throws UbiError E_PREFETCH */
export function readPrefetch(path: string, disk: StripedDisk): StripeOrder {
  const name = `stripe_source.prefetch ${path}`;
  const ranges = parseRangeList(readText(path, name), name);
  const order = new Float64Array(ranges.length * 2);
  for (const [i, { first, count }] of ranges.entries()) {
    order[i * 2] = Math.floor(first / disk.stripeSectors);
    order[i * 2 + 1] = Math.min(disk.stripeCount, Math.ceil((first + count) / disk.stripeSectors));
  }
  return order;
}

/** Refuses to write over anything but a list. @throws UbiError E_PREFETCH */
export function checkRecord(path: string): void {
  const name = `stripe_source.record ${path}`;
  if (existsSync(path) && !readText(path, name).startsWith(RANGE_LIST_HEAD)) {
    throw new UbiError(
      "E_PREFETCH",
      `${name}: there is another file, which is not written over; name a new one`,
    );
  }
}

/** Between a change and its writing. */
const DELAY_MS = 5_000;

/** Writes what was touched, whole and in one step, so that the file is a list at any time. */
export class TouchRecorder {
  readonly #path: string;
  readonly #touches: TouchOrder;
  readonly #stripeSectors: number;
  readonly #limiter = new LogLimiter(1, 60_000);
  #written = 0;
  /** Infinity while nothing is to be written. */
  dueMs = Number.POSITIVE_INFINITY;

  constructor(path: string, touches: TouchOrder, stripeSectors: number) {
    this.#path = path;
    this.#touches = touches;
    this.#stripeSectors = stripeSectors;
  }

  /** Call once a turn, and at `dueMs`. */
  advance(nowMs: number): void {
    if (nowMs >= this.dueMs) {
      this.write();
    } else if (this.#touches.changes !== this.#written && this.dueMs === Number.POSITIVE_INFINITY) {
      this.dueMs = nowMs + DELAY_MS;
    }
  }

  /** What is not written yet. */
  write(): void {
    this.dueMs = Number.POSITIVE_INFINITY;
    if (this.#touches.changes === this.#written) {
      return;
    }
    this.#written = this.#touches.changes;
    const size = this.#stripeSectors;
    const lines = this.#touches.runs.map(({ first, count }) =>
      formatRange({ first: first * size, count: count * size }),
    );
    try {
      replaceRecord(this.#path, RANGE_LIST_HEAD + lines.join(""));
    } catch (error) {
      this.#limiter.warn("cannot record what is read", {
        path: this.#path,
        cause: errorText(error),
      });
    }
  }
}

// --- internal ---

/** Under a name of its own first: beside the record there may be any file. Another one may be at its place by now. */
function replaceRecord(path: string, text: string): void {
  const temporaryPath = `${path}.${randomBytes(6).toString("hex")}.new`;
  checkRecord(path);
  try {
    writeFileSync(temporaryPath, text, { mode: 0o600, flag: "wx" });
    renameSync(temporaryPath, path);
  } catch (error) {
    rmSync(temporaryPath, { force: true });
    throw error;
  }
}

/** Without waiting for the writer of a pipe. */
function readText(path: string, name: string): string {
  let fd = -1;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const file = fstatSync(fd);
    if (!file.isFile()) {
      throw new UbiError("E_PREFETCH", `${name} is not a regular file; name one`);
    }
    if (file.size > RANGE_LIST_BYTES_MAX) {
      const limit = `more than ${RANGE_LIST_BYTES_MAX}`;
      throw new UbiError("E_PREFETCH", `${name}: the file has ${file.size} bytes, ${limit}`);
    }
    return readFileSync(fd, "latin1");
  } catch (error) {
    if (error instanceof UbiError) {
      throw error;
    }
    throw new UbiError("E_PREFETCH", `cannot read ${name}: ${errorText(error)}`, { cause: error });
  } finally {
    if (fd >= 0) {
      closeSync(fd);
    }
  }
}
