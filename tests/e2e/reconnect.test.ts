/**
 * The backend is killed with -9 under load, again and again, and started anew: the front end keeps its rings and
 * what the backend noted of requests in flight. Each request ends exactly once, and the data is right.
 */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { addFigures } from "../support/figures.ts";
import { benchThatOutlives, KilledBackend } from "../support/killed-backend.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const KILLS = rounds(34, 100);
const TIMEOUT_MS = rounds(240_000, 900_000);
const DISK_MIB = 32;
const TWO_QUEUES = "[tuning]\nnum_queues = 2\n";
const LOAD = ["--queues=2", "--queue-depth=32", "--block-size=4096", "--time=3", "--warmup=0"];
const PACKED = { kills: rounds(12, 100), moreFlags: ["--packed"] };
const SEED = Date.now() % 2 ** 31;

interface KillOptions {
  readonly kills?: number;
  readonly moreFlags?: readonly string[];
}

/**
 * Writes with a journal in one half of the disk, verifies with odd sizes in the other, in turns, until the backend
 * was killed `kills` times; then compares the disk with the journal.
 */
async function killUnderLoad(
  backend: KilledBackend,
  socketPath: string,
  journal: string,
  { kills = KILLS, moreFlags = [] }: KillOptions = {},
): Promise<void> {
  const random = new SeededRandom(SEED);
  const half = `${DISK_MIB / 2}M`;
  const writes = ["--workload=randwrite", "--flush-every=40", `--journal=${journal}`];
  const verifies = ["--workload=verify", `--offset=${half}`, "--size=512K", "--segments=3"];
  for (let round = 0; backend.kills < kills; round++) {
    const flags = round % 2 === 0 ? [...writes, `--size=${half}`] : verifies;
    let isDone = false;
    const run = benchThatOutlives(socketPath, ...LOAD, ...moreFlags, ...flags).finally(() => {
      isDone = true;
    });
    run.catch(() => {}); // it is awaited below
    while (await backend.isInUse(() => isDone)) {
      // Mostly in the middle of what it does again; now and then it gets further.
      await Bun.sleep(random.oneIn(4) ? random.between(100, 300) : random.below(30));
      await backend.kill();
    }
    await run;
    backend.forgetVisit();
  }
  const checked = await benchThatOutlives(socketPath, `--check=${journal}`, "--queues=2");
  expect(checked.verified).toContain("acknowledged writes hold them");
  expect(checked.operations).toBeGreaterThan(0);
  console.log(`${backend.kills} kills, ${backend.resumed} with requests in flight, seed ${SEED}`);
  addFigures("reconnect", { kills: backend.kills, resumed: backend.resumed });
  expect(backend.resumed).toBeGreaterThan(0);
}

test.each([
  { kind: "plain", isEncrypted: false, options: {} },
  { kind: "encrypted", isEncrypted: true, options: {} },
  { kind: "plain, packed rings,", isEncrypted: false, options: PACKED },
])(
  "killed under load, $kind disk: every request ends once, no acknowledged write is lost",
  async ({ isEncrypted, options }) => {
    mkdirSync(BUILD_FOLDER, { recursive: true });
    const folder = mkdtempSync(join(BUILD_FOLDER, "reconnect-"));
    try {
      const files = writeDiskConfig({ folder, isEncrypted, moreConfig: TWO_QUEUES });
      writeFileSync(files.dataPath, "", { mode: 0o600 });
      truncateSync(files.dataPath, DISK_MIB * MIB);
      await using backend = new KilledBackend(() => startUbiblk(files));
      await backend.begin();
      await killUnderLoad(backend, files.socketPath, join(folder, "journal"), options);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  TIMEOUT_MS,
);

test(
  "killed under load, disk that is filled from an image, with limits: the same, and nothing waits for ever",
  async () => {
    await using disk = new LazyDisk({
      diskBytes: DISK_MIB * MIB,
      imageBytes: DISK_MIB * MIB,
      isEncrypted: true,
      source: "autofetch = false",
      sections: `${TWO_QUEUES}[limits]\nwrite_iops = 20000\n`,
    });
    await disk.init("--stripe-sector-count-shift=7");
    await using backend = new KilledBackend(() => disk.start());
    await backend.begin();
    await killUnderLoad(backend, disk.socketPath, disk.files.file("journal"));
  },
  TIMEOUT_MS,
);
