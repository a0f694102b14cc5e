/**
 * An encrypted disk of two queues that is filled from a stripe server over TLS while one front end after another comes
 * and goes, in good order or not, and clients of RPC and metrics ask all the time. Parts belong to different loads:
 *
 *     0      1      9 10     18 19        27 28           37 MiB              the end
 *     |      |  4K  | |  64K  | |         |  | zeroes, discards ... |   image    |
 */
import { expect } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import type { Report } from "../../src/bench/report.ts";
import { type Backend, EXECUTABLE } from "./backend.ts";
import { HostileClient } from "./hostile-client.ts";
import { get } from "./http-client.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "./lazy-disk.ts";
import { SeededRandom } from "./random.ts";
import { randomImage } from "./random-image.ts";
import { RangeLoad } from "./range-load.ts";
import { fillFrom, serveImage } from "./remote-disk.ts";
import { RpcClient } from "./rpc-client.ts";
import { SectorModel } from "./sector-model.ts";
import { RawClient, type RunningServer } from "./stripe-server.ts";
import { until } from "./until.ts";

export interface SoakOptions {
  readonly seed: number;
  /** What the disk is fetched for, at one stripe of 1 MiB a second, besides what guests ask for. */
  readonly stripes: number;
  /** Of one measured load. */
  readonly loadSeconds: number;
}

/** What one measured load of a turn saw. */
export interface LoadFigures {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly backendCpuNs: number;
}

const SECTOR = 512;
const SMALL = { offset: 1 * MIB + 4096, bytes: 8 * MIB, blockBytes: 4096 };
const LARGE = { offset: 10 * MIB, bytes: 8 * MIB, blockBytes: 65_536 };
const RANGES = { offset: 28 * MIB + 20 * 1024, end: 37 * MIB };
const IMAGE_ONLY = 38 * MIB;
const RANGE_UNIT_SECTORS = 128;
const RANGES_MS = 200;
/** Of some dozens of writes. */
const JOURNAL_BYTES = 1024;
/** Front ends that do one request each: what each leaves behind adds up. */
const SHORT_FRONT_ENDS = 60;
/** Between the parts. */
const SPARE_SECTOR = (9.5 * MIB) / SECTOR;
const ASK_MS = 100;

export class SoakLife implements AsyncDisposable {
  readonly disk: LazyDisk;
  readonly writes: LoadFigures[] = [];
  readonly reads: LoadFigures[] = [];
  frontEnds = 0;
  answers = 0;
  readonly #options: SoakOptions;
  readonly #random: SeededRandom;
  readonly #expected: Uint8Array;
  readonly #model: SectorModel;
  #backend: Backend | undefined;
  #server: RunningServer | undefined;
  #generation = 0;
  #isAsking = false;
  #asking: Promise<unknown> = Promise.resolve();

