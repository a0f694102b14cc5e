/** Waits that end early when the program shall end. */

/** Waits for `work`, but no longer than `ms` or until `signal` aborts; it goes on by itself then. */
export async function waitAtMost(
  work: Promise<unknown>,
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  const ended = new AbortController();
  const limit = pause(ms, AbortSignal.any([signal, ended.signal]));
  try {
    await Promise.race([work, limit]);
  } finally {
    ended.abort();
  }
}

/** Regular moments on the monotonic clock; those that were missed are left out. */
export class Ticks {
  readonly #intervalMs: number;
  #nextMs = performance.now();

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** Waits for the next one. */
  async next(signal: AbortSignal): Promise<void> {
    const nowMs = performance.now();
    this.#nextMs += this.#intervalMs;
    if (this.#nextMs < nowMs) {
      this.#nextMs = nowMs;
    }
    await pause(this.#nextMs - nowMs, signal);
  }
}

// --- internal ---

/** Waits `ms`, or until `signal` aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}
