/**
 * A queue of a disk with lazy stripes and its stripe service, in a simulation: real memory and files, ends in any
 * order. A thread acts only when it has something of its own or was woken, so a wake-up that is forgotten shows as
 * a request that hangs.
 */
import { closeSync } from "node:fs";
import { LazyRequests } from "../../src/device/lazy-requests.ts";
import { FakeEngine } from "../../src/disk/fake-engine.ts";
import { Operation, Outcome } from "../../src/disk/request-table.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { writeFileAt } from "../../src/ffi/file.ts";
import { createSharedMemory, viewOf } from "../../src/ffi/memory.ts";
import { STRIPE_FLAG } from "../../src/formats/metadata.ts";
import { FakeSource, FlakySource } from "../../src/sources/fake-source.ts";
import { IntentRing } from "../../src/stripes/intent-ring.ts";
import { StripeService } from "../../src/stripes/stripe-service.ts";
import { StripeState } from "../../src/stripes/stripe-state.ts";
import type { DiskModel } from "./disk-model.ts";
import { ExecutorWorld, type Finished, SECTOR, type WorldRequest } from "./executor-world.ts";
import type { SeededRandom } from "./random.ts";

export const STRIPE_SECTORS = 64;
const STRIPE_BYTES = STRIPE_SECTORS * SECTOR;
/** What the host left on the disk; no sector of the model is like it. */
const STALE = 0x5a;
const BUFFERS = 3;
const EIO = -5;

export interface LazyQueueOptions {
  readonly random: SeededRandom;
  readonly model: DiskModel;
  readonly isEnciphered: boolean;
  readonly blockBytes: number;
  readonly sectors: number;
  readonly imageSectors: number;
  readonly hasImage: boolean;
  readonly isCopyOnRead: boolean;
  readonly isWrittenTracked: boolean;
  readonly isBackground: boolean;
  readonly isFaulty: boolean;
}

export class LazyQueue implements Disposable {
  readonly world: ExecutorWorld;
  isFaulty: boolean;
  readonly #options: LazyQueueOptions;
  readonly #random: SeededRandom;
  readonly #state: StripeState;
  readonly #source: FakeSource;
  readonly #service: StripeService;
  readonly #image: FakeEngine;
  readonly #imageFd: number;
  readonly #buffers = new Arena(BUFFERS * STRIPE_BYTES);
  /** I/O of the stripe worker under way. */
  readonly #work: (() => void)[] = [];
  #isQueueAwake = true;
  #isServiceAwake = true;
  #nowMs = 0;

