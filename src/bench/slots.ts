/** What is in flight, by queue and slot: flat arrays, since the measuring loop must not allocate. */
import { f64 } from "../ffi/view.ts";
import type { DriverQueue } from "./driver-queue.ts";

export class SlotTable {
  readonly #depth: number;
  readonly #types: Float64Array;
  readonly #sectors: Float64Array;
  readonly #lengths: Float64Array;
  readonly #startsNs: Float64Array;

  constructor(queueCount: number, depth: number) {
    this.#depth = depth;
    this.#types = new Float64Array(queueCount * depth);
    this.#sectors = new Float64Array(queueCount * depth);
    this.#lengths = new Float64Array(queueCount * depth);
    this.#startsNs = new Float64Array(queueCount * depth);
  }

  /** The place of a queue's slot in all per-slot arrays. */
  place(queue: DriverQueue, slot: number): number {
    return queue.index * this.#depth + slot;
  }

  /** Describes the request in the queue and remembers it. */
  start(
    queue: DriverQueue,
    slot: number,
    type: number,
    sector: number,
    lengthBytes: number,
    nowNs: number,
  ): void {
    const place = this.place(queue, slot);
    this.#types[place] = type;
    this.#sectors[place] = sector;
    this.#lengths[place] = lengthBytes;
    this.#startsNs[place] = nowNs;
    queue.describe(slot, type, sector, lengthBytes);
  }

  type(place: number): number {
    return f64(this.#types, place);
  }

  sector(place: number): number {
    return f64(this.#sectors, place);
  }

  lengthBytes(place: number): number {
    return f64(this.#lengths, place);
  }

  startNs(place: number): number {
    return f64(this.#startsNs, place);
  }
}
