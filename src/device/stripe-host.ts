/**
 * The I/O of the stripe worker: what StripeService decides is done here, and what ended is told to it.
 *
 *   base engine      stripes written or zeroed, syncs shared with the queues (FlushGroup), and the one wait
 *   metadata engine  sectors, enciphered on a copy, and their sync; through the page cache
 *   source           on an engine of its own
 *
 * The thread waits in the base engine only; the others' descriptors are watched there.
 */
import type { XtsCipher } from "../disk/cipher.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import { type IoEngine, isPassing, RETRIES_MAX, WATCH_ID } from "../disk/io-engine.ts";
import { assert, errnoText } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { drainEvent, signalEvent } from "../ffi/event.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from "../ffi/file.ts";
import { isZeroMemory } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { f64, i32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { LogLimiter } from "../log.ts";
import type { Fetcher } from "../stripes/fetcher.ts";
import type { MetadataCommit } from "../stripes/metadata-commit.ts";
import type { ServiceHost } from "../stripes/stripe-service.ts";
import type { StripeState } from "../stripes/stripe-state.ts";
import type { Machine } from "./machine.ts";

/** Who is told of ends: a StripeService. */
export interface StripeEnds {
  readonly fetcher: Pick<Fetcher, "baseWritten">;
  readonly commit: Pick<MetadataCommit, "baseFlushed" | "sectorWritten" | "metadataFlushed">;
}

export interface StripeHostOptions {
  readonly machine: Pick<Machine, "clockNs" | "createTimer" | "setTimer">;
  readonly state: StripeState;
  /** Of the base alone, and of the metadata file alone: the host disposes of them. */
  readonly baseEngine: IoEngine;
  readonly metadataEngine: IoEngine;
  /** Signalled by queues and the main thread. */
  readonly wakeFd: number;
  /** Signalled when the source has completions; -1 for never. */
  readonly sourceFd: number;
  readonly cipher: XtsCipher | undefined;
  readonly flush: {
    readonly shared: SharedArrayBuffer;
    readonly queues: number;
    readonly queueWakeFds: readonly number[];
  };
}

/** Metadata sectors that are written at once. */
const PLACES = 32;
/** Engine ids above those of buffers and places. */
const SYNC_ID = 0x2000_0000;
const WAKE_ID = WATCH_ID;
const TIMER_ID = WATCH_ID + 1;
const METADATA_ID = WATCH_ID + 2;
const SOURCE_ID = WATCH_ID + 3;

const ZERO_MODE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const EIO = -5;
const EINVAL = -22;
const ENOSYS = -38;
const EOPNOTSUPP = -95;

/** Entries that each engine of the host needs. */
export function entriesOf(buffers: number): { readonly base: number; readonly metadata: number } {
  return { base: buffers + 1, metadata: PLACES + 1 };
}

export class StripeHost implements ServiceHost, Disposable {
  readonly sectorPlaces: readonly Uint8Array[];
  readonly #options: StripeHostOptions;
  readonly #base: IoEngine;
  readonly #metadata: IoEngine;
  readonly #flushes: FlushGroup;
  readonly #arena = new Arena(PLACES * 2 * SECTOR_BYTES);
  readonly #plain: readonly ArenaView<Uint8Array>[];
  readonly #enciphered: readonly ArenaView<Uint8Array>[];
  readonly #timerFd: number;
  readonly #limiter = new LogLimiter();
  /** Places whose sectors could not be enciphered. */
  #unsealed: number[] = [];
  #hasFlushed: boolean | undefined;
  /** The service was told of ends since its last turn, and has not told the queues yet. */
  #hasTold = false;
  #syncRetries = 0;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #isSourceWatched: boolean;
  // Columns by fetch buffer, of writes:
  readonly #offset: Float64Array;
  readonly #address: Float64Array;
  readonly #left: Float64Array;
  readonly #retries: Int32Array;
  readonly #isZeroing: Uint8Array;

  constructor(options: StripeHostOptions) {
    this.#options = options;
    this.#timerFd = options.machine.createTimer();
    this.#base = options.baseEngine;
    this.#metadata = options.metadataEngine;
    const buffers = options.state.shared.buffers;
    this.#offset = new Float64Array(buffers);
    this.#address = new Float64Array(buffers);
    this.#left = new Float64Array(buffers);
    this.#retries = new Int32Array(buffers);
    this.#isZeroing = new Uint8Array(buffers);
    const sectors = () => Array.from({ length: PLACES }, () => this.#arena.bytes(SECTOR_BYTES));
    this.#plain = sectors();
    this.#enciphered = sectors();
    this.sectorPlaces = this.#plain.map(({ view }) => view);
    const { shared, queues, queueWakeFds } = options.flush;
    this.#flushes = new FlushGroup({
      shared,
      queue: queues,
      queues: queues + 1,
      slotsMax: 1,
      host: {
        startSync: () => this.#base.prepareSync(SYNC_ID),
        finish: (_slot, isOk) => {
          this.#hasFlushed = isOk;
        },
        wake: (queue) => signalEvent(queueWakeFds[queue] ?? -1),
        noteFailure: () => options.state.noteBaseFailure(),
      },
    });
    this.#base.watch(WAKE_ID, options.wakeFd);
    this.#base.watch(TIMER_ID, this.#timerFd);
    this.#isSourceWatched = options.sourceFd >= 0;
    if (this.#isSourceWatched) {
      this.#base.watch(SOURCE_ID, options.sourceFd);
    }
    if (this.#metadata.waitFd >= 0) {
      this.#base.watch(METADATA_ID, this.#metadata.waitFd);
    }
  }

  // What the service asks for:

  isZero(address: number, bytes: number): boolean {
    return this.#options.cipher === undefined && isZeroMemory(address, bytes);
  }

  seal(sector: number, sectorCount: number, address: number): boolean {
    const { cipher } = this.#options;
    return cipher === undefined || cipher.encrypt(sector, sectorCount, address, address) === 0;
  }

  writeBase(buffer: number, offset: number, address: number, bytes: number): void {
    this.#begin(buffer, offset, bytes);
    this.#address[buffer] = address;
    this.#isZeroing[buffer] = 0;
    this.#prepare(buffer);
  }

  zeroBase(buffer: number, offset: number, bytes: number): void {
    this.#begin(buffer, offset, bytes);
    this.#isZeroing[buffer] = 1;
    this.#prepare(buffer);
  }

  flushBase(): void {
    this.#syncRetries = 0;
    this.#flushes.request(0, false);
  }

  writeSector(place: number, sector: number): void {
    const { cipher } = this.#options;
    const plain = this.#plain[place];
    const copy = this.#enciphered[place];
    assert(plain !== undefined && copy !== undefined, "a place has memory");
    if (cipher === undefined) {
      copy.view.set(plain.view);
    } else if (cipher.encrypt(sector, 1, plain.address, copy.address) !== 0) {
      this.#unsealed.push(place);
      return;
    }
    this.#metadata.prepareWrite(place, sector * SECTOR_BYTES, copy.address, SECTOR_BYTES);
  }

  flushMetadata(): void {
    this.#metadata.prepareSync(SYNC_ID);
  }

  wakeQueue(queue: number): void {
    signalEvent(this.#options.flush.queueWakeFds[queue] ?? -1);
  }

  report(event: "stripe_fetch_failed" | "stripe_commit_failed", stripe: number, result: number) {
    this.#limiter.warn("a stripe failed", { event, stripe, cause: errnoText(result) });
  }

  // The loop:

  /** Tells the service of all that has ended. Its turn follows. */
  tellEnds(service: StripeEnds): void {
    this.#takeBaseEnds(service);
    this.#takeMetadataEnds(service);
    this.#hasTold = false;
  }

  /** Hands over what the service asked for, and tells it of what ended at once. Call behind its turn. */
  submit(service: StripeEnds): void {
    this.#flushes.advance();
    this.#takeFlush(service);
    this.#takeMetadataEnds(service);
  }

  /**
   * Sleeps until something ends, somebody signals, or `dueMs` has come. Not when the service was told something
   * behind its turn: it has queues to wake, and may have more to ask for.
   */
  wait(dueMs: number, nowMs: number): void {
    if (this.#hasTold || dueMs <= nowMs) {
      this.#base.submit(0);
      return;
    }
    if (dueMs !== this.#timerDueMs) {
      this.#timerDueMs = dueMs;
      const isEver = dueMs < Number.POSITIVE_INFINITY;
      const { machine } = this.#options;
      const delayNs = isEver ? Math.max(1, (dueMs - machine.clockNs() / 1e6) * 1e6) : 0;
      machine.setTimer(this.#timerFd, delayNs);
    }
    this.#base.submit(1);
  }

  /** The source is about to be closed. */
  unwatchSource(): void {
    if (this.#isSourceWatched) {
      this.#isSourceWatched = false;
      this.#base.unwatch(SOURCE_ID);
      this.#base.submit(0);
    }
  }

  [Symbol.dispose](): void {
    this.#base[Symbol.dispose]();
    this.#metadata[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
    closeDescriptor(this.#timerFd);
  }

  // --- internal: the base ---

  #begin(buffer: number, offset: number, bytes: number): void {
    this.#offset[buffer] = offset;
    this.#left[buffer] = bytes;
    this.#retries[buffer] = 0;
  }

  #prepare(buffer: number): void {
    const offset = f64(this.#offset, buffer);
    const left = f64(this.#left, buffer);
    if (this.#isZeroing[buffer] === 1) {
      this.#base.prepareAllocate(buffer, ZERO_MODE, offset, left);
    } else {
      this.#base.prepareWrite(buffer, offset, f64(this.#address, buffer), left);
    }
  }

  #takeBaseEnds(service: StripeEnds): void {
    const base = this.#base;
    const count = base.completions();
    for (let i = 0; i < count; i++) {
      const id = base.completedId(i);
      const result = base.completedResult(i);
      if (id < SYNC_ID) {
        this.#baseEnded(service, id, result);
      } else if (id === SYNC_ID) {
        this.#syncEnded(result);
      } else if (id === WAKE_ID) {
        drainEvent(this.#options.wakeFd);
      } else if (id === TIMER_ID && result > 0) {
        drainEvent(this.#timerFd);
        this.#timerDueMs = Number.POSITIVE_INFINITY;
      }
    }
    if (count > 0) {
      base.release(count);
    }
    this.#takeFlush(service);
  }

  #baseEnded(service: StripeEnds, buffer: number, result: number): void {
    const left = f64(this.#left, buffer);
    const isZeroing = this.#isZeroing[buffer] === 1;
    if (isZeroing ? result === 0 : result === left) {
      service.fetcher.baseWritten(buffer, 0);
      return;
    }
    const moved = Math.max(result, 0);
    const retries = moved > 0 ? 0 : i32(this.#retries, buffer) + 1;
    this.#retries[buffer] = retries;
    if (!isPassing(result) || retries > RETRIES_MAX) {
      const isRefused = isZeroing && (result === EINVAL || result === ENOSYS);
      service.fetcher.baseWritten(buffer, isRefused ? EOPNOTSUPP : result < 0 ? result : EIO);
      return;
    }
    this.#offset[buffer] = f64(this.#offset, buffer) + moved;
    this.#address[buffer] = f64(this.#address, buffer) + moved;
    this.#left[buffer] = left - moved;
    this.#prepare(buffer);
  }

  #syncEnded(result: number): void {
    if (result < 0 && isPassing(result) && this.#syncRetries < RETRIES_MAX) {
      this.#syncRetries += 1;
      this.#base.prepareSync(SYNC_ID);
      return;
    }
    this.#flushes.ended(result >= 0);
  }

  #takeFlush(service: StripeEnds): void {
    const isOk = this.#hasFlushed;
    if (isOk !== undefined) {
      this.#hasFlushed = undefined;
      this.#hasTold = true;
      service.commit.baseFlushed(isOk);
    }
  }

  // --- internal: the metadata file ---

  /** What follows from an end is handed over, and may have ended by then. */
  #takeMetadataEnds(service: StripeEnds): void {
    const metadata = this.#metadata;
    while (metadata.hasWork() || this.#unsealed.length > 0) {
      metadata.submit(0);
      const count = metadata.completions();
      for (let i = 0; i < count; i++) {
        const id = metadata.completedId(i);
        const result = metadata.completedResult(i);
        if (id === SYNC_ID) {
          service.commit.metadataFlushed(result >= 0);
        } else {
          service.commit.sectorWritten(id, result === SECTOR_BYTES);
        }
      }
      metadata.release(count);
      const unsealed = this.#unsealed;
      this.#hasTold ||= count + unsealed.length > 0;
      this.#unsealed = [];
      for (const place of unsealed) {
        service.commit.sectorWritten(place, false);
      }
    }
  }
}