  constructor(options: LazyQueueOptions) {
    const { random, model, sectors, imageSectors } = options;
    this.#options = options;
    this.#random = random;
    this.isFaulty = options.isFaulty;
    const stripes = Math.ceil(sectors / STRIPE_SECTORS);
    const sourceStripes = Math.ceil(imageSectors / STRIPE_SECTORS);
    const flags = new Uint8Array(stripes).fill(STRIPE_FLAG.HAS_SOURCE, 0, sourceStripes);
    model.content.fill(0, imageSectors * SECTOR, sourceStripes * STRIPE_BYTES);
    this.#state = StripeState.create(flags, { queues: 1, buffers: BUFFERS });
    this.#imageFd = createSharedMemory(imageSectors * SECTOR);
    writeContent(this.#imageFd, model.content.subarray(0, imageSectors * SECTOR));
    const imageContent = model.content.slice(0, imageSectors * SECTOR);
    this.#source = new FakeSource({
      sectors: imageSectors,
      stripeBytes: STRIPE_BYTES,
      requestsMax: BUFFERS,
      byteAt: (offset) => imageContent[offset] ?? 0,
    });
    this.#image = new FakeEngine({
      fd: this.#imageFd,
      requestsMax: 16,
      blockBytes: SECTOR,
      memoryAlignBytes: SECTOR,
      fault: () => (this.#isFault() ? EIO : undefined),
    });
    const ring = new SharedArrayBuffer(IntentRing.sharedBytes(random.pick([1, 4, 64])));
    this.world = this.#world(ring);
    const base = model.content.slice();
    base.fill(STALE, 0, Math.min(sectors * SECTOR, sourceStripes * STRIPE_BYTES));
    this.world.fill(base);
    this.#service = this.#openService(ring, flags);
  }

  /** As when the guest kicks. */
  admit(request: WorldRequest): void {
    this.#isQueueAwake = true;
    this.world.admit(request);
  }

  /** Something ends, or a thread that is awake has its turn. False when nothing can happen. */
  step(): boolean {
    const image = this.#image.underWay.length;
    const source = this.#source.underWay.length;
    const base = this.world.engine.underWay.length;
    const isServiceAwake = this.#isServiceAwake || this.#service.dueMs <= this.#nowMs;
    const choices: (() => void)[] = [];
    if (this.#isQueueAwake) {
      choices.push(() => this.#turnQueue());
    }
    if (isServiceAwake) {
      choices.push(() => this.#turnService());
    }
    if (this.#work.length > 0) {
      choices.push(() => this.#finishWork());
    }
    if (source > 0) {
      choices.push(() => this.#finishSource(this.#random.below(source)));
    }
    if (image > 0) {
      choices.push(() => this.#finishImage(this.#random.below(image)));
    }
    if (base > 0) {
      choices.push(() => this.#check(this.world.finishWork(this.#random.below(base))));
    }
    choices[this.#random.below(choices.length)]?.();
    return choices.length > 0;
  }

  /** Everything ends. Throws when a request never would. */
  drain(): void {
    for (let steps = 0; steps < 100_000; steps++) {
      if (this.step()) {
        continue;
      }
      const { dueMs } = this.#service;
      if (dueMs === Number.POSITIVE_INFINITY) {
        break;
      }
      this.#nowMs = Math.max(this.#nowMs, dueMs);
    }
    if (this.world.inFlight.size > 0) {
      const hanging = [...this.world.inFlight.values()].map(
        ({ operation, sector }) => `operation ${operation} at sector ${sector}`,
      );
      throw new Error(`requests hang: ${hanging.join(", ")}`);
    }
  }

  [Symbol.dispose](): void {
    this.world[Symbol.dispose]();
    this.#buffers[Symbol.dispose]();
    closeSync(this.#imageFd);
  }

  // --- internal ---

  #world(ring: SharedArrayBuffer): ExecutorWorld {
    const options = this.#options;
    return new ExecutorWorld({
      slots: this.#random.between(1, 16),
      segmentsPerSlot: this.#random.between(1, 6),
      sectors: options.sectors,
      blockBytes: options.blockBytes,
      isEnciphered: options.isEnciphered,
      unsupportedModes: this.#random.oneIn(3) ? 16 : 0,
      runner: ({ executor, engine, requests, cipher, waits }) =>
        new LazyRequests({
          executor,
          requests,
          engine,
          imageWatchId: 0,
          waits,
          stripes: {
            state: this.#state.shared,
            stripeSectors: STRIPE_SECTORS,
            isWrittenTracked: options.isWrittenTracked,
            isChangeTracked: false,
            isCopyOnRead: options.isCopyOnRead || !options.hasImage,
            rings: [ring],
            stripeWakeFd: -1,
            image: options.hasImage
              ? {
                  fd: this.#imageFd,
                  sizeBytes: options.imageSectors * SECTOR,
                  blockBytes: SECTOR,
                  memoryAlignBytes: SECTOR,
                }
              : undefined,
          },
          diskSectors: options.sectors,
          cipher: options.isEnciphered ? cipher : undefined,
          queue: 0,
          openImageEngine: () => this.#image,
          wakeQueue: () => {
            this.#isQueueAwake = true;
          },
          wakeStripeWorker: () => {
            this.#isServiceAwake = true;
          },
        }),
    });
  }

  #openService(ring: SharedArrayBuffer, flags: Uint8Array): StripeService {
    const { isEnciphered, isBackground, sectors, isWrittenTracked } = this.#options;
    const stripes = flags.length;
    const service: StripeService = new StripeService({
      state: this.#state,
      rings: [ring],
      flags,
      source: new FlakySource(this.#source, BUFFERS, () => (this.#isFault() ? EIO : 0)),
      stripeSectors: STRIPE_SECTORS,
      diskSectors: sectors,
      bufferAddresses: Array.from(
        { length: BUFFERS },
        (_, i) => this.#buffers.address + i * STRIPE_BYTES,
      ),
      reservedBuffers: 1,
      sectorPlaces: [new Uint8Array(512)],
      isWrittenTracked,
      order: isBackground ? () => Array.from({ length: stripes }, (_, i) => i).values() : undefined,
      retry: { retriesMax: 2, pauseMs: 10 },
      host: {
        isZero: (address, bytes) =>
          !isEnciphered && new Uint8Array(viewOf(address, bytes)).every((byte) => byte === 0),
        seal: (sector, count, address) =>
          !isEnciphered || this.world.cipher.encrypt(sector, count, address, address) === 0,
        writeBase: (buffer, offset, address, bytes) => {
          this.#begin(() => {
            const result = this.#isFault()
              ? EIO
              : writeFileAt(this.world.fd, offset, address, bytes, false);
            service.fetcher.baseWritten(buffer, result);
          });
        },
        zeroBase: (buffer, offset, bytes) => {
          this.#begin(() => {
            writeContent(this.world.fd, new Uint8Array(bytes), offset);
            service.fetcher.baseWritten(buffer, 0);
          });
        },
        flushBase: () =>
          this.#begin(() => {
            const isOk = !this.#isFault();
            if (!isOk) {
              this.#state.noteBaseFailure();
            }
            service.commit.baseFlushed(isOk);
          }),
        writeSector: (place) =>
          this.#begin(() => service.commit.sectorWritten(place, !this.#isFault())),
        flushMetadata: () => this.#begin(() => service.commit.metadataFlushed(!this.#isFault())),
        wakeQueue: () => {
          this.#isQueueAwake = true;
        },
        report: () => {},
      },
    });
    return service;
  }

  #begin(work: () => void): void {
    this.#work.push(work);
  }

  #finishWork(): void {
    const [work] = this.#work.splice(this.#random.below(this.#work.length), 1);
    this.#isServiceAwake = true;
    work?.();
  }

  #finishSource(index: number): void {
    this.#isServiceAwake = true;
    this.#source.finish(index);
  }

  #finishImage(index: number): void {
    this.#isQueueAwake = true;
    this.#image.finish(index);
  }

  #turnQueue(): void {
    this.#isQueueAwake = false;
    this.#check(this.world.turn());
  }

  #turnService(): void {
    this.#isServiceAwake = false;
    this.#nowMs += this.#random.below(3);
    this.#service.turn(this.#nowMs);
  }

  #check(finished: readonly Finished[]): void {
    this.#options.model.check(finished);
    for (const { request, outcome, data } of finished) {
      if (request.operation === Operation.read && outcome === Outcome.ok) {
        this.#expectNothingStale(data);
      }
    }
  }

  /** On an enciphered disk the host's bytes would be deciphered to something else: that tells nobody anything. */
  #expectNothingStale(data: Uint8Array): void {
    for (let at = 0; at < data.length && !this.#options.isEnciphered; at += SECTOR) {
      if (data.subarray(at, at + SECTOR).every((byte) => byte === STALE)) {
        throw new Error("a guest read what the host left on the disk");
      }
    }
  }

  #isFault(): boolean {
    return this.isFaulty && this.#random.oneIn(8);
  }
}

function writeContent(fd: number, content: Uint8Array, offset = 0): void {
  using arena = new Arena(content.length);
  new Uint8Array(viewOf(arena.address, content.length)).set(content);
  const result = writeFileAt(fd, offset, arena.address, content.length, false);
  if (result !== 0) {
    throw new Error(`cannot write: ${result}`);
  }
}