  constructor(options: SoakOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    const bytes = IMAGE_ONLY + options.stripes * MIB;
    this.disk = new LazyDisk({
      diskBytes: bytes,
      imageBytes: bytes,
      image: randomImage(this.#random, bytes),
      isEncrypted: true,
    });
    this.#expected = this.disk.image;
    this.#model = new SectorModel({
      image: this.#expected,
      isFreedZeros: false,
      seed: options.seed,
    });
  }

  get pids(): readonly [backend: number, server: number] {
    return [this.#backend?.pid ?? 0, this.#server?.pid ?? 0];
  }

  log(): string {
    return this.#backend?.log() ?? "";
  }

  async begin(): Promise<void> {
    const { disk } = this;
    this.#server = await serveImage(disk);
    fillFrom(disk, this.#server.port, {
      source: `autofetch = true\nbackground_bytes_per_second = ${MIB}`,
      device: `metrics_socket = "metrics.sock"`,
      sections: "[tuning]\nnum_queues = 2",
    });
    await disk.init();
    this.#backend = await disk.start();
    this.#isAsking = true;
    this.#asking = this.#askAllTheTime();
  }

  /** One front end after another, each with a way of its own to work and to go. */
  async turn(): Promise<void> {
    const time = `--time=${this.#options.loadSeconds}`;
    const small = ["--workload=randwrite", ...rangeOf(SMALL), "--flush-every=8"];
    const journal = this.disk.files.file("journal-small");
    this.writes.push(await this.#measure("write", ...small, `--journal=${journal}`, time));
    this.reads.push(await this.#measure("read", "--workload=randread", ...rangeOf(SMALL), time));
    await this.#check(journal);
    await this.#killedFrontEnd();
    await this.#rangesAndGone();
    this.#rudeFrontEnd();
    this.#shortFrontEnds();
    this.#readFromImage();
    await this.#visitServer();
  }

  /** Fetches the rest, lets the server go, and looks at everything once more. */
  async end(): Promise<void> {
    const { disk } = this;
    this.#isAsking = false;
    await this.#asking;
    await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
    await disk.until(({ status }) => status.stripes.fetched === status.stripes.source);
    expect(await this.#server?.stop()).toBe(0);
    await this.#check(disk.files.file("journal-small"));
    await this.#check(disk.files.file("journal-large"));
    using guest = this.#guest();
    this.#settleRanges(guest);
    const rest = this.#expected.subarray(IMAGE_ONLY);
    for (let offset = 0; offset < rest.length; offset += MIB) {
      expectSame(guest.read(IMAGE_ONLY + offset, MIB), rest.slice(offset, offset + MIB));
    }
    await disk.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isAsking = false;
    await this.#asking;
    await this.#server?.stop();
    await this.disk[Symbol.asyncDispose]();
  }

  // --- internal: front ends ---

  async #measure(kind: "read" | "write", ...flags: readonly string[]): Promise<LoadFigures> {
    const pid = `--pid=${this.#backend?.pid}`;
    const result = await this.#bench("--queue-depth=8", "--warmup=0.1", pid, ...flags);
    expect(result.stderr).toBe("");
    const report: Report = JSON.parse(result.stdout);
    const { p50Us = Number.NaN, p99Us = Number.NaN } = report.latency[kind] ?? {};
    return { p50Us, p99Us, backendCpuNs: report.backendCpuNsPerOperation ?? Number.NaN };
  }

  async #check(journal: string): Promise<void> {
    const { stderr, exitCode } = await this.#bench(`--check=${journal}`);
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
  }

  /** Its descriptors are closed in the middle of its requests. */
  async #killedFrontEnd(): Promise<void> {
    const journal = this.disk.files.file("journal-large");
    const command = this.#benchCommand(
      ...["--workload=randwrite", ...rangeOf(LARGE), "--flush-every=8"],
      ...[`--journal=${journal}`, "--time=20", "--warmup=0"],
    );
    this.frontEnds += 1;
    const begun = bytesOf(journal);
    const child = Bun.spawn(command, { stdout: "ignore", stderr: "ignore" });
    await until("writes are under way", () => bytesOf(journal) > begun + JOURNAL_BYTES);
    await Bun.sleep(this.#random.below(200));
    child.kill("SIGKILL");
    await child.exited;
    await this.#check(journal);
  }

  /** Writes, zeroes and discards, and gone with some of them under way. */
  async #rangesAndGone(): Promise<void> {
    const options = {
      socketPath: this.disk.socketPath,
      model: this.#model,
      random: this.#random,
      firstSector: RANGES.offset / SECTOR,
      endSector: RANGES.end / SECTOR,
      stripeSectors: RANGE_UNIT_SECTORS,
    };
    {
      using load = new RangeLoad(options, this.#generation);
      const endMs = performance.now() + RANGES_MS;
      while (performance.now() < endMs) {
        load.send();
        await Bun.sleep(1);
        load.take();
      }
      load.send();
      this.#generation = load.generation;
    }
    using guest = this.#guest();
    this.#settleRanges(guest);
    this.frontEnds += 1;
  }

  #settleRanges(guest: LazyGuest): void {
    const piece = 512 * 1024;
    for (let offset = RANGES.offset; offset < RANGES.end; offset += piece) {
      const bytes = guest.read(offset, Math.min(piece, RANGES.end - offset));
      this.#model.settle(offset / SECTOR, bytes);
    }
    this.#model.forget();
  }

  /** Leaves in the middle of a message. */
  #rudeFrontEnd(): void {
    using client = new HostileClient(this.disk.socketPath);
    client.negotiate([]);
    client.sendBytes(new Uint8Array(7));
    this.frontEnds += 1;
  }

  #shortFrontEnds(): void {
    for (let i = 0; i < SHORT_FRONT_ENDS; i++) {
      using client = HostileClient.attach(this.disk.socketPath);
      expect(client.isServed(SPARE_SECTOR, i)).toBe(true);
      this.frontEnds += 1;
    }
  }

  #readFromImage(): void {
    using guest = this.#guest();
    const sectors = (this.#expected.length - IMAGE_ONLY) / SECTOR;
    for (let i = 0; i < 4; i++) {
      const offset = IMAGE_ONLY + this.#random.below(sectors - 16) * SECTOR;
      expectSame(guest.read(offset, 8192), this.#expected.slice(offset, offset + 8192));
    }
  }

  #guest(): LazyGuest {
    this.frontEnds += 1;
    return new LazyGuest(this.disk);
  }

  #bench(...flags: readonly string[]): Promise<CommandResult> {
    this.frontEnds += 1;
    return runCommand(this.#benchCommand(...flags), { timeoutMs: 60_000 });
  }

  #benchCommand(...flags: readonly string[]): string[] {
    const seed = `--seed=${this.#options.seed}`;
    const all = [`--socket=${this.disk.socketPath}`, "--json", "--queues=2", seed, ...flags];
    return [EXECUTABLE, "bench", ...all];
  }

  // --- internal: other clients ---

  async #askAllTheTime(): Promise<void> {
    using staying = new RpcClient(this.disk.rpcPath);
    const metricsPath = this.disk.files.file("metrics.sock");
    for (let round = 0; this.#isAsking; round++) {
      staying.send('{"command":"statistics"}\n');
      await this.disk.status();
      await this.disk.command({ command: round % 2 === 0 ? "queues" : "stats" });
      const { body } = await get(metricsPath, { path: "/metrics" });
      expect(body).toContain("ubiblk_operations_total");
      await staying.until(() => staying.received.endsWith("\n"));
      staying.received = "";
      this.answers += 4;
      await Bun.sleep(ASK_MS);
    }
  }

  /** Somebody who knows no key, and somebody who says nothing. */
  async #visitServer(): Promise<void> {
    const port = this.#server?.port ?? 0;
    using silent = await RawClient.connect(port);
    using wrong = await RawClient.connect(port);
    wrong.send(new Uint8Array(64));
    await wrong.rest();
    silent.endSending();
  }
}

// --- internal ---

function bytesOf(path: string): number {
  return existsSync(path) ? statSync(path).size : 0;
}

function rangeOf(part: typeof SMALL): readonly string[] {
  return [`--offset=${part.offset}`, `--size=${part.bytes}`, `--block-size=${part.blockBytes}`];
}
