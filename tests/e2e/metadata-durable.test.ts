/**
 * A backend that was killed may have left flags of stripes that are read back and not durable yet, or never, where a sync
 * of its failed. The next one relies on them, so that they are written once more and synced before anybody is served.
 */
import { expect } from "bun:test";
import {
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { skipUnless } from "../support/requires.ts";

const missing = missingFuse();
const test = skipUnless(missing ?? "", missing === undefined);
const TRACKED = 'metadata_path = "metadata"\ntrack_written = true\n';

test("metadata is durable before the disk is served", async () => {
  using place = new Place();
  const disk = writeDiskConfig({
    folder: place.folder,
    isEncrypted: false,
    moreConfig: TRACKED,
  });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 4 * 2 ** 20);
  await runCommand([EXECUTABLE, "init-metadata", "--config", disk.configPath]);
  const metadata = join(place.folder, "metadata");
  const real = join(place.folder, "real");
  renameSync(metadata, real);
  writeFileSync(metadata, "", { mode: 0o600 });
  const content = readFileSync(real);
  utimesSync(real, 1, 1);
  await using image = new FuseImage(real, metadata);
  const backend = await startUbiblk(disk);
  const syncs = image.syncs;
  expect(statSync(real).mtimeMs).toBeGreaterThan(1000);
  expect(readFileSync(real)).toEqual(content);
  expect(await backend.stop()).toBe(0);
  expect(syncs).toBe(1);
});

// --- internal ---

class Place implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-durable-"));

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
