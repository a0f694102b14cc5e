/**
 * A backend that stands still for seconds, as under a debugger, in a frozen group or on a machine that swaps: who waits
 * for it goes on afterwards as if nothing had been.
 */
import { expect, test as testHere } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { type DiskFiles, EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { missingForGuest, runGuest } from "../support/guest.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { rounds, skipUnless } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { until } from "../support/until.ts";

const BYTES = 64 * 2 ** 20;
const PAUSES = rounds(2, 10);
const PAUSE_MS = rounds(700, 5000);
const missing = missingForGuest(hasGuestKernel());
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

testHere.each(["io_uring", "sync"])(
  "%s: stopped and continued under load, every byte is right",
  async (engine) => {
    using place = new Place(engine);
    await using backend = await startUbiblk(place.disk);
    const socket = `--socket=${place.disk.socketPath}`;
    const seconds = (2 * PAUSES * PAUSE_MS) / 1000 + 5; // longer than the pauses take on a busy machine
    const load = ["--workload=randwrite", "--queues=2", "--flush-every=16", `--time=${seconds}`];
    const journal = join(place.path, "journal");
    const command = [EXECUTABLE, "bench", socket, ...load, "--warmup=0", `--journal=${journal}`];
    const running = runCommand(command, { timeoutMs: 120_000 });
    for (let pause = 0; pause < PAUSES; pause++) {
      await place.untilOperations("write_ops", 100);
      await pauseFor(backend.pid, PAUSE_MS);
    }
    const { stderr, exitCode } = await running;
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
    const check = await runCommand([EXECUTABLE, "bench", socket, "--check", journal, "--queues=2"]);
    expect(check.stderr).toBe("");
    expect(backend.log()).not.toMatch(/WARN.*(queue|request)|ERROR/);
    expect(await backend.stop()).toBe(0);
  },
  120_000,
);

/** The kernel would tell of a request that takes too long, and a file system of an error. */
const WRITE = `
mkfs.ext4 -q -F /dev/vda
mount -t ext4 /dev/vda /mnt
for file in $(seq 40); do
  dd if=/dev/urandom of=/mnt/$file bs=64k count=4 conv=fsync 2>/dev/null
done
(cd /mnt; sha256sum [0-9]*) >/tmp/sums
umount /mnt
mount -t ext4 /dev/vda /mnt
cd /mnt
sha256sum -c /tmp/sums >/dev/null
cd /
umount /mnt
e2fsck -fn /dev/vda >/dev/null 2>&1
dmesg | grep -iE 'error|blocked for more' && exit 1
echo whole
`;

testWithGuest(
  "a guest writes, its backend is stopped and continued: no error, all files are whole",
  async () => {
    using place = new Place("io_uring");
    await using backend = await startUbiblk(place.disk);
    const running = runGuest({ socketPath: place.disk.socketPath, script: WRITE });
    for (let pause = 0; pause < PAUSES; pause++) {
      await place.untilOperations("flush_ops", 5);
      await pauseFor(backend.pid, 2 * PAUSE_MS);
    }
    const { exitCode, output, console } = await running;
    expect(exitCode === 0 ? "" : `${output}\n${console}`).toBe("");
    expect(output).toContain("whole");
    expect(await backend.stop()).toBe(0);
  },
  480_000,
);

// --- internal ---

async function pauseFor(pid: number, ms: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  await Bun.sleep(ms);
  process.kill(pid, "SIGCONT");
}

interface Statistics {
  readonly statistics: {
    readonly queues: readonly { readonly write_ops: number; readonly flush_ops: number }[];
  };
}

class Place implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-pause-"));
  readonly disk: DiskFiles;

  constructor(engine: string) {
    this.disk = writeDiskConfig({
      folder: this.path,
      isEncrypted: true,
      moreConfig: `rpc_socket = "rpc.sock"\n[tuning]\nnum_queues = 2\nio_engine = "${engine}"\n`,
    });
    writeFileSync(this.disk.dataPath, "", { mode: 0o600 });
    truncateSync(this.disk.dataPath, BYTES);
  }

  /** Waits until so many more were handed to the disk: the load is under way. */
  async untilOperations(kind: "write_ops" | "flush_ops", more: number): Promise<void> {
    const count = async () => {
      const answer = (await ask(join(this.path, "rpc.sock"), "statistics")) as Statistics;
      return answer.statistics.queues.reduce((sum, queue) => sum + queue[kind], 0);
    };
    const before = await count();
    await until(`${more} ${kind}`, async () => (await count()) >= before + more, 240_000);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
