/**
 * Requests that have taken longer than they should, and what each of them waits for: found when somebody asks, from
 * what the queues keep in shared memory of their requests anyway. It costs the queues nothing.
 */
import { type SlotWaits, Wait } from "../disk/slot-waits.ts";
import type { StripeProgress } from "./disk-stripes.ts";
import type { InFlightEntry, QueueStatistics } from "./queue-statistics.ts";

/** `disk`: its answer; `flush`: a sync of the disk, which all queues share; `buffer`: free memory; `image`: the source's file. */
export type WaitsFor =
  | { readonly kind: "disk" | "flush" | "buffer" | "image" }
  | ({ readonly kind: "stripe"; readonly stripe: number } & StripeProgress);

export interface OverdueRequest extends InFlightEntry {
  readonly queue: number;
  readonly waitsFor: WaitsFor;
}

export interface OverdueOptions {
  /** Longer than this is too long; 0: nothing is. */
  readonly thresholdMs: number;
  readonly queues: readonly Pick<QueueStatistics, "inFlight">[];
  /** Of each queue. */
  readonly waits: readonly SlotWaits[];
  /** Undefined for a stripe that a disk does not have. */
  readonly progress: (stripe: number) => StripeProgress | undefined;
}

export class OverdueRequests {
  /** Infinity: nothing takes too long. */
  readonly thresholdNs: number;
  /** Threads that did not answer when they were asked last. */
  silentThreads: readonly string[] = [];
  readonly #options: OverdueOptions;

  constructor(options: OverdueOptions) {
    const { thresholdMs } = options;
    this.thresholdNs = thresholdMs === 0 ? Number.POSITIVE_INFINITY : thresholdMs * 1e6;
    this.#options = options;
  }

  isOverdue(startedNs: number, nowNs: number): boolean {
    return nowNs - startedNs > this.thresholdNs;
  }

  /** The oldest first. */
  find(nowNs: number): readonly OverdueRequest[] {
    const found = this.#options.queues.flatMap((statistics, queue) =>
      statistics
        .inFlight()
        .filter(({ startedNs }) => this.isOverdue(startedNs, nowNs))
        .map((entry) => ({ ...entry, queue, waitsFor: this.#waitsFor(queue, entry) })),
    );
    return found.sort((a, b) => a.startedNs - b.startedNs);
  }

  // --- internal ---

  #waitsFor(queue: number, { slot, operation }: InFlightEntry): WaitsFor {
    const waits = this.#options.waits[queue];
    switch (waits?.wait(slot)) {
      case Wait.buffer:
        return { kind: "buffer" };
      case Wait.sync:
        return { kind: "flush" };
      case Wait.image:
        return { kind: "image" };
      case Wait.stripe: {
        const stripe = waits.stripe(slot);
        const progress = this.#options.progress(stripe);
        return progress === undefined ? { kind: "disk" } : { kind: "stripe", stripe, ...progress };
      }
      default:
        return { kind: operation === "flush" ? "flush" : "disk" };
    }
  }
}
