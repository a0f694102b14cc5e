/**
 * A source whose stripes are fetched by worker threads: requests go over a board, workers write into the memory of
 * the one who asks. Stripes are fetched whole.
 *
 *   owner: request -> board -> worker: get, check, decipher, decompress into the buffer -> board -> completion
 */
import { assert } from "../errors.ts";
import { u8 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { CompletionList } from "./completion-list.ts";
import { RequestBoard, type SharedBoard } from "./request-board.ts";
import type { StripePart, StripeSource } from "./stripe-source.ts";

/** A worker source as other threads get it: cloneable. */
export interface WorkerSourceDescription {
  readonly board: SharedBoard;
  /** A byte a stripe: 1 when the source holds it. */
  readonly held: SharedArrayBuffer;
  /** Exact: the last stripe may be short. */
  readonly sectors: number;
  readonly stripeSectors: number;
}

export class WorkerSource implements StripeSource {
  readonly sectors: number;
  readonly unitBytes: number;
  readonly waitFd: number;
  readonly #board: RequestBoard;
  readonly #held: Uint8Array;
  readonly #ends: CompletionList;
  #hasPosted = false;

  /** In the thread that is going to use the source; a board has one. */
  constructor(description: WorkerSourceDescription) {
    const { board, held, sectors, stripeSectors } = description;
    this.sectors = sectors;
    this.unitBytes = stripeSectors * SECTOR_BYTES;
    this.waitFd = board.doneFd;
    this.#board = new RequestBoard(board);
    this.#held = new Uint8Array(held);
    this.#ends = new CompletionList(board.requestsMax);
  }

  has(stripe: number): boolean {
    return stripe < this.#held.length && u8(this.#held, stripe) === 1;
  }

  request(id: number, part: StripePart, address: number, isDemanded = false): void {
    assert(part.offsetBytes === 0, "a worker fetches whole stripes");
    assert(part.lengthBytes === this.unitBytes, "a buffer has room for a whole stripe");
    this.#board.post(id, part.stripe, address, isDemanded);
    this.#hasPosted = true;
  }

  raise(id: number): void {
    this.#board.raise(id);
  }

  submit(): void {
    if (this.#hasPosted) {
      this.#hasPosted = false;
      this.#board.wakeWorkers();
    }
    this.#board.takeDone(this.#ends);
  }

  completions(): number {
    if (this.#board.hasDone) {
      this.#board.takeDone(this.#ends);
    }
    return this.#ends.count;
  }

  completedId(index: number): number {
    return this.#ends.id(index);
  }

  completedResult(index: number): number {
    return this.#ends.result(index);
  }

  release(count: number): void {
    this.#ends.release(count);
  }

  nextCompletion(): Promise<void> {
    return this.#board.nextDone();
  }

  /** The workers end; they may write to buffers of requests under way until they have. */
  [Symbol.dispose](): void {
    this.#board.stop();
  }
}
