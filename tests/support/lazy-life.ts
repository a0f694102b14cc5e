/**
 * The life of a disk that is filled from an image while its backend is killed again and again. Parts of the disk
 * belong to different loads, with borders inside stripes, and some to none:
 *
 *     0      1      9 10     18 19        27 28            37 MiB, 3 sectors    40 MiB
 *     |      |  4K  | |  64K  | |   160K   | | zeroes, discards ... |            |
 *     | image                                                | zeros| nobody's   |
 *
 * Those with a block size are written by `ubiblk bench` with a journal, which tells what was acknowledged. After
 * every kill each sector is read through the backend that was started next: a sector that nothing was sent for holds
 * the image, all others what was acknowledged last, or what was on its way.
 */
import { expect } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { readJournal } from "../../src/bench/journal.ts";
import { JOURNAL_HEADER_BYTES } from "../../src/bench/journal-format.ts";
import { type Backend, EXECUTABLE } from "./backend.ts";
import { LazyDisk, LazyGuest, MIB } from "./lazy-disk.ts";
import { SeededRandom } from "./random.ts";
import { randomImage } from "./random-image.ts";
import { RangeLoad } from "./range-load.ts";
import { SectorModel } from "./sector-model.ts";

export interface LifeOptions {
  readonly seed: number;
  readonly isEncrypted: boolean;
  readonly isWrittenTracked: boolean;
}

interface JournaledPart {
  readonly offset: number;
  readonly bytes: number;
  readonly blockBytes: number;
}

const SECTOR = 512;
const KIB = 1024;
const STRIPE_BYTES = 64 * KIB;
const STRIPE_SHIFT = 7;
/** Two groups of metadata; the last stripe is short. */
const DISK_BYTES = 40 * MIB + 4 * KIB;
const IMAGE_BYTES = 37 * MIB + 3 * SECTOR;
const IMAGE_END = Math.ceil(IMAGE_BYTES / STRIPE_BYTES) * STRIPE_BYTES;
const JOURNALED: readonly JournaledPart[] = [
  { offset: 1 * MIB + 4 * KIB, bytes: 8 * MIB, blockBytes: 4 * KIB },
  { offset: 10 * MIB, bytes: 8 * MIB, blockBytes: 64 * KIB },
  { offset: 19 * MIB + 12 * KIB, bytes: 8 * MIB, blockBytes: 160 * KIB },
];
const RANGES_OFFSET = 28 * MIB + 20 * KIB;
/** Most happens at first: after that a part is fetched, or replaced by what was written. */
const LOAD_TIMES_MS = [12, 40, 400] as const;
const QUEUES = 2;

export class LazyLife implements AsyncDisposable {
  readonly disk: LazyDisk;
  /** Kills that came while stripes were still to be fetched. */
  killsWhileFetching = 0;
  kills = 0;
  readonly #options: LifeOptions;
  readonly #random: SeededRandom;
  readonly #model: SectorModel;
  /** The loads take turns. */
  readonly #firstPart: number;
  #backend: Backend | undefined;
  #generation = 0;

  constructor(options: LifeOptions) {
    const { seed, isEncrypted, isWrittenTracked } = options;
    this.#options = options;
    this.#random = new SeededRandom(seed);
    const bytesPerSecond = this.#random.between(1, 6) * MIB;
    const isCopyOnRead = this.#random.oneIn(4);
    this.#firstPart = this.#random.below(JOURNALED.length + 1);
    this.disk = new LazyDisk({
      diskBytes: DISK_BYTES,
      imageBytes: IMAGE_BYTES,
      image: randomImage(this.#random, IMAGE_BYTES),
      isEncrypted,
      source: [
        "autofetch = true",
        `background_bytes_per_second = ${bytesPerSecond}`,
        `copy_on_read = ${isCopyOnRead}`,
      ].join("\n"),
      device: `track_written = ${isWrittenTracked}`,
      sections: `[tuning]\nnum_queues = ${QUEUES}`,
    });
    const image = this.disk.expected();
    this.#model = new SectorModel({ image, isFreedZeros: !isEncrypted, seed });
  }

  async begin(): Promise<void> {
    await this.disk.init("-s", String(STRIPE_SHIFT));
    this.#backend = await this.disk.start();
  }

  /** A load, a kill in the middle of it, a start, a check. False when all was fetched before. */
  async round(): Promise<boolean> {
    const before = await this.disk.status();
    const { fetched } = before.status.stripes;
    const part = (this.#firstPart + this.kills) % (JOURNALED.length + 1);
    const journaled = JOURNALED[part];
    if (journaled === undefined) {
      await this.#killUnderRanges();
    } else {
      await this.#killUnderJournal(journaled, `journal-${part}`);
    }
    this.kills += 1;
    await this.#checkFlags();
    this.#backend = await this.disk.start();
    const { stripes } = (await this.disk.status()).status;
    expect(stripes.fetched, "stripes that counted as fetched").toBeGreaterThanOrEqual(fetched);
    this.killsWhileFetching += stripes.fetched < stripes.source ? 1 : 0;
    await this.#check();
    return stripes.fetched < stripes.source;
  }

  /** Fetches the rest, takes the image away, and looks at everything once more. */
  async end(): Promise<void> {
    await this.disk.command({ command: "set_fetch_rate", bytes_per_second: null });
    await this.disk.until(({ status }) => status.stripes.fetched === status.stripes.source);
    await this.disk.stop();
    this.disk.moveImage();
    this.#backend = await this.disk.start();
    await this.#check();
    await this.disk.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disk[Symbol.asyncDispose]();
  }

  // --- internal: loads ---

  async #killUnderJournal(part: JournaledPart, name: string): Promise<void> {
    const journal = this.disk.files.file(name);
    const { offset, bytes, blockBytes } = part;
    const sizeBefore = journalBytes(journal);
    const running = this.#bench(
      "--workload=randwrite",
      `--journal=${journal}`,
      `--seed=${this.#options.seed}`,
      ...[`--offset=${offset}`, `--size=${bytes}`, `--block-size=${blockBytes}`],
      `--queue-depth=${this.#random.pick([1, 4, 16])}`,
      ...["--flush-every=8", "--time=30"],
    );
    const limit = performance.now() + 10_000;
    while (journalBytes(journal) === sizeBefore && performance.now() < limit) {
      await Bun.sleep(1);
    }
    await Bun.sleep(this.#loadTimeMs());
    await this.#kill();
    const { exitCode, stderr } = await running;
    expect(stderr).toContain("E_BENCH: the backend closed the connection");
    expect(exitCode).toBe(1);
  }

  async #killUnderRanges(): Promise<void> {
    const options = {
      socketPath: this.disk.socketPath,
      model: this.#model,
      random: this.#random,
      firstSector: RANGES_OFFSET / SECTOR,
      endSector: IMAGE_END / SECTOR,
      stripeSectors: STRIPE_BYTES / SECTOR,
    };
    using load = new RangeLoad(options, this.#generation);
    const endMs = performance.now() + this.#loadTimeMs();
    do {
      load.send();
      await Bun.sleep(1);
      load.take();
    } while (performance.now() < endMs);
    load.send();
    await this.#kill();
    load.take();
    this.#generation = load.generation;
  }

  #loadTimeMs(): number {
    return this.#random.below(this.#random.pick(LOAD_TIMES_MS));
  }

