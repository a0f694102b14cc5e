/** Waits that a signal ends: at once, and with the signal's own reason. */

/**
 * @param start gets the two ways to end the wait; it returns what cleans up after it
 * @throws what `fail` was given, or the signal's reason
 */
export async function abortableWait(
  signal: AbortSignal | undefined,
  start: (done: () => void, fail: (reason: unknown) => void) => () => void,
): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const cleanUp = start(resolve, reject);
  try {
    await promise;
  } finally {
    cleanUp();
    signal?.removeEventListener("abort", onAbort);
  }
}

/** @throws the signal's reason */
export function abortableSleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return abortableWait(signal, (done) => startTimer(ms, done));
}

/**
 * Calls `ring` after `ms`, or after 24 days: a longer time does not fit a timer, which would end at once.
 * @returns what stops it
 */
export function startTimer(ms: number, ring: () => void): () => void {
  const timer = setTimeout(ring, Math.min(ms, TIMER_MS_MAX));
  return () => clearTimeout(timer);
}

// --- internal ---

const TIMER_MS_MAX = 2 ** 31 - 1;
