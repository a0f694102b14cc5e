/**
 * One of the threads that read an archive's objects (role "object-reader"), to write an image or to check them:
 *
 *   get -> SHA-256 -> decipher -> decompress -> write at the stripe's place
 *
 * Everything but the get is synchronous, on one buffer; `getsMax` objects are in memory at a time. A check goes on
 * after what it finds, and tells it; for an image the first failure ends everything. An object that cannot be read is
 * a finding, too; but a service that fails at one after the other tells nothing of them, and ends the check.
 */
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { type SharedStripeMap, StripeMap } from "../archive/stripe-map.ts";
import { StripeDecoder, stripeObjectBytesMax, stripeObjectKey } from "../archive/stripe-object.ts";
import { type ErrorCode, errnoText, UbiError } from "../errors.ts";
import { writeFileAt } from "../ffi/file.ts";
import { mapAnonymous, viewOf } from "../ffi/memory.ts";
import type { Compression } from "../formats/archive-metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { nextTurn, type PartTools, runGroupPart } from "./group-worker.ts";
import { ObjectNames, type SharedObjectNames } from "./object-names.ts";
import { COUNTER, type SharedStripeBoard, StripeBoard } from "./stripe-board.ts";

export interface ObjectReaderData {
  readonly worker: number;
  readonly board: SharedStripeBoard;
  readonly map: SharedStripeMap;
  readonly store: StoreDescription;
  readonly stripeSectors: number;
  readonly compression: Compression["kind"];
  /** A copy for this worker, which wipes it. */
  readonly xtsKey: Uint8Array | undefined;
  readonly getsMax: number;
  readonly use: ObjectUse;
}

export type ObjectUse =
  /** The image that the main thread keeps open. Behind `sizeBytes` there may be zeros only. */
  | {
      readonly kind: "write";
      readonly path: string;
      readonly fd: number;
      readonly sizeBytes: number;
    }
  /** Objects of several stripes are read once, where they are the same for all of them. */
  | { readonly kind: "check"; readonly names: SharedObjectNames | undefined };

/** What a check found. */
export interface BadStripe {
  readonly stripe: number;
  readonly code: ErrorCode;
  readonly message: string;
  /** Whether it is the service that failed: perhaps at this object only, perhaps at all. */
  readonly isDoubtful: boolean;
}

/** Objects one after the other that a service fails at, in one thread, before it is taken to be out of order. */
const FAILURES_MAX = 16;

/** For what is no object, or too long for one. */
const REMOVE_IT = "remove it, or bring the object back from a copy";

export async function runObjectReader(data: ObjectReaderData): Promise<void> {
  await runGroupPart<BadStripe>({
    run: async (tools) => {
      await using store = await openStore(data.store);
      using reader = new ObjectReader(data, { ...tools, store });
      const turns = Array.from({ length: data.getsMax }, () => reader.run());
      const failed = (await Promise.allSettled(turns)).find((turn) => turn.status === "rejected");
      if (failed !== undefined) {
        throw failed.reason;
      }
    },
  });
}

// --- internal ---

interface ReaderTools extends PartTools<BadStripe> {
  readonly store: ObjectStore;
}

class ObjectReader implements Disposable {
  readonly #data: ObjectReaderData;
  readonly #tools: ReaderTools;
  readonly #board: StripeBoard;
  readonly #map: StripeMap;
  readonly #names: ObjectNames | undefined;
  readonly #decoder: StripeDecoder;
  readonly #stripeBytes: number;
  readonly #objectBytesMax: number;
  readonly #address: number;
  readonly #view: Uint8Array;
  /** The first one: the others follow from it. */
  #failure: unknown;
  /** Of the service, since it last gave an object. */
  #failuresInRow = 0;

