/**
 * Lazy stripes and crashes: guests read, write, zero and flush through several queues while stripes are fetched,
 * everything ends in a random order, some of it fails. After every event each image that a crash could leave is
 * opened and checked; some lives end in a crash and go on from what it left.
 *
 *     UBIBLK_STRIPES_SEED=17 bun test tests/simulation/stripes.test.ts      plays one seed again
 */
import { expect, test } from "bun:test";
import { type Metadata, STRIPE_FLAG } from "../../src/formats/metadata.ts";
import { decodeMetadata } from "../../src/formats/metadata-codec.ts";
import { CrashImages } from "../support/crash-images.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import {
  DISK_SECTORS,
  encodedMetadata,
  freshDisk,
  mediumOf,
  SOURCE_SIZES,
  STRIPE_SECTORS,
  sourceValue,
  USED,
} from "../support/stripe-disk.ts";
import { StripeGuest } from "../support/stripe-guest.ts";
import { StripeWorld, type WorldKind } from "../support/stripe-world.ts";

const SEEDS = rounds(80, 6000);
const LIVES = 3;
const STEPS = 220;
const CRASH_POINTS_MIN = 20_000;
const LIMIT_MS = rounds(110_000, 3_600_000);
const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;

test(
  "crashes at every event: nothing flushed is lost, no source data over a guest's, metadata loads",
  () => {
    const only = process.env.UBIBLK_STRIPES_SEED;
    const seeds =
      only === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(only)];
    const totals = { images: 0, ok: 0, failed: 0, fetched: 0 };
    for (const seed of seeds) {
      const life = new Lives(seed);
      try {
        life.play();
      } catch (error) {
        const command = `UBIBLK_STRIPES_SEED=${seed} npx --no -- bun test tests/simulation/stripes.test.ts`;
        const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
        throw new Error(`${what}\nseed ${seed} (${JSON.stringify(life.kind)}); replay: ${command}`);
      }
      totals.images += life.images;
      totals.ok += life.ok;
      totals.failed += life.failed;
      totals.fetched += life.fetched;
    }
    console.log(`crash points: ${JSON.stringify(totals)}`);
    expect(totals.images).toBeGreaterThan(only === undefined ? CRASH_POINTS_MIN : 0);
    expect(totals.ok).toBeGreaterThan(totals.failed);
  },
  LIMIT_MS,
);

// --- internal ---

/** One disk from its making on, through some crashes. */
class Lives {
  readonly kind: WorldKind;
  images = 0;
  ok = 0;
  failed = 0;
  fetched = 0;
  readonly #random: SeededRandom;
  readonly #guest: StripeGuest;
  #base: Int32Array;
  #metadata: Int32Array;
  #flags: Uint8Array;
  #value = 1;

  constructor(seed: number) {
    const random = new SeededRandom(seed);
    this.#random = random;
    const isImage = random.oneIn(2);
    this.kind = {
      queues: random.between(1, 3),
      sourceSectors: random.pick(SOURCE_SIZES),
      buffers: random.between(1, 4),
      isEnciphered: random.oneIn(3),
      isWrittenTracked: random.oneIn(2),
      isImage,
      isCopyOnRead: !isImage || random.oneIn(2),
      isBackground: random.oneIn(2),
      canZero: !random.oneIn(3),
      intents: random.pick([1, 2, 64]),
      faults: random.pick([0, 0, 40, 8]),
    };
    const fresh = freshDisk(this.kind);
    this.#base = fresh.base;
    this.#flags = fresh.flags;
    this.#metadata = encodedMetadata(fresh.flags);
    const initial = Array.from({ length: DISK_SECTORS }, (_, sector) =>
      sourceValue(sector, this.kind.sourceSectors),
    );
    this.#guest = new StripeGuest(initial);
  }

  play(): void {
    for (let life = 0; life < LIVES; life++) {
      this.#live(life === LIVES - 1);
    }
  }

  #live(isLast: boolean): void {
    const random = this.#random;
    let check = () => {};
    const world: StripeWorld = new StripeWorld({
      kind: this.kind,
      random,
      guest: this.#guest,
      base: this.#base,
      metadata: this.#metadata,
      flags: this.#flags.slice(),
      onEvent: () => check(),
      firstValue: this.#value,
    });
    const images = new CrashImages(world.base, world.metadata, random);
    check = () => {
      this.images += images.each(() => {
        this.#checkImage(world, images);
      });
    };
    for (let step = 0; step < STEPS; step++) {
      this.#step(world);
    }
    if (isLast) {
      world.isFaulty = false;
      world.drain();
    } else {
      this.#crash(world, images);
    }
    this.#value = world.nextValue;
    this.ok += world.answers.ok;
    this.failed += world.answers.failed;
    this.fetched += world.state.counter("fetched");
  }

  #step(world: StripeWorld): void {
    const choice = this.#random.below(10);
    world.nowMs += this.#random.below(3);
    if (choice < 3) {
      world.admit();
    } else if (choice === 3 && world.flushesUnderWay === 0) {
      world.guestFlush();
    } else if (choice < 6) {
      world.work();
    } else {
      world.turn();
    }
  }

  /** Goes on from one of the images. */
  #crash(world: StripeWorld, images: CrashImages): void {
    images.choose();
    const metadata = this.#checkImage(world, images);
    this.#base = images.base.slice();
    this.#metadata = images.metadata.slice();
    this.#flags = metadata.flags;
    for (const sector of usedSectors) {
      this.#guest.collapse(sector, this.#valueAt(world, images, metadata, sector));
    }
  }

  #checkImage(world: StripeWorld, images: CrashImages): Metadata {
    const metadata = decodeMetadata(mediumOf(images.metadata));
    for (const sector of usedSectors) {
      const stripe = Math.floor(sector / STRIPE_SECTORS);
      const value = this.#valueAt(world, images, metadata, sector);
      if (!this.#guest.mayHold(sector, value)) {
        throw new Error(
          `sector ${sector} of stripe ${stripe} (flags ${metadata.flags[stripe]}) holds ${value} after a crash`,
        );
      }
      const flags = metadata.flags[stripe] ?? 0;
      if (this.kind.isWrittenTracked && value > 0 && (flags & WRITTEN) === 0) {
        throw new Error(`stripe ${stripe} holds the guest's data and is not WRITTEN`);
      }
      if ((flags & HAS_SOURCE) !== ((this.#flags[stripe] ?? 0) & HAS_SOURCE)) {
        throw new Error(`stripe ${stripe} changed its HAS_SOURCE`);
      }
    }
    return metadata;
  }

  /** What a guest would read after the crash. */
  #valueAt(world: StripeWorld, images: CrashImages, metadata: Metadata, sector: number): number {
    const flags = metadata.flags[Math.floor(sector / STRIPE_SECTORS)] ?? 0;
    return (flags & (HAS_SOURCE | FETCHED)) === HAS_SOURCE
      ? sourceValue(sector, this.kind.sourceSectors)
      : world.clear(sector, images.base[sector] ?? 0);
  }
}

const usedSectors = USED.flatMap((stripe) =>
  Array.from({ length: STRIPE_SECTORS }, (_, i) => stripe * STRIPE_SECTORS + i),
).filter((sector) => sector < DISK_SECTORS);
