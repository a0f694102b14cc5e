/**
 * A write of a backend that was killed reaches the disk long after its death. The next backend neither reads nor writes
 * before that: what the guest writes by it stays.
 */
import { expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { at, DATA, HostileClient } from "../support/hostile-client.ts";
import { rounds, skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";

const missing = missingFuse();
const testWithFuse = skipUnless(missing ?? "", missing === undefined);
const BLOCK = 4096;
/** In long runs longer than a holder is waited for that cannot be seen. */
const HOLD_MS = rounds(500, 12_000);

testWithFuse(
  "a late write of a killed backend: the next one waits for it, and a newer write wins",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "ubiblk-late-"));
    const imagePath = join(folder, "real.img");
    writeFileSync(imagePath, "", { mode: 0o600 });
    truncateSync(imagePath, 2 ** 20);
    const block = () => readFileSync(imagePath).subarray(0, BLOCK);
    const disk = writeDiskConfig({
      folder,
      isEncrypted: false,
      dataPath: join(folder, "disk.img"),
    });
    try {
      await using image = new FuseImage(imagePath, disk.dataPath);
      const dead = await startUbiblk(disk);
      using old = HostileClient.attach(disk.socketPath);
      image.holdWrites();
      startWrite(old, "o");
      await until("the write is under way", () => image.heldWrites > 0);
      process.kill(dead.pid, "SIGKILL");

      const starting = startUbiblk(disk); // it listens when it has opened the disk
      const log = () => readFileSync(`${disk.configPath}.log`, "utf8");
      await until("the next one waits", () => log().includes("last I/O"));
      await Bun.sleep(HOLD_MS);
      expect(log()).not.toContain("ready");
      expect(block()).toEqual(Buffer.alloc(BLOCK));
      image.releaseWrites();

      await using next = await starting;
      await until("the next one serves", () => next.log().includes("ready"));
      expect(block()).toEqual(Buffer.alloc(BLOCK, "o"));
      using client = HostileClient.attach(disk.socketPath);
      startWrite(client, "n");
      client.waitUsed();
      expect(block()).toEqual(Buffer.alloc(BLOCK, "n"));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  rounds(60_000, 120_000),
);

/** Writes the first block, and does not wait for its end. */
function startWrite(client: HostileClient, letter: string): void {
  client.bytes.fill(letter.charCodeAt(0), DATA, DATA + BLOCK);
  const data = { address: at(DATA), length: BLOCK, flags: 0 };
  client.setChain(0, [client.header(0, REQUEST_TYPE.OUT, 0), data, client.statusByte(0)]);
  client.offer(0);
  client.kick();
}