  constructor(data: ObjectReaderData, tools: ReaderTools) {
    const { stripeSectors, compression, xtsKey, use } = data;
    this.#data = data;
    this.#tools = tools;
    this.#board = StripeBoard.attach(data.board);
    this.#map = StripeMap.attach(data.map);
    const names = use.kind === "check" ? use.names : undefined;
    this.#names = names === undefined ? undefined : ObjectNames.attach(names);
    this.#decoder = new StripeDecoder({ compression, xtsKey, stripeSectors });
    xtsKey?.fill(0);
    this.#stripeBytes = stripeSectors * SECTOR_BYTES;
    this.#objectBytesMax = stripeObjectBytesMax(compression, stripeSectors);
    this.#address = mapAnonymous(this.#stripeBytes);
    this.#view = new Uint8Array(viewOf(this.#address, this.#stripeBytes));
  }

  /** One of several that take turns. @throws UbiError E_STORE, E_ARCHIVE_DATA, E_EXPORT */
  async run(): Promise<void> {
    for (let stripe = this.#board.claim(); stripe >= 0; stripe = this.#board.claim()) {
      try {
        await this.#read(stripe);
      } catch (error) {
        if (this.#data.use.kind !== "check" || !this.#isFinding(error)) {
          this.#failure ??= error;
          this.#board.stop();
          this.#tools.cancel(); // the others are not waited for, with all their attempts
          throw this.#failure;
        }
        const { code } = error;
        const message =
          code === "E_STORE_OBJECT" ? `${error.message}; ${REMOVE_IT}` : error.message;
        this.#count(COUNTER.BAD, 1);
        this.#tools.note({ stripe, code, message, isDoubtful: this.#failuresInRow > 0 });
      }
      this.#count(COUNTER.STRIPES, 1);
    }
  }

  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
  }

  // --- internal ---

  async #read(stripe: number): Promise<void> {
    const hash = this.#map.hash(stripe);
    const hashHex = hash.toHex();
    const hasHash = (other: number) => this.#map.hashHex(other) === hashHex;
    if (this.#names?.claim(stripe, hash, hasHash) === false) {
      this.#count(COUNTER.DUPLICATES, 1);
      await nextTurn();
      return;
    }
    const { store, signal } = this.#tools;
    const key = stripeObjectKey(hashHex);
    const object = await store.get(key, { lengthMax: this.#objectBytesMax, signal });
    this.#failuresInRow = 0;
    if (object === undefined) {
      const message = `object ${key} of stripe ${stripe} is missing in ${store.name}`;
      throw new UbiError("E_ARCHIVE_DATA", `${message}; bring it back from a copy`);
    }
    this.#decoder.decode(stripe, hash, object, this.#view);
    this.#count(COUNTER.OBJECTS, 1);
    this.#count(COUNTER.OBJECT_BYTES, object.length);
    this.#write(stripe);
    this.#count(COUNTER.DATA_BYTES, this.#stripeBytes);
  }

  #write(stripe: number): void {
    const { use } = this.#data;
    if (use.kind !== "write") {
      return;
    }
    const offset = stripe * this.#stripeBytes;
    const lengthBytes = Math.min(this.#stripeBytes, use.sizeBytes - offset);
    if (this.#view.subarray(lengthBytes).some((byte) => byte !== 0)) {
      throw new UbiError(
        "E_EXPORT",
        `an image of ${use.sizeBytes} bytes would leave out the end of stripe ${stripe}, which has data there; ` +
          "give the size of the archive's disk, or no --size",
      );
    }
    const result = writeFileAt(use.fd, offset, this.#address, lengthBytes, false);
    if (result < 0) {
      const message = `cannot write stripe ${stripe} to ${use.path}: ${errnoText(result)}`;
      throw new UbiError("E_EXPORT", message);
    }
  }

  #count(column: number, amount: number): void {
    this.#board.count(this.#data.worker, column, amount);
  }

  /** What is wrong with one object. Of a folder that is every failure: the kernel answers for each file. */
  #isFinding(error: unknown): error is UbiError {
    if (!(error instanceof UbiError) || !FINDINGS.includes(error.code)) {
      return false;
    }
    const isOfService = error.code === "E_STORE" && this.#data.store.kind === "s3";
    this.#failuresInRow = isOfService ? this.#failuresInRow + 1 : 0;
    return this.#failuresInRow < FAILURES_MAX;
  }
}

const FINDINGS: readonly ErrorCode[] = ["E_ARCHIVE_DATA", "E_STORE_OBJECT", "E_STORE"];
