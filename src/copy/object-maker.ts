/**
 * One of the threads that make an archive's objects (role "object-maker"). For each stripe:
 *
 *   read (page cache, the kernel reads ahead) -> decipher -> zero? -> compress -> encipher -> SHA-256
 *     -> another stripe's object? there already? -> put
 *
 * All but the put is synchronous. Puts to a folder are as well, more or less; of those to a bucket `putsMax` are in
 * flight, each with its own copy of the object, so memory is bounded: see `archiveMemory`.
 *
 * Cost a stripe besides the work itself: two atomic operations, no message, one promise.
 */
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { type SharedStripeMap, StripeMap } from "../archive/stripe-map.ts";
import { type EncodedStripe, StripeEncoder, stripeObjectKey } from "../archive/stripe-object.ts";
import { mapAnonymous, viewOf } from "../ffi/memory.ts";
import type { Compression } from "../formats/archive-metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { type ArchivedData, DiskStripeReader } from "./disk-stripe-reader.ts";
import { nextTurn, type PartTools, runGroupPart } from "./group-worker.ts";
import { ObjectNames, type SharedObjectNames } from "./object-names.ts";
import { COUNTER, type SharedStripeBoard, StripeBoard } from "./stripe-board.ts";

export interface ObjectMakerData {
  /** Of this worker's counters. */
  readonly worker: number;
  readonly board: SharedStripeBoard;
  readonly map: SharedStripeMap;
  readonly names: SharedObjectNames;
  readonly store: StoreDescription;
  readonly disk: ArchivedData;
  readonly stripeSectors: number;
  readonly compression: Compression;
  /** A copy for this worker, which wipes it. */
  readonly xtsKey: Uint8Array | undefined;
  /** Buffers of a stripe each that the main thread fills, one behind the other. */
  readonly buffers: { readonly address: number; readonly count: number };
  readonly putsMax: number;
}

export async function runObjectMaker(data: ObjectMakerData): Promise<void> {
  await runGroupPart<never>({
    run: async (tools) => {
      await using store = await openStore(data.store);
      using maker = new ObjectMaker(data, store, tools);
      await maker.run();
    },
  });
}

// --- internal ---

class ObjectMaker implements Disposable {
  readonly #data: ObjectMakerData;
  readonly #store: ObjectStore;
  readonly #tools: PartTools<never>;
  readonly #board: StripeBoard;
  readonly #map: StripeMap;
  readonly #names: ObjectNames;
  readonly #encoder: StripeEncoder;
  readonly #disk: DiskStripeReader;
  readonly #stripeBytes: number;
  /** This worker's own buffer, and those of the main thread. */
  readonly #address: number;
  readonly #view: Uint8Array;
  readonly #offered: readonly Uint8Array[];
  readonly #puts = new Set<Promise<void>>();
  #failure: unknown;

