/**
 * A thread that brings stripes of an archive: gets the object, and has its hash checked, deciphered and decompressed
 * right into the memory of the one who asked.
 *
 * It has lanes: each takes a request from the board, serves it and takes the next. So several objects are on their
 * way while one is decoded, and an idle lane sleeps. Nothing here trusts the store: an object that is not what the
 * manifest says fails its stripe, and no other.
 */
import type { Compression } from "../archive/archive-manifest.ts";
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { type SharedStripeMap, StripeMap } from "../archive/stripe-map.ts";
import { StripeDecoder, stripeObjectBytesMax, stripeObjectKey } from "../archive/stripe-object.ts";
import { UbiError } from "../errors.ts";
import { viewOf } from "../ffi/memory.ts";
import { nameThread } from "../ffi/process.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { LogLimiter } from "../log.ts";
import { RequestBoard, type SharedBoard } from "./request-board.ts";
import { SOURCE_WORKER_STOPPED } from "./source-workers.ts";

export interface ArchiveWorkerData {
  readonly board: SharedBoard;
  /** Requests that this worker serves at once. */
  readonly lanes: number;
  readonly store: StoreDescription;
  readonly map: SharedStripeMap;
  readonly stripeSectors: number;
  readonly compression: Compression["kind"];
  readonly xtsKey: Uint8Array | undefined;
}

/** Runs until the board is stopped. */
export async function runArchiveWorker(data: ArchiveWorkerData): Promise<void> {
  nameThread("archive");
  {
    await using store = await openStore(data.store);
    using worker = new ArchiveWorker(data, store);
    await worker.run();
  }
  data.xtsKey?.fill(0);
  postMessage(SOURCE_WORKER_STOPPED);
}

// --- internal ---

/** Objects come as garbage-collected memory that the collector hardly sees; so much is left to it. */
const GARBAGE_BYTES_MAX = 16 * 2 ** 20;
/** Views of buffers are kept: making one counts as heap each time. Readers have a fixed set of buffers. */
const VIEWS_MAX = 256;

const EIO = -5;
const EBADMSG = -74;
const ECANCELED = -125;

class ArchiveWorker implements Disposable {
  readonly #data: ArchiveWorkerData;
  readonly #board: RequestBoard;
  readonly #store: ObjectStore;
  readonly #map: StripeMap;
  readonly #decoder: StripeDecoder;
  readonly #stripeBytes: number;
  readonly #objectBytesMax: number;
  readonly #views = new Map<number, Uint8Array>();
  readonly #limiter = new LogLimiter();
  readonly #abort = new AbortController();
  #garbageBytes = 0;

  constructor(data: ArchiveWorkerData, store: ObjectStore) {
    const { compression, xtsKey, stripeSectors } = data;
    this.#data = data;
    this.#board = new RequestBoard(data.board);
    this.#store = store;
    this.#map = StripeMap.attach(data.map);
    this.#decoder = new StripeDecoder({ compression, xtsKey, stripeSectors });
    this.#stripeBytes = stripeSectors * SECTOR_BYTES;
    this.#objectBytesMax = stripeObjectBytesMax(compression, stripeSectors);
  }

  async run(): Promise<void> {
    const lanes = Array.from({ length: this.#data.lanes }, () => this.#runLane());
    await Promise.all([...lanes, this.#watchStop()]);
  }

  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
    this.#views.clear();
  }

  // --- internal ---

  async #runLane(): Promise<void> {
    const board = this.#board;
    while (!board.isStopped) {
      const { generation } = board;
      const id = board.take();
      if (id >= 0) {
        board.finish(id, await this.#serve(board.stripe(id), board.address(id)));
      } else if (!board.isStopped) {
        await board.work(generation);
      }
    }
  }

  /** What is under way ends at once when the board is stopped. */
  async #watchStop(): Promise<void> {
    const board = this.#board;
    while (!board.isStopped) {
      const { generation } = board;
      if (!board.isStopped) {
        await board.work(generation);
      }
    }
    this.#abort.abort(new UbiError("E_STRIPE_SOURCE", "the source is being closed"));
  }

  /** 0, or the negative errno with which the request ends. */
  async #serve(stripe: number, address: number): Promise<number> {
    try {
      await this.#fill(stripe, this.#viewAt(address));
      return 0;
    } catch (error) {
      if (this.#board.isStopped) {
        return ECANCELED;
      }
      if (!(error instanceof UbiError)) {
        throw error;
      }
      return this.#failed(stripe, error);
    }
  }

  async #fill(stripe: number, target: Uint8Array): Promise<void> {
    const kind = stripe < this.#map.stripeEnd ? this.#map.kind(stripe) : "absent";
    if (kind === "absent") {
      throw new UbiError("E_ARCHIVE_DATA", `${this.#store.name} does not hold stripe ${stripe}`);
    }
    if (kind === "zero") {
      target.fill(0);
      return;
    }
    const key = stripeObjectKey(this.#map.hashHex(stripe));
    const signal = this.#abort.signal;
    const object = await this.#store.get(key, { lengthMax: this.#objectBytesMax, signal });
    this.#board.setTroubled(false);
    if (object === undefined) {
      throw new UbiError(
        "E_ARCHIVE_DATA",
        `object ${key} of ${this.#store.name} is missing, which holds stripe ${stripe}`,
      );
    }
    this.#decoder.decode(stripe, this.#map.hash(stripe), object, target);
    this.#noteGarbage(object.length);
  }

  #failed(stripe: number, error: UbiError): number {
    const isDamaged = error.code === "E_ARCHIVE_DATA" || error.code === "E_STORE_OBJECT";
    if (!isDamaged) {
      this.#board.noteRetry(); // first: who sees the trouble sees why
      this.#board.setTroubled(true);
    }
    this.#limiter.warn("cannot bring a stripe from the archive", {
      archive: this.#store.name,
      stripe,
      code: error.code,
      why: error.message,
    });
    return isDamaged ? EBADMSG : EIO;
  }

  #noteGarbage(bytes: number): void {
    this.#garbageBytes += bytes;
    if (this.#garbageBytes >= GARBAGE_BYTES_MAX) {
      this.#garbageBytes = 0;
      Bun.gc(true);
    }
  }

  #viewAt(address: number): Uint8Array {
    const known = this.#views.get(address);
    if (known !== undefined) {
      return known;
    }
    if (this.#views.size === VIEWS_MAX) {
      this.#views.clear();
    }
    const view = new Uint8Array(viewOf(address, this.#stripeBytes));
    this.#views.set(address, view);
    return view;
  }
}
