/**
 * A backend in a control group that limits its memory: within what it needs it serves whatever a guest asks for; with
 * less the kernel kills it, and what was acknowledged is there for the next one.
 */
import { expect } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startBackend,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { MemoryGroup, missingMemoryGroup } from "../support/memory-group.ts";
import { skipUnless } from "../support/requires.ts";

const missing = missingMemoryGroup();
const test = skipUnless(missing ?? "", missing === undefined);

const MIB = 2 ** 20;
const BYTES = 128 * MIB;
/** For an encrypted disk of two queues with all that their guests may have under way; the executable's pages count too. */
const ENOUGH = 96 * MIB;
const KILLED = 128 + 9;

test("within its limit: the largest requests of two deep queues are served, and verified", async () => {
  using place = new Place();
  const group = new MemoryGroup(ENOUGH);
  {
    await using backend = await place.startIn(group);
    const large = ["--block-size=1M", "--segments=64", "--indirect", "--queue-depth=32"];
    const verified = await place.bench("--workload=verify", ...large);
    expect({ stderr: verified.stderr, exitCode: verified.exitCode }).toEqual({
      stderr: "",
      exitCode: 0,
    });
    expect(await backend.stop()).toBe(0);
  }
  console.log(`peak ${Math.round(group.peakBytes / MIB)} of ${ENOUGH / MIB} MiB`);
  await group.end();
});

test("a limit that it outgrows under load: killed at once, and nothing acknowledged is lost", async () => {
  using place = new Place();
  const group = new MemoryGroup(ENOUGH);
  const journal = join(place.path, "journal");
  {
    await using backend = await place.startIn(group);
    const load = ["--workload=randwrite", "--block-size=64K", "--flush-every=16", "--warmup=0"];
    const small = await place.bench(
      ...load,
      "--time=0.3",
      "--queue-depth=2",
      `--journal=${journal}`,
    );
    expect(small.exitCode).toBe(0);
    // Its memory of its own and 4 MiB for all else: the buffers of a deep queue are too much.
    group.limit(group.floorBytes + 4 * MIB);
    const deep = await place.bench(
      ...load,
      "--time=30",
      "--queue-depth=64",
      `--journal=${journal}`,
    );
    expect(deep.stderr).toContain("the backend closed the connection");
    expect(await backend.stop()).toBe(KILLED);
  }
  await group.end();
  await using _again = await startUbiblk(place.disk);
  const checked = await place.bench(`--check=${journal}`);
  expect({ stderr: checked.stderr, exitCode: checked.exitCode }).toEqual({
    stderr: "",
    exitCode: 0,
  });
});

// --- internal ---

class Place implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-memory-"));
  readonly disk: DiskFiles;

  constructor() {
    const moreConfig = "[tuning]\nnum_queues = 2\n";
    this.disk = writeDiskConfig({ folder: this.path, isEncrypted: true, moreConfig });
    writeFileSync(this.disk.dataPath, "", { mode: 0o600 });
    truncateSync(this.disk.dataPath, BYTES);
  }

  startIn(group: MemoryGroup): Promise<Backend> {
    return startBackend({
      command: [...group.wrapper, EXECUTABLE, "vhost", "--config", this.disk.configPath],
      socketPath: this.disk.socketPath,
      logPath: join(this.path, "log"),
    });
  }

  bench(...flags: readonly string[]): Promise<CommandResult> {
    const command = [EXECUTABLE, "bench", `--socket=${this.disk.socketPath}`, "--queues=2"];
    return runCommand([...command, ...flags], { timeoutMs: 60_000 });
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
