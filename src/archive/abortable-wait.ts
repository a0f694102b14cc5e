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
  return abortableWait(signal, (done) => {
    const timer = setTimeout(done, ms);
    return () => clearTimeout(timer);
  });
}
