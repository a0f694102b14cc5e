/** What a folder has after a loss of power: a copy of its device, taken while it is in use, mounted. Needs root. */
import { afterEach, beforeEach, expect } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { openStore } from "../../src/archive/open-store.ts";
import { attachLoopDevice, MountedDevice, missingMounts } from "../support/loop-device.ts";
import { skipUnless } from "../support/requires.ts";
import { bytesOf } from "../support/store-contract.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-power-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const missing = missingMounts();
skipUnless(missing ?? "", missing === undefined)(
  "what was put durably, alone, together or as new, is there after a loss of power",
  async () => {
    const backingPath = join(folder, "backing");
    using device = attachLoopDevice({ backingPath, sizeBytes: 32 * 2 ** 20, sectorBytes: 512 });
    using _mounted = new MountedDevice(device, folder);
    const path = join(folder, "mount", "archive");
    await using store = await openStore({ kind: "filesystem", path, role: "write" });
    await store.put("metadata.json", bytesOf(1000, 1));
    await store.sync();
    await store.put("metadata.json", bytesOf(2000, 2), { isDurable: true });
    expect(await store.putNew("archive-run.json", bytesOf(300, 3))).toBe("put");
    const copies = [
      { key: "previous-metadata.json", bytes: bytesOf(400, 4) },
      { key: "stripe-mapping", bytes: bytesOf(100_000, 5) },
    ];
    await store.putAll(copies);
    const after = join(folder, "after");
    copyFileSync(backingPath, after);
    const place = join(folder, "place");
    mkdirSync(place);
    const mounted = await runCommand(["mount", "-o", "loop", after, place]);
    expect(mounted.exitCode).toBe(0);
    try {
      const read = (key: string): Uint8Array =>
        new Uint8Array(readFileSync(join(place, "archive", key)));
      expect(read("metadata.json")).toEqual(bytesOf(2000, 2));
      expect(read("archive-run.json")).toEqual(bytesOf(300, 3));
      for (const { key, bytes } of copies) {
        expect(read(key)).toEqual(bytes);
      }
    } finally {
      expect((await runCommand(["umount", place])).exitCode).toBe(0);
    }
  },
  60_000,
);
