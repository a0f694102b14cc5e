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

test("what is thrown over a note ends the run", async () => {
  const part = `onmessage = () => postMessage({ kind: "ended" }); postMessage({ kind: "note", note: "stripe 7" })`;
  const run = runWorkers<number, string>({
    role: "noting",
    data: [0],
    signal: new AbortController().signal,
    onStop: () => {},
    onNote: (note) => {
      throw new UbiError("E_DISK_IO", `cannot look up ${note}`);
    },
    spawn: () => new Worker(URL.createObjectURL(new Blob([part]))),
  });
  await expect(run).rejects.toThrow("cannot look up stripe 7");
});
