/**
 * One of the threads that compare stripes of a disk with an archive (role "stripe-scrubber"). For each stripe:
 *
 *   read, decipher -> make the object again -> its SHA-256 is the one in the map? equal
 *                                             it is not? get the object, decode, compare byte by byte
 *
 * So an archive that this program wrote is not read at all, unless something differs; of another writer's with zstd, whose
 * compressor may give other bytes, every object is. An object that cannot be read is told as that: nothing is known of
 * its stripe.
 */
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { type SharedStripeMap, StripeMap } from "../archive/stripe-map.ts";
import {
  StripeDecoder,
  StripeEncoder,
  stripeObjectBytesMax,
  stripeObjectKey,
} from "../archive/stripe-object.ts";
import { type ErrorCode, UbiError } from "../errors.ts";
import { mapAnonymous, viewOf } from "../ffi/memory.ts";
import type { Compression } from "../formats/archive-metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { type ArchivedData, DiskStripeReader } from "./disk-stripe-reader.ts";
import { nextTurn, type PartTools, runGroupPart } from "./group-worker.ts";
import { COUNTER, type SharedStripeBoard, StripeBoard } from "./stripe-board.ts";

export interface ScrubberData {
  readonly worker: number;
  readonly board: SharedStripeBoard;
  readonly map: SharedStripeMap;
  readonly store: StoreDescription;
  readonly disk: ArchivedData;
  readonly stripeSectors: number;
  /** What the disk and the archived one both have: what lies behind is not compared. */
  readonly commonBytes: number;
  readonly compression: Compression;
  /** A copy for this worker, which wipes it. */
  readonly xtsKey: Uint8Array | undefined;
  /** Of this worker's share; Infinity for no limit. */
  readonly bytesPerSecond: number;
}

/** A stripe that is not what it should be, or of which that cannot be told. */
export interface ScrubFinding {
  readonly stripe: number;
  readonly code: ErrorCode;
  readonly message: string;
  /** The disk's stripe differs from the archive's for certain. */
  readonly isDifferent: boolean;
}

export async function runStripeScrubber(data: ScrubberData): Promise<void> {
  await runGroupPart<ScrubFinding>({
    run: async (tools) => {
      await using store = await openStore(data.store);
      using scrubber = new StripeScrubber(data, store, tools);
      await scrubber.run();
    },
  });
}

// --- internal ---

/** What is wrong with one object; a store that fails at all ends the run. */
const UNREADABLE: readonly ErrorCode[] = ["E_ARCHIVE_DATA", "E_STORE_OBJECT"];

class StripeScrubber implements Disposable {
  readonly #data: ScrubberData;
  readonly #store: ObjectStore;
  readonly #tools: PartTools<ScrubFinding>;
  readonly #board: StripeBoard;
  readonly #map: StripeMap;
  readonly #encoder: StripeEncoder;
  readonly #decoder: StripeDecoder;
  readonly #disk: DiskStripeReader;
  readonly #stripeBytes: number;
  readonly #address: number;
  readonly #onDisk: Uint8Array;
  readonly #archived: Uint8Array;
  readonly #startMs = performance.now();
  #readBytes = 0;

  constructor(data: ScrubberData, store: ObjectStore, tools: PartTools<ScrubFinding>) {
    const { stripeSectors, compression, xtsKey, disk } = data;
    this.#data = data;
    this.#store = store;
    this.#tools = tools;
    this.#board = StripeBoard.attach(data.board);
    this.#map = StripeMap.attach(data.map);
    this.#encoder = new StripeEncoder({ compression, xtsKey, stripeSectors });
    this.#decoder = new StripeDecoder({ compression: compression.kind, xtsKey, stripeSectors });
    xtsKey?.fill(0);
    this.#stripeBytes = stripeSectors * SECTOR_BYTES;
    this.#disk = new DiskStripeReader(disk, this.#stripeBytes);
    this.#address = mapAnonymous(2 * this.#stripeBytes);
    this.#onDisk = new Uint8Array(viewOf(this.#address, this.#stripeBytes));
    const other = this.#address + this.#stripeBytes;
    this.#archived = new Uint8Array(viewOf(other, this.#stripeBytes));
  }