  async #kill(): Promise<void> {
    const backend = this.#backend;
    if (backend === undefined) {
      throw new Error("no backend to kill");
    }
    process.kill(backend.pid, "SIGKILL");
    expect(await backend.stop()).toBe(128 + 9);
  }

  // --- internal: checks ---

  /** With `track_written`, what was acknowledged is marked. */
  async #checkFlags(): Promise<void> {
    const { exitCode, stdout, stderr } = await this.disk.files.run("dump-metadata", "--json");
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    if (!this.#options.isWrittenTracked) {
      return;
    }
    const isMarked = markedStripes(JSON.parse(stdout));
    for (const [part, { offset, blockBytes }] of JOURNALED.entries()) {
      const history = this.#history(part);
      history?.acknowledged.forEach((generation, block) => {
        const start = offset + block * blockBytes;
        const last = Math.floor((start + blockBytes - 1) / STRIPE_BYTES);
        for (let stripe = Math.floor(start / STRIPE_BYTES); stripe <= last; stripe++) {
          if (generation > 0 && !isMarked(stripe)) {
            throw new Error(`stripe ${stripe} was written, and is not marked as WRITTEN`);
          }
        }
      });
    }
  }

  async #check(): Promise<void> {
    for (const part of JOURNALED.keys()) {
      const path = this.disk.files.file(`journal-${part}`);
      if (existsSync(path) && readJournal(path).acknowledged.some((generation) => generation > 0)) {
        const { stderr, exitCode } = await this.#bench(`--check=${path}`);
        expect(stderr).toBe("");
        expect(exitCode).toBe(0);
      }
    }
    using guest = new LazyGuest(this.disk);
    const end = this.#options.isEncrypted ? IMAGE_END : DISK_BYTES;
    const owners = this.#owners();
    for (let offset = 0; offset < end; offset += STRIPE_BYTES) {
      // A stripe at a time: a read of several would fetch them.
      const bytes = guest.read(offset, Math.min(STRIPE_BYTES, end - offset));
      this.#checkStripe(offset, bytes, owners);
    }
    this.#model.forget();
  }

  /** By sector of the disk: the generations that may have been written there, and -1 for the model's own. */
  #owners(): Int32Array {
    const owners = new Int32Array(DISK_BYTES / SECTOR).fill(-1);
    for (const [part, { offset, blockBytes }] of JOURNALED.entries()) {
      this.#history(part)?.sent.forEach((generation, block) => {
        const sector = (offset + block * blockBytes) / SECTOR;
        owners.fill(generation, sector, sector + blockBytes / SECTOR);
      });
    }
    return owners;
  }

  #checkStripe(offset: number, bytes: Uint8Array, owners: Int32Array): void {
    for (let done = 0; done < bytes.length; done += SECTOR) {
      const sector = (offset + done) / SECTOR;
      const held = bytes.subarray(done, done + SECTOR);
      const generationMax = owners[sector] ?? -1;
      if (generationMax < 0) {
        this.#model.settle(sector, held);
      } else {
        this.#model.expectImageOrGeneration(sector, held, generationMax);
      }
    }
  }

  #history(part: number): ReturnType<typeof readJournal> | undefined {
    const path = this.disk.files.file(`journal-${part}`);
    return existsSync(path) ? readJournal(path) : undefined;
  }

  #bench(...flags: readonly string[]): Promise<CommandResult> {
    const command = [EXECUTABLE, "bench", `--socket=${this.disk.socketPath}`, "--json"];
    const all = [...command, `--queues=${QUEUES}`, ...flags];
    return runCommand(all, { timeoutMs: 60_000 });
  }
}

// --- internal ---

function journalBytes(path: string): number {
  return existsSync(path) ? statSync(path).size : JOURNAL_HEADER_BYTES;
}

function markedStripes(metadata: {
  readonly written: { readonly ranges: readonly (readonly [number, number])[] };
}): (stripe: number) => boolean {
  const { ranges } = metadata.written;
  return (stripe) => ranges.some(([first, last]) => stripe >= first && stripe <= last);
}
