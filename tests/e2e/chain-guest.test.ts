/**
 * A Linux guest boots from the last disk of a chain while its data comes over the network from a disk that has not
 * got it all from its archive yet, writes, and boots again when the servers are gone.
 */
import { expect } from "bun:test";
import { Chain, type ChainArchive } from "../support/chain.ts";
import { missingForGuest, valuesOf } from "../support/guest.ts";
import { makeGuestImage } from "../support/guest-image.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { FIRST_BOOT, SECOND_BOOT, succeeds } from "../support/guest-root.ts";
import { MIB } from "../support/lazy-disk.ts";
import { isInstalled, skipUnless } from "../support/requires.ts";

const DISK_BYTES = 64 * MIB;
const FILE_BYTES = [7 * MIB + 1, 3 * MIB, MIB, 65_537, 1, 5 * MIB];
/** So that the boot comes while much is missing. */
const RATE = `background_bytes_per_second = ${MIB}`;

const missing =
  missingForGuest(hasGuestKernel()) ??
  (isInstalled("mke2fs") ? undefined : "mke2fs is not installed");
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

testWithGuest(
  "a guest boots from a disk that is fetched from a stripe server, and again without it",
  async () => {
    await using chain = new Chain();
    const path = chain.file("image.raw");
    const sums = await makeGuestImage({ path, sizeBytes: DISK_BYTES, fileBytes: FILE_BYTES });
    const archive: ChainArchive = {
      isEncrypted: true,
      compression: "zstd",
      store: `storage = "filesystem"\npath = "${chain.file("objects")}"`,
    };
    const common = {
      sizeBytes: DISK_BYTES,
      stripeShift: 11,
      isEncrypted: true,
      isWrittenTracked: true,
    };
    const image = `type = "raw"\nimage_path = "${path}"`;
    await using a = await chain.makeDisk({ ...common, name: "a", source: image });
    await chain.archive(a, archive);
    const source = chain.archiveSource(archive);
    await using b = await chain.makeDisk({ ...common, name: "b", source });
    await using c = await chain.makeDisk({
      ...common,
      name: "c",
      source: `${await chain.serve(b)}\nautofetch = true\n${RATE}`,
    });

    await c.start();
    const beginning = await c.fetched();
    const first = await succeeds({ socketPath: c.socketPath, script: FIRST_BOOT });
    expect(valuesOf(first).sums).toStartWith(sums);
    expect(beginning).toBeLessThan(DISK_BYTES / MIB / 2);
    await c.command({ command: "set_fetch_rate", bytes_per_second: null });
    await c.untilFetched();
    await c.stop();
    await chain.stopServers();

    await c.start();
    const second = await succeeds({ socketPath: c.socketPath, script: SECOND_BOOT });
    expect(valuesOf(second)).toEqual({ ...valuesOf(first), files: "61" });
    await c.stop();
  },
  400_000,
);
