/**
 * A Linux guest lives in an image that is still being copied: its root file system is ext4 in a raw image, its disk is
 * empty and encrypted at first. When all is fetched the image is taken away, and the guest boots once more.
 */
import { expect } from "bun:test";
import { missingForGuest, valuesOf } from "../support/guest.ts";
import { makeGuestImage } from "../support/guest-image.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { FIRST_BOOT, SECOND_BOOT, succeeds } from "../support/guest-root.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";
import { isInstalled, skipUnless } from "../support/requires.ts";

const IMAGE_BYTES = 64 * MIB;
const DISK_BYTES = 80 * MIB;
const FILE_BYTES = [7 * MIB + 1, 3 * MIB, MIB, 512 * 1024, 65_537, 4096, 1000, 1, 5 * MIB];
/** So that the first boot comes while much is missing. */
const BACKGROUND_BYTES_PER_SECOND = 2 * MIB;
const POLL_MS = 500;

const missing =
  missingForGuest(hasGuestKernel()) ??
  (isInstalled("mke2fs") ? undefined : "mke2fs is not installed");
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

testWithGuest(
  "a guest boots from an image while it is fetched, writes, and boots again when the image is gone",
  async () => {
    await using disk = new LazyDisk({
      diskBytes: DISK_BYTES,
      imageBytes: 0,
      isEncrypted: true,
      source: `autofetch = true\nbackground_bytes_per_second = ${BACKGROUND_BYTES_PER_SECOND}`,
    });
    const path = disk.files.file("image.raw");
    const sums = await makeGuestImage({ path, sizeBytes: IMAGE_BYTES, fileBytes: FILE_BYTES });
    await disk.init();
    await disk.start();

    const watch = watchFetched(disk);
    const first = await succeeds({ socketPath: disk.socketPath, script: FIRST_BOOT });
    const counts = await watch.end();
    expect(valuesOf(first).sums).toStartWith(sums);
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect(new Set(counts).size).toBeGreaterThan(5);
    expect(counts[0]).toBeLessThan(IMAGE_BYTES / MIB / 2);

    await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
    await disk.until(({ status }) => status.fetch?.source_state === "closed");
    const total = DISK_BYTES / MIB;
    expect((await disk.status()).status.stripes).toEqual({ fetched: 64, source: 64, total });
    await disk.stop();
    disk.moveImage();
    await disk.start();
    const second = await succeeds({ socketPath: disk.socketPath, script: SECOND_BOOT });
    expect(valuesOf(second)).toEqual({ ...valuesOf(first), files: "61" });
    await disk.stop();
  },
  400_000,
);

// --- internal ---

/** Asks for the count of fetched stripes again and again, until `end`: all answers. */
function watchFetched(disk: LazyDisk): { readonly end: () => Promise<readonly number[]> } {
  let isOver = false;
  const watching = (async () => {
    const counts: number[] = [];
    while (!isOver) {
      counts.push((await disk.status()).status.stripes.fetched);
      await Bun.sleep(POLL_MS);
    }
    return counts;
  })();
  return {
    end: () => {
      isOver = true;
      return watching;
    },
  };
}
