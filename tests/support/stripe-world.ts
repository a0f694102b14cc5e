/**
 * A disk with lazy stripes in a test's hands: gates of several queues and the stripe service, as in the product,
 * over recording disks and a fake source. Nothing happens on its own; a queue and the service act only when they
 * have something of their own or were woken, so that a wake-up that is forgotten shows as a request that hangs.
 */
import { Operation } from "../../src/disk/request-table.ts";
import { FakeSource, FlakySource } from "../../src/sources/fake-source.ts";
import { IntentRing } from "../../src/stripes/intent-ring.ts";
import { RequestGate, Verdict } from "../../src/stripes/request-gate.ts";
import { StripeService } from "../../src/stripes/stripe-service.ts";
import { StripeState } from "../../src/stripes/stripe-state.ts";
import type { SeededRandom } from "./random.ts";
import { RecordingDisk } from "./recording-disk.ts";
import { SectorMemory } from "./sector-memory.ts";
import {
  byteOfSector,
  DISK_SECTORS,
  maskOf,
  STALE,
  STRIPE_SECTORS,
  sourceValue,
  USED,
} from "./stripe-disk.ts";
import { type GuestRead, type GuestWrite, rangeOf, type StripeGuest } from "./stripe-guest.ts";

const SLOTS = 6;
const BUFFER_STEP = 1000;
const EOPNOTSUPP = -95;
const EIO = -5;

export interface WorldKind {
  readonly queues: number;
  readonly sourceSectors: number;
  readonly buffers: number;
  readonly isEnciphered: boolean;
  readonly isWrittenTracked: boolean;
  /** Queues may read the source themselves. */
  readonly isImage: boolean;
  readonly isCopyOnRead: boolean;
  readonly isBackground: boolean;
  readonly canZero: boolean;
  readonly intents: number;
  /** One piece of work in so many fails; 0 for none. */
  readonly faults: number;
}

interface GuestRequest {
  readonly queue: number;
  readonly slot: number;
  readonly operation: number;
  readonly sector: number;
  readonly sectorCount: number;
  readonly values: readonly number[];
  readonly write: GuestWrite;
  readonly read: GuestRead | undefined;
  isClaiming: boolean;
  /** The fetch buffer that it is answered from, or one of the two below. */
  buffer: number;
}

const NO_BUFFER = -1;
/** The verdict came, the queue has not looked for the buffer yet. */
const ANY_BUFFER = -2;

export class StripeWorld {
  readonly base: RecordingDisk;
  readonly metadata: RecordingDisk;
  readonly state: StripeState;
  readonly service: StripeService;
  readonly gates: readonly RequestGate[];
  readonly source: FakeSource;
  readonly requests: GuestRequest[] = [];
  /** Reads that a queue has begun at the source. */
  readonly #directReads: GuestRequest[] = [];
  flushesUnderWay = 0;
  readonly answers = { ok: 0, failed: 0 };
  /** The faults of this moment. */
  isFaulty = true;
  nowMs = 0;
  readonly #kind: WorldKind;
  readonly #random: SeededRandom;
  readonly #guest: StripeGuest;
  readonly #onEvent: () => void;
  readonly #memory = new SectorMemory();
  readonly #isQueueAwake: boolean[];
  #isServiceAwake = true;
  #nextValue: number;

