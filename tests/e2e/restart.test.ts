/** A backend that ends and comes back: whoever supervises it starts the next one without waiting. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type DiskFiles, startUbiblk, writeDiskConfig } from "../support/backend.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const ROUNDS = 15;

interface Place extends Disposable {
  readonly disk: DiskFiles;
}

function makePlace(): Place {
  const folder = mkdtempSync(join(BUILD_FOLDER, "restart-"));
  const disk = writeDiskConfig({ folder, isEncrypted: true });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 4 * 1024 * 1024);
  return { disk, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

test("SIGTERM as soon as the socket listens: it ends cleanly, with exit code 0", async () => {
  using place = makePlace();
  const exitCodes: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await using backend = await startUbiblk(place.disk);
    exitCodes.push(await backend.stop());
    await Bun.sleep(200); // the disk's lock is the next test's matter
  }
  expect(exitCodes).toEqual(exitCodes.map(() => 0));
});

test.each(["SIGTERM", "SIGKILL"] as const)(
  "started again as soon as %s has ended it: the disk is free",
  async (signal) => {
    using place = makePlace();
    for (let round = 0; round < ROUNDS; round++) {
      await using backend = await startUbiblk(place.disk);
      process.kill(backend.pid, signal);
      await backend.stop();
    }
  },
);
