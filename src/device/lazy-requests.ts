/**
 * The requests of a queue of a disk with lazy stripes: what RequestExecutor is for a plain disk, with the gate in
 * front of it.
 *
 *   admit -> RequestGate -> base:   RequestExecutor; what claimed stripes goes back to the gate at its end
 *                        -> buffer: copied from the stripe worker's fetch buffer, at once
 *                        -> source: ImageReader; what it cannot read goes back to the gate
 *                        -> parked: keeps its slot until the stripe worker wakes this queue
 *
 * A request that waits costs nothing but its slot. Only when all slots of the queue wait is a request for a stripe
 * that is there kept waiting too: so a lazy disk has at least as many slots as the rings of guests have places.
 *
 * When no stripe is left to fetch the image is let go, and requests pass the gate by unless writes are tracked.
 * Writes that have to be durable are made so by a sync of the flush group while stripes are fetched: the kernel
 * tells a loss once, and a write that is told of it would keep it from the syncs that make stripes durable.
 */
import type { IoEngine } from "../disk/io-engine.ts";
import { RANGES_MAX, type RangeLists } from "../disk/range-lists.ts";
import type { RequestExecutor, RequestRunner } from "../disk/request-executor.ts";
import { Operation, Outcome, type RequestTable } from "../disk/request-table.ts";
import { type SectorCipher, SectorCopy } from "../disk/sector-copy.ts";
import { type SlotWaits, Wait } from "../disk/slot-waits.ts";
import { assert } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { copyMemory, wipeMemory } from "../ffi/memory.ts";
import { f64, i32, u8 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { RequestGate, Verdict } from "../stripes/request-gate.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import { ImageReader } from "./image-reader.ts";
import type { ImageDescription, StripeDescription } from "./stripe-description.ts";

/** What is deciphered from a fetch buffer in one go. */
const WINDOW_BYTES = 64 * 1024;

export interface LazyOptions {
  readonly executor: RequestExecutor;
  readonly requests: RequestTable;
  readonly stripes: StripeDescription;
  readonly diskSectors: number;
  readonly cipher: SectorCipher | undefined;
  readonly queue: number;
  /** Wakes this thread when the image has something for it. */
  readonly engine: IoEngine;
  readonly imageWatchId: number;
  readonly openImageEngine: (image: ImageDescription) => IoEngine;
  /** Is told what requests wait for, in case anybody looks. */
  readonly waits: SlotWaits;
  readonly wakeQueue: (queue: number) => void;
  readonly wakeStripeWorker: () => void;
}

export class LazyRequests implements RequestRunner {
  readonly finished: Int32Array;
  finishedCount = 0;

  readonly #options: LazyOptions;
  readonly #executor: RequestExecutor;
  readonly #requests: RequestTable;
  readonly #state: StripeState;
  readonly #gate: RequestGate;
  readonly #copy: SectorCopy;
  #window: Arena | undefined;
  #image: ImageReader | undefined;
  /** Nothing is left to fetch. */
  #isFetched = false;
  /** Requests pass the gate by. */
  #isOpen = false;

  constructor(options: LazyOptions) {
    const { requests, stripes } = options;
    const { image, stripeSectors } = stripes;
    this.#options = options;
    this.#executor = options.executor;
    this.#requests = requests;
    this.#state = new StripeState(stripes.state);
    this.#gate = new RequestGate({
      state: this.#state,
      ring: ringOf(stripes, options.queue),
      queue: options.queue,
      slotsMax: requests.slotsMax,
      rangesMax: RANGES_MAX,
      stripeSectors,
      diskSectors: options.diskSectors,
      directStripes: Math.floor((image?.sizeBytes ?? 0) / (stripeSectors * SECTOR_BYTES)),
      isWrittenTracked: stripes.isWrittenTracked,
      isCopyOnRead: stripes.isCopyOnRead,
      wakeStripeWorker: options.wakeStripeWorker,
      waits: options.waits,
      wakeQueue: options.wakeQueue,
    });
    this.#copy = new SectorCopy(requests, options.cipher);
    this.finished = new Int32Array(requests.slotsMax);
  }

  get lists(): RangeLists {
    return this.#executor.lists;
  }

  admit(slot: number): void {
    const requests = this.#requests;
    const operation = u8(requests.operation, slot);
    if (this.#isOpen || operation === Operation.flush) {
      this.#executor.admit(slot);
    } else if (operation === Operation.read || operation === Operation.write) {
      const sector = f64(requests.sector, slot);
      const sectorCount = f64(requests.bytes, slot) / SECTOR_BYTES;
      const verdict = this.#gate.admitTransfer(slot, operation, sector, sectorCount);
      if (verdict === Verdict.base) {
        this.#executor.admit(slot);
      } else {
        this.#obey(slot, verdict);
      }
    } else {
      this.#admitRanges(slot, operation);
    }
  }

  beforeTaking(): void {
    this.#executor.beforeTaking();
  }

  beforeAnswers(): void {
    this.#executor.beforeAnswers(this.finished, this.finishedCount);
  }

  afterAnswers(): void {
    this.#executor.afterAnswers();
  }

  complete(id: number, result: number): void {
    this.#executor.complete(id, result);
    if (this.#executor.finishedCount > 0) {
      this.#collect();
    }
  }

  /** What was let go may need the image and the executor once more; nothing is left to do when none was. */
  flushBatch(): void {
    do {
      if (this.#image !== undefined) {
        this.#serveImage(this.#image);
      }
      this.#executor.flushBatch();
      this.#collect();
      this.#gate.advance();
    } while (this.#obeyReleased());
    if (!this.#isFetched && this.#state.counter("unfetched") === 0) {
      this.#endFetching();
    }
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#executor.setWriteThrough(isWriteThrough, this.#state.counter("unfetched") > 0);
  }

  grow(sectors: number): void {
    this.#executor.grow(sectors);
    this.#gate.grow(sectors);
  }

  [Symbol.dispose](): void {
    this.#image?.[Symbol.dispose]();
    this.#image = undefined;
    this.#executor[Symbol.dispose]();
    if (this.#window !== undefined) {
      wipeMemory(this.#window.address, WINDOW_BYTES);
      this.#window[Symbol.dispose]();
      this.#window = undefined;
    }
  }

  // --- internal: verdicts ---

  #admitRanges(slot: number, operation: number): void {
    const { lists } = this.#executor;
    const outcome = lists.load(slot);
    if (outcome !== Outcome.ok) {
      this.#finish(slot, outcome);
      return;
    }
    const count = lists.count(slot);
    this.#gate.begin(slot, operation);
    for (let range = 0; range < count; range++) {
      this.#gate.addRange(slot, lists.sector(slot, range), lists.sectorCount(slot, range));
    }
    this.#obey(slot, this.#gate.admit(slot));
  }

  #obey(slot: number, verdict: number): void {
    switch (verdict) {
      case Verdict.base:
        this.#toBase(slot);
        return;
      case Verdict.buffer:
        this.#fromBuffer(slot);
        return;
      case Verdict.source:
        this.#fromImage(slot);
        return;
      case Verdict.done:
        this.#finish(slot, Outcome.ok);
        return;
      case Verdict.failed:
        this.#finish(slot, Outcome.ioError);
    }
  }

  #toBase(slot: number): void {
    const operation = u8(this.#requests.operation, slot);
    if (operation === Operation.read || operation === Operation.write) {
      this.#executor.admit(slot);
      return;
    }
    // On a plain disk a claimed stripe holds what the host left there; enciphered, that tells nobody anything.
    const mustLeaveZeros = this.#options.cipher === undefined && this.#gate.isClaiming(slot);
    this.#executor.startRanges(slot, mustLeaveZeros);
  }

  #obeyReleased(): boolean {
    const gate = this.#gate;
    const count = gate.releasedCount;
    gate.releasedCount = 0;
    for (let i = 0; i < count; i++) {
      const slot = i32(gate.released, i);
      this.#obey(slot, u8(gate.verdict, slot));
    }
    return count > 0;
  }

  #finish(slot: number, outcome: number): void {
    this.#requests.outcome[slot] = outcome;
    this.finished[this.finishedCount] = slot;
    this.finishedCount += 1;
  }

  // --- internal: ends of the base's work ---

  #collect(): void {
    const executor = this.#executor;
    const count = executor.finishedCount;
    for (let i = 0; i < count; i++) {
      const slot = i32(executor.finished, i);
      if (this.#gate.isClaiming(slot)) {
        this.#endClaim(slot);
      } else {
        this.finished[this.finishedCount] = slot;
        this.finishedCount += 1;
      }
    }
    executor.finishedCount = 0;
  }

  #endClaim(slot: number): void {
    const outcome = u8(this.#requests.outcome, slot);
    const isOk = outcome === Outcome.ok;
    const verdict = this.#gate.ended(slot, isOk);
    if (verdict === Verdict.failed && !isOk) {
      this.#finish(slot, outcome); // "unsupported" is to be told as such
    } else {
      this.#obey(slot, verdict);
    }
  }

  // --- internal: the fetch buffer and the image ---

  #fromBuffer(slot: number): void {
    const { stripeSectors } = this.#options.stripes;
    const sector = f64(this.#requests.sector, slot);
    const stripe = Math.floor(sector / stripeSectors);
    const buffer = this.#state.pinBuffer(stripe);
    if (buffer < 0) {
      this.#obey(slot, this.#gate.admitElsewhere(slot));
      return;
    }
    const skip = (sector - stripe * stripeSectors) * SECTOR_BYTES;
    const isOk = this.#copyOut(slot, sector, this.#state.bufferAddress(buffer) + skip);
    this.#state.unpinBuffer(buffer);
    this.#finish(slot, isOk ? Outcome.ok : Outcome.ioError);
  }

  /** The buffer is on its way to the disk: it is never deciphered in place. */
  #copyOut(slot: number, sector: number, address: number): boolean {
    const bytes = f64(this.#requests.bytes, slot);
    this.#copy.rewind(slot);
    if (this.#options.cipher === undefined) {
      return this.#copy.scatter(slot, sector, address, bytes);
    }
    this.#window ??= new Arena(WINDOW_BYTES);
    const window = this.#window.address;
    let isOk = true;
    for (let done = 0; done < bytes; done += WINDOW_BYTES) {
      const part = Math.min(WINDOW_BYTES, bytes - done);
      copyMemory(window, address + done, part);
      isOk = this.#copy.scatter(slot, sector + done / SECTOR_BYTES, window, part) && isOk;
    }
    return isOk;
  }

  #fromImage(slot: number): void {
    this.#image ??= this.#openImage();
    this.#options.waits.begin(slot, Wait.image);
    this.#image.admit(slot);
  }

  #openImage(): ImageReader {
    const { engine, imageWatchId, stripes, openImageEngine } = this.#options;
    const { image } = stripes;
    assert(image !== undefined, "only an image is read directly");
    const reader = new ImageReader(image, openImageEngine(image), this.#requests);
    if (reader.waitFd >= 0) {
      engine.watch(imageWatchId, reader.waitFd);
    }
    return reader;
  }

  /** A read that ended when nothing was unfetched any more may have met another file in the image's place. */
  #serveImage(image: ImageReader): void {
    const count = image.advance();
    const isOpen = count > 0 && this.#state.counter("unfetched") > 0;
    for (let i = 0; i < count; i++) {
      const slot = i32(image.finished, i);
      this.#options.waits.end(slot);
      if (isOpen && this.#requests.outcome[slot] === Outcome.ok) {
        this.#finish(slot, Outcome.ok);
      } else {
        this.#obey(slot, this.#gate.admitElsewhere(slot));
      }
    }
  }

  #endFetching(): void {
    const { engine, imageWatchId, stripes } = this.#options;
    const image = this.#image;
    if (image !== undefined) {
      if (!image.isIdle) {
        return;
      }
      if (image.waitFd >= 0) {
        engine.unwatch(imageWatchId);
      }
      image[Symbol.dispose]();
      this.#image = undefined;
    }
    this.#isFetched = true;
    this.#isOpen = !stripes.isWrittenTracked;
  }
}

function ringOf(stripes: StripeDescription, queue: number): SharedArrayBuffer {
  const ring = stripes.rings[queue];
  assert(ring !== undefined, "every queue has a ring to the stripe worker");
  return ring;
}