  constructor(options: {
    readonly kind: WorldKind;
    readonly random: SeededRandom;
    readonly guest: StripeGuest;
    readonly base: Int32Array;
    readonly metadata: Int32Array;
    readonly flags: Uint8Array;
    /** After each step that changes what a crash may leave, or what was promised. */
    readonly onEvent: () => void;
    readonly firstValue: number;
  }) {
    const { kind, flags } = options;
    this.#kind = kind;
    this.#random = options.random;
    this.#guest = options.guest;
    this.#onEvent = options.onEvent;
    this.#nextValue = options.firstValue;
    this.base = new RecordingDisk(options.base, 1, options.onEvent);
    this.metadata = new RecordingDisk(options.metadata, 128, options.onEvent);
    this.state = StripeState.create(flags, { queues: kind.queues, buffers: kind.buffers });
    this.source = new FakeSource({
      sectors: kind.sourceSectors,
      stripeBytes: STRIPE_SECTORS * 512,
      requestsMax: kind.buffers,
      byteAt: (offset) => byteOfSector(this.#sourceValue(Math.floor(offset / 512)), offset % 512),
      store: (address, bytes) => this.#memory.store(address, bytes),
    });
    const rings = Array.from(
      { length: kind.queues },
      () => new SharedArrayBuffer(IntentRing.sharedBytes(kind.intents)),
    );
    this.#isQueueAwake = rings.map(() => true);
    this.gates = rings.map((ring, queue) => this.#gate(ring, queue));
    this.service = this.#service(rings, flags);
  }

  get nextValue(): number {
    return this.#nextValue;
  }

  // What may happen:

  /** A guest sends a request, unless its queue is full or it would race with another one. */
  admit(): void {
    const queue = this.#random.below(this.#kind.queues);
    const taken = this.requests.filter((request) => request.queue === queue);
    const slot = Array.from({ length: SLOTS }, (_, i) => i).find(
      (i) => !taken.some((request) => request.slot === i),
    );
    const [sector, sectorCount] = rangeOf(this.#random);
    const operation = this.#random.pick([
      Operation.read,
      Operation.write,
      Operation.write,
      Operation.writeZeroes,
    ]);
    const end = sector + sectorCount;
    const isRead = operation === Operation.read;
    // What two writes at the same time leave is the guest's own doing; a read sees one or the other.
    const isRacing =
      !isRead &&
      this.requests.some(
        (other) =>
          other.operation !== Operation.read &&
          other.sector < end &&
          sector < other.sector + other.sectorCount,
      );
    const gate = this.gates[queue];
    if (slot === undefined || isRacing || gate === undefined) {
      return;
    }
    const values = Array.from({ length: sectorCount }, () =>
      operation === Operation.write ? this.#nextValue++ : 0,
    );
    const write = isRead ? [] : this.#guest.begin(sector, values);
    const read = isRead ? this.#guest.beginRead(sector, sectorCount) : undefined;
    const common = { queue, slot, operation, sector, sectorCount, values, write, read };
    const request: GuestRequest = { ...common, isClaiming: false, buffer: NO_BUFFER };
    this.requests.push(request);
    this.#isQueueAwake[queue] = true;
    this.#obey(request, gate.admitTransfer(slot, operation, sector, sectorCount));
  }

  guestFlush(): void {
    const point = this.#guest.flushPoint();
    this.flushesUnderWay += 1;
    this.base.flush((isOk) => {
      this.flushesUnderWay -= 1;
      this.#noteFlush(isOk);
      if (isOk) {
        this.#guest.flushed(point);
      }
    });
  }

  /** One disk or the source does something. False when nothing is under way. */
  work(): boolean {
    const counts = [
      this.base.underWay.length,
      this.metadata.underWay.length,
      this.source.underWay.length,
      this.#directReads.length,
    ];
    const total = counts.reduce((sum, count) => sum + count, 0);
    if (total === 0) {
      return false;
    }
    let index = this.#random.below(total);
    const isOk = !this.#isFault();
    const isLost = () => this.#random.oneIn(2);
    for (const [place, disk] of [this.base, this.metadata].entries()) {
      const count = counts[place] ?? 0;
      if (index >= 0 && index < count) {
        disk.finish(index, isOk, isLost);
        return true;
      }
      index -= count;
    }
    if (index < this.source.underWay.length) {
      this.source.finish(index, isOk ? 0 : EIO);
      this.#isServiceAwake = true;
    } else {
      this.#endDirectRead(index - this.source.underWay.length, isOk);
    }
    return true;
  }

  /** A thread that was woken, or whose time has come, has its turn. False when all of them sleep. */
  turn(): boolean {
    const awake = this.gates.flatMap((_, queue) =>
      this.#isQueueAwake[queue] === true ? [queue] : [],
    );
    const isServiceAwake = this.#isServiceAwake || this.service.dueMs <= this.nowMs;
    const choices = isServiceAwake ? [...awake, -1] : awake;
    const choice = choices[this.#random.below(choices.length)];
    if (choice === undefined) {
      return false;
    }
    if (choice < 0) {
      this.#isServiceAwake = false;
      this.service.turn(this.nowMs);
    } else {
      this.#isQueueAwake[choice] = false;
      this.#turnQueue(choice);
    }
    return true;
  }

  /** Everything ends. Throws when a request never would. */
  drain(): void {
    for (let steps = 0; steps < 100_000; steps++) {
      if (this.turn() || this.work()) {
        continue;
      }
      if (this.requests.length === 0 && this.service.isIdle) {
        return;
      }
      const { dueMs } = this.service;
      if (dueMs === Number.POSITIVE_INFINITY) {
        break;
      }
      this.nowMs = Math.max(this.nowMs, dueMs);
    }
    throw new Error(`requests hang: ${JSON.stringify(this.requests)}`);
  }

  /** The value of a sector on an image of the base. */
  clear(sector: number, word: number): number {
    return this.#kind.isEnciphered ? word ^ maskOf(sector) : word;
  }

  // --- internal: queues ---

  #gate(ring: SharedArrayBuffer, queue: number): RequestGate {
    return new RequestGate({
      state: new StripeState(this.state.shared),
      ring,
      queue,
      slotsMax: SLOTS,
      rangesMax: 2,
      stripeSectors: STRIPE_SECTORS,
      diskSectors: DISK_SECTORS,
      isWrittenTracked: this.#kind.isWrittenTracked,
      directStripes: this.#kind.isImage ? Math.floor(this.#kind.sourceSectors / STRIPE_SECTORS) : 0,
      isCopyOnRead: this.#kind.isCopyOnRead,
      wakeStripeWorker: () => {
        this.#isServiceAwake = true;
      },
      wakeQueue: (other) => this.#wakeQueue(other),
    });
  }

  #wakeQueue(queue: number): void {
    this.#isQueueAwake[queue] = true;
  }

