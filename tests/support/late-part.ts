/** A thread of a group that takes its time before it can hear anything; then it works until it is told to stop. */
import { runGroupPart } from "../../src/copy/group-worker.ts";

async function run({ data: delayMs }: MessageEvent<number>): Promise<void> {
  await Bun.sleep(delayMs);
  await runGroupPart<never>({
    run: ({ signal }) =>
      new Promise((_, reject) => {
        const timer = setInterval(() => {}, 1000); // keeps the thread alive
        signal.addEventListener("abort", () => {
          clearInterval(timer);
          reject(signal.reason);
        });
      }),
  });
}

addEventListener("message", run, { once: true });
