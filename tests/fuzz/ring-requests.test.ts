/**
 * A guest that is half driver, half attacker, against the running executable: its requests are answered once each and
 * with the right data, whatever stands beside them in the ring, and nothing is written where no request said so.
 *
 * A failure prints the seed; `UBIBLK_FUZZ_SEED=N` runs it again, `UBIBLK_FUZZ_CHAINS=N` for so many chains a disk.
 * Where another thread changes memory meanwhile, the same seed makes the same chains, not the same moments.
 */
import { expect, test } from "bun:test";
import { addFigures } from "../support/figures.ts";
import { FUZZ_DISKS, FuzzDisk } from "../support/fuzz-disk.ts";
import { type FuzzCounts, FuzzRun } from "../support/fuzz-run.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { rounds } from "../support/requires.ts";

const CHAINS = Number(process.env.UBIBLK_FUZZ_CHAINS ?? rounds(25_000, 1_000_000));
const MEMORY_BYTES_MAX = 400 * 2 ** 20;
const TIMEOUT_MS = 120_000 + CHAINS * 2;

test.each(FUZZ_DISKS.map((kind, i) => ({ kind, name: kind.name, seed: FUZZ_SEED + i })))(
  "a disk that is $name, from seed $seed: every chain is used once, every request is answered right",
  async ({ kind, seed }) => {
    await using disk = new FuzzDisk(kind);
    await disk.start();
    const descriptors = disk.openDescriptors();
    {
      using run = new FuzzRun(disk.socketPath, disk.sectors, seed, kind.isEncrypted);
      run.fuzz(CHAINS);
      run.readEverything();
      addFigures("ring-requests", { disks: 1, chains: CHAINS });
      tell(kind.name, run.counts, disk.peakMemoryBytes());
    }
    expect(disk.isRunning()).toBe(true);
    expect(disk.peakMemoryBytes()).toBeLessThan(MEMORY_BYTES_MAX);
    expect(disk.openDescriptors() - descriptors).toBeLessThan(20);
    await disk.stop();
    await disk.start();
    {
      using run = new FuzzRun(disk.socketPath, disk.sectors, seed, kind.isEncrypted);
      run.readEverything();
    }
    await disk.stop();
  },
  TIMEOUT_MS,
);

/** The figures of a run that somebody asked for. */
function tell(name: string, counts: FuzzCounts, memoryBytes: number): void {
  if (process.env.UBIBLK_FUZZ_CHAINS !== undefined || process.env.UBIBLK_TEST_LONG !== undefined) {
    console.log(JSON.stringify({ name, ...counts, peakMiB: Math.round(memoryBytes / 2 ** 20) }));
  }
}