  constructor(data: ObjectMakerData, store: ObjectStore, tools: PartTools<never>) {
    const { disk, stripeSectors, compression, xtsKey, buffers } = data;
    this.#data = data;
    this.#store = store;
    this.#tools = tools;
    this.#board = StripeBoard.attach(data.board);
    this.#map = StripeMap.attach(data.map);
    this.#names = ObjectNames.attach(data.names);
    this.#encoder = new StripeEncoder({ compression, xtsKey, stripeSectors });
    xtsKey?.fill(0);
    this.#stripeBytes = stripeSectors * SECTOR_BYTES;
    this.#disk = new DiskStripeReader(disk, this.#stripeBytes);
    this.#address = mapAnonymous(this.#stripeBytes);
    this.#view = new Uint8Array(viewOf(this.#address, this.#stripeBytes));
    this.#offered = Array.from(
      { length: buffers.count },
      (_, i) => new Uint8Array(viewOf(buffers.address + i * this.#stripeBytes, this.#stripeBytes)),
    );
  }

  /** @throws UbiError E_DISK_IO, E_CIPHER, E_STORE */
  async run(): Promise<void> {
    while (!this.#board.isStopped && this.#failure === undefined) {
      const ticket = this.#board.offerTicket;
      const areOffersOver = this.#board.areOffersOver;
      const isBusy = (await this.#doOffered()) || (await this.#doClaimed());
      if (isBusy) {
        continue;
      }
      if (areOffersOver) {
        break;
      }
      await this.#board.waitForOffer(ticket);
    }
    await Promise.all(this.#puts);
    if (this.#failure !== undefined) {
      throw this.#failure;
    }
  }

  /** The process ends after a run, or the thread does: its buffer goes with it. */
  [Symbol.dispose](): void {
    this.#encoder[Symbol.dispose]();
    this.#disk[Symbol.dispose]();
  }

  // --- internal ---

  async #doOffered(): Promise<boolean> {
    const buffer = this.#board.takeOffered();
    const view = this.#offered[buffer];
    if (view === undefined) {
      return false;
    }
    try {
      await this.#make(this.#board.stripeIn(buffer), view);
    } finally {
      this.#board.giveBack(buffer);
    }
    return true;
  }

  async #doClaimed(): Promise<boolean> {
    const stripe = this.#board.claim();
    if (stripe < 0) {
      return false;
    }
    this.#disk.read(stripe, this.#address);
    await this.#make(stripe, this.#view);
    return true;
  }

  /** Returns when the memory of `stripeData` is free again. */
  async #make(stripe: number, stripeData: Uint8Array): Promise<void> {
    const encoded = this.#encoder.encode(stripe, stripeData);
    if (encoded === "zero") {
      this.#map.setZero(stripe);
      this.#settle(COUNTER.ZERO_STRIPES);
      await nextTurn();
      return;
    }
    const { hash, bytes, isOverlong } = encoded;
    this.#map.setStored(stripe, hash);
    const key = stripeObjectKey(hash.toHex());
    const hashHex = hash.toHex();
    const hasHash = (other: number) => this.#map.hashHex(other) === hashHex;
    if (!this.#names.claim(stripe, hash, hasHash)) {
      this.#settle(COUNTER.DUPLICATES);
      await nextTurn();
    } else if (this.#data.putsMax === 1) {
      await this.#putOrReuse(key, encoded);
      await nextTurn();
    } else {
      const copy = { hash: hash.slice(), bytes: bytes.slice(), isOverlong };
      await this.#begin(this.#putOrReuse(key, copy));
    }
  }

  /** Adds a put to those in flight, and waits until there is room for another one. */
  async #begin(put: Promise<void>): Promise<void> {
    const watched = put.catch((error: unknown) => {
      this.#failure ??= error;
      this.#tools.cancel(); // the others are not waited for, with all their attempts
    });
    this.#puts.add(watched);
    void watched.then(() => this.#puts.delete(watched));
    await nextTurn();
    while (this.#puts.size >= this.#data.putsMax && this.#failure === undefined) {
      await Promise.race(this.#puts);
    }
  }

  /**
   * An object that was there before is compared, and written anew when it is not what it should be. Its length is not
   * enough, neither after a run that was cut off (a loss of power leaves names without content, and here nobody knows
   * whether there was one), nor after one that was not: then what `verify` finds damaged would stay so. A folder is
   * read for that, which costs less than compressing and writing do; a bucket is asked for its checksum.
   */
  async #putOrReuse(key: string, { hash, bytes, isOverlong }: EncodedStripe): Promise<void> {
    const { signal } = this.#tools;
    if (this.#names.isExisting(hash) && (await this.#store.holds(key, bytes, { signal }))) {
      this.#settle(COUNTER.REUSED);
      return;
    }
    await this.#store.put(key, bytes, { signal });
    this.#count(COUNTER.OBJECT_BYTES, bytes.length);
    this.#count(COUNTER.OVERLONG, isOverlong ? 1 : 0);
    this.#settle(COUNTER.OBJECTS);
  }

  #settle(column: number): void {
    this.#count(column, 1);
    this.#count(COUNTER.DATA_BYTES, this.#stripeBytes);
    this.#count(COUNTER.STRIPES, 1);
  }

  #count(column: number, amount: number): void {
    this.#board.count(this.#data.worker, column, amount);
  }
}
