/**
 * Writes that were under way when a sync failed, of whatever queue. Their data may have reached the disk before that sync
 * and gone with it, and the flush that told of it may have been answered before them:
 *
 *   this queue   write, data on the disk ------------------------------ answered: ok -- flush: ok?
 *   another one        sync that takes it along -- fails, a flush tells
 *
 * So what had a slot then, and is answered well later, makes the failure untold again before its answer is shown. A write
 * that is answered when a sync behind it has made it durable fails itself; one that was durable by itself is not doubtful.
 *
 * Cost: three loads and compares a batch; a pass over all slots when a sync has failed.
 */
import { i32 } from "../ffi/view.ts";
import type { FlushGroup } from "./flush-group.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";

/** What makes a change of the disk durable: a flush that comes later, a sync before its answer, or nothing else. */
export const Durability = { byFlush: 0, bySync: 1, byItself: 2 } as const;

interface DoubtfulOptions {
  readonly flushes: Pick<FlushGroup, "failures" | "tellNext">;
  readonly requests: RequestTable;
  /** Of a request that changes the disk. */
  readonly durabilityOf: (slot: number) => number;
  /** The request fails, though the disk has done it. */
  readonly failed: (slot: number) => void;
}

export class DoubtfulWrites {
  readonly #options: DoubtfulOptions;
  readonly #flushes: DoubtfulOptions["flushes"];
  readonly #isDoubtful: Uint8Array;
  #doubtfulCount = 0;
  /** Of the group, when it was looked at last. */
  #failures: number;

  constructor(options: DoubtfulOptions) {
    this.#options = options;
    this.#flushes = options.flushes;
    this.#isDoubtful = new Uint8Array(options.requests.slotsMax);
    this.#failures = options.flushes.failures;
  }

  /** Before requests get slots: a failure until here is none of theirs. */
  look(): void {
    const { failures } = this.#flushes;
    if (failures !== this.#failures) {
      this.#failures = failures;
      this.#markAll();
    }
  }

  /** Before answers are shown. @param finished slots that are to be answered, all of them still taken */
  beforeAnswers(finished: Int32Array, count: number): void {
    this.look();
    if (this.#doubtfulCount > 0) {
      for (let i = 0; i < count; i++) {
        this.#settle(i32(finished, i));
      }
    }
  }

  /** After answers were shown: a sync may have failed, and been told, since they were looked at. */
  afterAnswers(): void {
    if (this.#flushes.failures !== this.#failures) {
      this.#flushes.tellNext();
    }
  }

  // --- internal ---

  #markAll(): void {
    const { requests } = this.#options;
    for (let slot = 0; slot < requests.slotsMax; slot++) {
      if (requests.isTaken(slot) && this.#isDoubtful[slot] === 0) {
        this.#isDoubtful[slot] = 1;
        this.#doubtfulCount += 1;
      }
    }
  }

  #settle(slot: number): void {
    if (this.#isDoubtful[slot] === 0) {
      return;
    }
    this.#isDoubtful[slot] = 0;
    this.#doubtfulCount -= 1;
    const { requests, durabilityOf, failed } = this.#options;
    const operation = requests.operation[slot];
    const isChange = operation !== Operation.read && operation !== Operation.flush;
    if (!isChange || requests.outcome[slot] !== Outcome.ok) {
      return;
    }
    const durability = durabilityOf(slot);
    if (durability === Durability.byFlush) {
      this.#flushes.tellNext();
    } else if (durability === Durability.bySync) {
      requests.outcome[slot] = Outcome.ioError;
      failed(slot);
    }
  }
}