  #turnQueue(queue: number): void {
    const gate = this.gates[queue];
    if (gate === undefined) {
      throw new Error("a queue has a gate");
    }
    for (const request of this.requests.filter((other) => other.queue === queue)) {
      if (request.buffer !== NO_BUFFER) {
        this.#fromBuffer(request);
      }
    }
    gate.advance();
    const released = Array.from(gate.released.subarray(0, gate.releasedCount));
    gate.releasedCount = 0;
    for (const slot of released) {
      const request = this.requests.find((other) => other.queue === queue && other.slot === slot);
      if (request === undefined) {
        throw new Error("only a request that waits is released");
      }
      this.#obey(request, gate.verdict[slot] ?? Verdict.failed);
    }
  }

  #obey(request: GuestRequest, verdict: number): void {
    switch (verdict) {
      case Verdict.base:
        this.#toBase(request);
        return;
      case Verdict.buffer:
        request.buffer = ANY_BUFFER;
        this.#isQueueAwake[request.queue] = true;
        return;
      case Verdict.source:
        this.#directReads.push(request);
        return;
      case Verdict.done:
        this.#answer(request, true);
        this.#guest.certain(request.sector, request.write);
        this.#onEvent();
        return;
      case Verdict.failed:
        this.#answer(request, false);
        return;
    }
  }

  #toBase(request: GuestRequest): void {
    const { queue, slot, sector, sectorCount } = request;
    if (request.operation === Operation.read) {
      this.base.read(sector, sectorCount, (isOk) => {
        this.#isQueueAwake[queue] = true;
        this.#answer(request, isOk, (at) => this.clear(at, this.base.current[at] ?? 0));
      });
      return;
    }
    request.isClaiming = this.gates[queue]?.isClaiming(slot) === true;
    const words = Int32Array.from(request.values, (value, i) => this.clear(sector + i, value));
    this.base.write(sector, words, request.isClaiming, (isOk) => {
      this.#isQueueAwake[queue] = true;
      if (request.isClaiming) {
        this.#obey(request, this.gates[queue]?.ended(slot, isOk) ?? Verdict.failed);
      } else {
        this.#answer(request, isOk);
      }
    });
  }

  /** Late, perhaps: the stripe may have been fetched, claimed and written meanwhile. */
  #endDirectRead(index: number, isOk: boolean): void {
    const [request] = this.#directReads.splice(index, 1);
    if (request === undefined) {
      throw new Error("only a read under way is ended");
    }
    this.#isQueueAwake[request.queue] = true;
    if (isOk && this.state.counter("unfetched") > 0) {
      this.#answer(request, true, (at) => this.#sourceValue(at));
    } else {
      this.#admitElsewhere(request);
    }
  }

  #admitElsewhere(request: GuestRequest): void {
    const verdict = this.gates[request.queue]?.admitElsewhere(request.slot);
    this.#obey(request, verdict ?? Verdict.failed);
  }

  /** A queue may be slow: time passes before it finds the buffer, and while it copies. */
  #fromBuffer(request: GuestRequest): void {
    const stripe = Math.floor(request.sector / STRIPE_SECTORS);
    if (request.buffer === ANY_BUFFER) {
      request.buffer = this.state.pinBuffer(stripe);
      if (request.buffer < 0) {
        request.buffer = NO_BUFFER;
        this.#admitElsewhere(request);
      }
      this.#isQueueAwake[request.queue] = true;
      return;
    }
    const address = this.state.bufferAddress(request.buffer) - stripe * STRIPE_SECTORS;
    this.#answer(request, true, (at) => this.clear(at, this.#memory.get(address + at)));
    this.state.unpinBuffer(request.buffer);
  }

  #answer(request: GuestRequest, isOk: boolean, valueAt?: (sector: number) => number): void {
    this.requests.splice(this.requests.indexOf(request), 1);
    this.answers[isOk ? "ok" : "failed"] += 1;
    if (request.read !== undefined) {
      const values = request.values.map((_, i) => valueAt?.(request.sector + i) ?? STALE);
      this.#guest.endRead(request.read, isOk ? values : undefined);
    }
    if (isOk) {
      this.#guest.answered(request.write);
    }
  }

  // --- internal: the stripe worker ---

  #service(rings: readonly SharedArrayBuffer[], flags: Uint8Array): StripeService {
    const { buffers, isWrittenTracked, isBackground, faults } = this.#kind;
    const places = Array.from({ length: 2 }, () => new Uint8Array(512));
    const wake = () => {
      this.#isServiceAwake = true;
    };
    const service: StripeService = new StripeService({
      state: this.state,
      rings,
      flags,
      source: new FlakySource(this.source, buffers, () =>
        faults > 0 && this.#isFault() ? EIO : 0,
      ),
      stripeSectors: STRIPE_SECTORS,
      diskSectors: DISK_SECTORS,
      bufferAddresses: Array.from({ length: buffers }, (_, i) => (i + 1) * BUFFER_STEP),
      reservedBuffers: buffers - 1,
      sectorPlaces: places,
      isWrittenTracked,
      order: isBackground ? () => USED[Symbol.iterator]() : undefined,
      retry: { retriesMax: 2, pauseMs: 10 },
      host: {
        isZero: (address, bytes) =>
          !this.#kind.isEnciphered &&
          this.#memory.words(address, bytes / 512).every((word) => word === 0),
        seal: (sector, count, address) => {
          this.#memory.map(address, count, (word, i) => this.clear(sector + i, word));
          return true;
        },
        writeBase: (buffer, offset, address, bytes) => {
          this.base.write(offset / 512, this.#memory.words(address, bytes / 512), true, (isOk) => {
            wake();
            service.fetcher.baseWritten(buffer, isOk ? 0 : EIO);
          });
        },
        zeroBase: (buffer, offset, bytes) => this.#zeroBase(service, buffer, offset, bytes),
        flushBase: () =>
          this.base.flush((isOk) => {
            wake();
            this.#noteFlush(isOk);
            service.commit.baseFlushed(isOk);
          }),
        writeSector: (place, sector) => {
          const words = new Int32Array((places[place] ?? new Uint8Array(512)).slice().buffer);
          this.metadata.write(sector, words, false, (isOk) => {
            wake();
            service.commit.sectorWritten(place, isOk);
          });
        },
        flushMetadata: () =>
          this.metadata.flush((isOk) => {
            wake();
            service.commit.metadataFlushed(isOk);
          }),
        wakeQueue: (queue) => this.#wakeQueue(queue),
        report: () => {},
      },
    });
    return service;
  }

  /** Zeros are nothing else to a disk, or it cannot make them without being written to. */
  #zeroBase(service: StripeService, buffer: number, offset: number, bytes: number): void {
    const words = new Int32Array(bytes / 512);
    if (!this.#kind.canZero) {
      // A flush of no meaning: the refusal comes back some time later.
      this.base.read(offset / 512, words.length, () => {
        this.#isServiceAwake = true;
        service.fetcher.baseWritten(buffer, EOPNOTSUPP);
      });
      return;
    }
    this.base.write(offset / 512, words, true, (isOk) => {
      this.#isServiceAwake = true;
      service.fetcher.baseWritten(buffer, isOk ? 0 : EIO);
    });
  }

  #noteFlush(isOk: boolean): void {
    if (!isOk) {
      this.state.noteBaseFailure();
    }
  }

  #sourceValue(sector: number): number {
    return sourceValue(sector, this.#kind.sourceSectors);
  }

  #isFault(): boolean {
    const { faults } = this.#kind;
    return this.isFaulty && faults > 0 && this.#random.oneIn(faults);
  }
}
