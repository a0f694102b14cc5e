/**
 * A queue of a disk with lazy stripes in a test's hands: an executor's world behind the lazy layer, an image of
 * its own engine, and the stripe worker played by the test.
 */
import { expect } from "bun:test";
import { closeSync } from "node:fs";
import { LazyRequests } from "../../src/device/lazy-requests.ts";
import { FakeEngine } from "../../src/disk/fake-engine.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { writeFileAt } from "../../src/ffi/file.ts";
import { createSharedMemory, viewOf } from "../../src/ffi/memory.ts";
import { STRIPE_FLAG } from "../../src/formats/metadata.ts";
import { IntentRing } from "../../src/stripes/intent-ring.ts";
import { Phase, StripeState } from "../../src/stripes/stripe-state.ts";
import { ExecutorWorld, type Finished, SECTOR, type WorldOptions } from "./executor-world.ts";

/** 32 KiB. */
export const STRIPE_SECTORS = 64;
export const STRIPES = 8;
/** The image ends in the middle of stripe 5. */
const IMAGE_SECTORS = 5 * STRIPE_SECTORS + 30;

export interface LazyWorldOptions extends Partial<WorldOptions> {
  readonly isEnciphered: boolean;
  readonly hasImage?: boolean;
  readonly isCopyOnRead?: boolean;
  readonly isWrittenTracked?: boolean;
}

class ImageEngine extends FakeEngine {
  isDisposed = false;
  override [Symbol.dispose](): void {
    this.isDisposed = true;
  }
}

export class LazyWorld implements Disposable {
  readonly world: ExecutorWorld;
  readonly image: ImageEngine;
  /** The stripe worker's own. */
  readonly state: StripeState;
  /** What the image holds, with zeros up to the end of its last stripe. */
  readonly source: Uint8Array;
  /** Bytes of the stripe worker's buffer. */
  readonly buffer: Uint8Array;
  imageFault: number | undefined;
  wakes = 0;
  readonly #ring: IntentRing;
  readonly #arena = new Arena(STRIPE_SECTORS * SECTOR);
  readonly #imageFd: number;

  constructor(options: LazyWorldOptions) {
    const { hasImage = false, isCopyOnRead = true, isWrittenTracked = false } = options;
    const flags = new Uint8Array(STRIPES).fill(STRIPE_FLAG.HAS_SOURCE, 0, 6);
    this.state = StripeState.create(flags, { queues: 1, buffers: 1 });
    this.buffer = new Uint8Array(viewOf(this.#arena.address, STRIPE_SECTORS * SECTOR));
    this.state.placeBuffer(0, this.#arena.address);
    const ring = new SharedArrayBuffer(IntentRing.sharedBytes(16));
    this.#ring = new IntentRing(ring);
    this.source = new Uint8Array(6 * STRIPE_SECTORS * SECTOR);
    this.source.set(Uint8Array.from({ length: IMAGE_SECTORS * SECTOR }, (_, i) => (i * 31) >> 3));
    this.#imageFd = createSharedMemory(IMAGE_SECTORS * SECTOR);
    this.image = this.#openImage();
    this.world = new ExecutorWorld({
      slots: 8,
      segmentsPerSlot: 4,
      sectors: STRIPES * STRIPE_SECTORS,
      blockBytes: 512,
      ...options,
      runner: ({ executor, engine, requests, cipher, waits }) =>
        new LazyRequests({
          executor,
          requests,
          engine,
          imageWatchId: 0,
          waits,
          stripes: {
            state: this.state.shared,
            stripeSectors: STRIPE_SECTORS,
            isWrittenTracked,
            isChangeTracked: false,
            isCopyOnRead,
            rings: [ring],
            stripeWakeFd: -1,
            image: hasImage
              ? {
                  fd: this.#imageFd,
                  sizeBytes: IMAGE_SECTORS * SECTOR,
                  blockBytes: 512,
                  memoryAlignBytes: 512,
                }
              : undefined,
          },
          diskSectors: STRIPES * STRIPE_SECTORS,
          cipher: options.isEnciphered ? cipher : undefined,
          queue: 0,
          openImageEngine: () => this.image,
          wakeQueue: () => {},
          wakeStripeWorker: () => {
            this.wakes += 1;
          },
        }),
    });
    this.world.fill(new Uint8Array(STRIPES * STRIPE_SECTORS * SECTOR).fill(0x5a)); // the host's
  }

  /** Intents since the last call. */
  intents(): number[][] {
    const intents: number[][] = [];
    while (this.#ring.waiting() > 0) {
      intents.push([this.#ring.intent, this.#ring.stripe, this.#ring.count]);
      this.#ring.shift(this.#ring.count);
    }
    return intents;
  }

  /** Ends a read of the image and handles it. */
  finishImage(index: number): readonly Finished[] {
    this.image.finish(index);
    return this.world.turn();
  }

  /** As the stripe worker does when a stripe was read: the buffer holds what the base is to hold. */
  load(stripe: number): readonly Finished[] {
    expect(this.state.take(stripe, Phase.fetching)).toBe(true);
    this.buffer.set(this.stripeOfSource(stripe));
    if (this.world.options.isEnciphered) {
      const { address } = this.#arena;
      this.world.cipher.encrypt(stripe * STRIPE_SECTORS, STRIPE_SECTORS, address, address);
    }
    this.state.lendBuffer(0, stripe);
    return this.phase(stripe, Phase.buffered);
  }

  /** The buffer is gone, and the stripe is on the base. */
  store(stripe: number): readonly Finished[] {
    const offset = stripe * this.buffer.length;
    expect(writeFileAt(this.world.fd, offset, this.#arena.address, this.buffer.length, false)).toBe(
      0,
    );
    this.state.recallBuffer(0);
    return this.phase(stripe, Phase.onBase);
  }

  /** Changes a stripe as its taker, and lets the queue have its turn. */
  phase(stripe: number, phase: number): readonly Finished[] {
    this.state.setPhase(stripe, phase);
    this.state.announce(() => {});
    return this.world.turn();
  }

  /** All are durable: nothing is left to fetch. */
  endFetching(): void {
    this.state.count("unfetched", -this.state.counter("unfetched"));
  }

  stripeOfSource(stripe: number): Uint8Array {
    const bytes = STRIPE_SECTORS * SECTOR;
    return this.source.subarray(stripe * bytes, (stripe + 1) * bytes);
  }

  [Symbol.dispose](): void {
    this.world[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
    closeSync(this.#imageFd);
  }

  // --- internal ---

  #openImage(): ImageEngine {
    const bytes = IMAGE_SECTORS * SECTOR;
    using arena = new Arena(bytes);
    new Uint8Array(viewOf(arena.address, bytes)).set(this.source.subarray(0, bytes));
    expect(writeFileAt(this.#imageFd, 0, arena.address, bytes, false)).toBe(0);
    return new ImageEngine({
      fd: this.#imageFd,
      requestsMax: 8,
      blockBytes: 512,
      memoryAlignBytes: 512,
      fault: () => this.imageFault,
    });
  }
}
