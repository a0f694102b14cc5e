/** The limits of a disk as the main thread has them: what is set, and how much its queues are held back. */
import { LIMITS } from "../config/limit-rules.ts";
import { clockNs } from "../ffi/event.ts";
import { LogLimiter } from "../log.ts";
import { burstOf, type LimitSettings, NO_LIMITS } from "./limit-settings.ts";
import { Counter, type QueueStatistics } from "./queue-statistics.ts";
import { type SharedLimits, TokenBuckets } from "./token-buckets.ts";

/** How often and how long a queue waited for its limits. */
interface QueueWaits {
  readonly readsThrottled: number;
  readonly writesThrottled: number;
  readonly readThrottledNs: number;
  readonly writeThrottledNs: number;
}

export class DiskLimits {
  readonly shared: SharedLimits;
  readonly #buckets: TokenBuckets;
  readonly #queues: readonly QueueStatistics[];
  readonly #log = new LogLimiter();
  #settings: LimitSettings = NO_LIMITS;
  #isLifted = false;

  constructor(settings: LimitSettings, queues: readonly QueueStatistics[]) {
    this.#queues = queues;
    this.shared = TokenBuckets.share(queues.length + 1);
    this.#buckets = new TokenBuckets(this.shared, queues.length);
    this.#apply(settings);
  }

  get settings(): LimitSettings {
    return this.#settings;
  }

  /** By queue. */
  get waits(): readonly QueueWaits[] {
    return this.#queues.map((queue) => ({
      readsThrottled: queue.counter(Counter.readsThrottled),
      writesThrottled: queue.counter(Counter.writesThrottled),
      readThrottledNs: queue.counter(Counter.readThrottledNs),
      writeThrottledNs: queue.counter(Counter.writeThrottledNs),
    }));
  }

  /** All queues see it at once; those that wait within some milliseconds. */
  set(settings: LimitSettings): void {
    if (this.#isLifted || isSame(settings, this.#settings)) {
      return;
    }
    this.#apply(settings);
    this.#log.info("limits set", namesOf(settings));
  }

  /** Whatever waits is to end soon, for good: the disk is being stopped. */
  lift(): void {
    this.#isLifted = true;
    this.#apply(NO_LIMITS);
  }

  // --- internal ---

  #apply(settings: LimitSettings): void {
    this.#settings = settings;
    this.#buckets.set(settings, clockNs());
  }
}

// --- internal ---

function isSame(a: LimitSettings, b: LimitSettings): boolean {
  return a.every(
    ({ perSecond, burst }, i) => perSecond === b[i]?.perSecond && burst === b[i]?.burst,
  );
}

function namesOf(settings: LimitSettings): Readonly<Record<string, number | string>> {
  const set = LIMITS.flatMap(({ rate, burst }, i) => {
    const limit = settings[i];
    return limit?.perSecond === undefined
      ? []
      : [
          [rate, limit.perSecond],
          [burst, burstOf(limit) ?? 0],
        ];
  });
  return set.length === 0 ? { limits: "none" } : Object.fromEntries(set);
}