  /** @throws UbiError E_DISK_IO, E_CIPHER, E_STORE */
  async run(): Promise<void> {
    for (let stripe = this.#board.claim(); stripe >= 0; stripe = this.#board.claim()) {
      this.#disk.read(stripe, this.#address);
      this.#cut(stripe, this.#onDisk);
      const finding = await this.#findingOf(stripe);
      if (finding !== undefined) {
        this.#count(finding.isDifferent ? COUNTER.BAD : COUNTER.UNKNOWN, 1);
        this.#tools.note(finding);
      }
      this.#count(COUNTER.STRIPES, 1);
      await this.#pause();
    }
  }

  /** The process ends after a run: its buffers go with it. */
  [Symbol.dispose](): void {
    this.#encoder[Symbol.dispose]();
    this.#decoder[Symbol.dispose]();
    this.#disk[Symbol.dispose]();
  }

  // --- internal ---

  /**
   * The disk may have grown since it was archived; what it has there is nobody's of the archive. Or it ends earlier in
   * its last stripe.
   */
  #cut(stripe: number, view: Uint8Array): void {
    const common = this.#data.commonBytes - stripe * this.#stripeBytes;
    if (common < view.length) {
      view.fill(0, Math.max(0, common));
    }
  }

  async #findingOf(stripe: number): Promise<ScrubFinding | undefined> {
    const kind = stripe < this.#map.stripeEnd ? this.#map.kind(stripe) : "absent";
    const encoded = this.#encoder.encode(stripe, this.#onDisk);
    switch (kind) {
      case "absent":
        return unknown(
          stripe,
          "E_SCRUB",
          `stripe ${stripe} is not in the archive: is it another one?`,
        );
      case "zero":
        return encoded === "zero" ? undefined : different(stripe);
      case "stored": {
        const hash = this.#map.hash(stripe);
        if (encoded !== "zero" && Buffer.compare(encoded.hash, hash) === 0) {
          return undefined;
        }
        return await this.#compareObject(stripe, hash);
      }
    }
  }

  async #compareObject(stripe: number, hash: Uint8Array): Promise<ScrubFinding | undefined> {
    const { stripeSectors, compression } = this.#data;
    const key = stripeObjectKey(hash.toHex());
    const lengthMax = stripeObjectBytesMax(compression.kind, stripeSectors);
    try {
      const object = await this.#store.get(key, { lengthMax, signal: this.#tools.signal });
      if (object === undefined) {
        const what = `object ${key} of stripe ${stripe} is missing in ${this.#store.name}`;
        return unknown(stripe, "E_ARCHIVE_DATA", what);
      }
      this.#count(COUNTER.OBJECTS, 1);
      this.#decoder.decode(stripe, hash, object, this.#archived);
    } catch (error) {
      if (error instanceof UbiError && UNREADABLE.includes(error.code)) {
        return unknown(stripe, error.code, error.message);
      }
      throw error;
    }
    this.#cut(stripe, this.#archived);
    return Buffer.compare(this.#onDisk, this.#archived) === 0 ? undefined : different(stripe);
  }

  /** Lets messages in, and keeps the limit. */
  async #pause(): Promise<void> {
    this.#readBytes += this.#stripeBytes;
    const dueMs = this.#startMs + (this.#readBytes / this.#data.bytesPerSecond) * 1000;
    for (;;) {
      const leftMs = dueMs - performance.now();
      if (leftMs <= 0 || this.#board.isStopped) {
        break;
      }
      await Bun.sleep(Math.min(leftMs, PAUSE_MS));
    }
    await nextTurn();
  }

  #count(column: number, amount: number): void {
    this.#board.count(this.#data.worker, column, amount);
  }
}

/** A run that is to end is not kept waiting by its limit. */
const PAUSE_MS = 100;

function different(stripe: number): ScrubFinding {
  const message = `stripe ${stripe} of the disk is not what the archive has, and no guest wrote to it`;
  return { stripe, code: "E_SCRUB", message, isDifferent: true };
}

function unknown(stripe: number, code: ErrorCode, message: string): ScrubFinding {
  return { stripe, code, message, isDifferent: false };
}
