import { expect, test } from "bun:test";
import { runWorkers } from "../../src/copy/worker-group.ts";
import { UbiError } from "../../src/errors.ts";

/** Well below the time after which a thread is ended by force. */
const SOON_MS = 2_500;

test("a stop reaches also a thread that is still loading its part", async () => {
  const controller = new AbortController();
  const startMs = performance.now();
  const run = runWorkers<number, never>({
    role: "late",
    data: [500],
    signal: controller.signal,
    onStop: () => {},
    spawn: (_, delayMs) => {
      const worker = new Worker(new URL("../support/late-part.ts", import.meta.url));
      worker.postMessage(delayMs);
      return worker;
    },
  });
  controller.abort(new UbiError("E_INTERRUPTED", "stop"));
  await expect(run).rejects.toThrow("stop");
  expect(performance.now() - startMs).toBeLessThan(SOON_MS);
});
