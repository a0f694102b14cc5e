/** Sparse disks of 640 GiB for fuzzing guests, of every kind that a backend serves. */
import { dlopen } from "bun:ffi";
import { expect } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startUbiblk,
  writeDiskConfig,
} from "./backend.ts";
import {
  CHECKED_SECTOR,
  CHECKED_SECTORS,
  DEVICE_ID,
  DISK_SECTORS,
  HOSTILE_END_SECTOR,
} from "./fuzz-layout.ts";
import { FuzzSectors } from "./fuzz-sectors.ts";

const SECTOR_BYTES = 512;

export interface FuzzDiskKind {
  readonly name: string;
  readonly isEncrypted: boolean;
  readonly isLazy?: boolean;
  /** Lines of `[tuning]`. */
  readonly tuning?: string;
  /** Lines of `[limits]`. */
  readonly limits?: string;
}

export const FUZZ_DISKS: readonly [FuzzDiskKind, ...FuzzDiskKind[]] = [
  { name: "plain", isEncrypted: false },
  { name: "encrypted", isEncrypted: true },
  { name: "encrypted and of a short queue", isEncrypted: true, tuning: "queue_size = 4" },
  { name: "lazy", isEncrypted: false, isLazy: true },
  { name: "lazy and encrypted", isEncrypted: true, isLazy: true },
  {
    name: "plain and limited",
    isEncrypted: false,
    limits: "iops = 400_000\nbytes_per_second = 4_000_000_000",
  },
  { name: "plain, by the engine sync", isEncrypted: false, tuning: 'io_engine = "sync"' },
  {
    name: "encrypted, by the engine sync",
    isEncrypted: true,
    tuning: 'io_engine = "sync"\nwrite_through = false',
  },
];

export class FuzzDisk implements AsyncDisposable {
  readonly sectors = new FuzzSectors();
  readonly #folder = mkdtempSync(join(tmpdir(), "ubiblk-fuzz-"));
  readonly #files: DiskFiles;
  readonly #kind: FuzzDiskKind;
  #backend: Backend | undefined;

  constructor(kind: FuzzDiskKind) {
    this.#kind = kind;
    const { isEncrypted, isLazy = false, tuning = "", limits } = kind;
    const device = [`device_id = "${DEVICE_ID}"`, isLazy ? 'metadata_path = "meta"' : ""];
    const more = [
      ...device,
      `[tuning]\n${tuning}`,
      limits === undefined ? "" : `[limits]\n${limits}`,
      isLazy ? '[stripe_source]\ntype = "raw"\nimage_path = "source.img"' : "",
    ];
    const moreConfig = more.join("\n");
    this.#files = writeDiskConfig({ folder: this.#folder, isEncrypted, moreConfig });
    makeSparse(this.#files.dataPath, DISK_SECTORS * SECTOR_BYTES);
    if (isEncrypted) {
      this.sectors.beginUnknown();
    }
  }

  get socketPath(): string {
    return this.#files.socketPath;
  }

  get pid(): number {
    return this.#backend?.pid ?? 0;
  }

  async start(): Promise<void> {
    if (this.#kind.isLazy === true && !readdirSync(this.#folder).includes("meta")) {
      this.#makeSource();
      const command = [EXECUTABLE, "init-metadata", "-f", this.#files.configPath];
      const { exitCode, stderr } = await runCommand(command, { timeoutMs: 60_000 });
      expect(exitCode === 0 ? "" : stderr).toBe("");
    }
    this.#backend = await startUbiblk(this.#files);
  }

  isRunning(): boolean {
    return this.#backend?.isRunning() ?? false;
  }

  log(): string {
    return this.#backend?.log() ?? "";
  }

  /** Private memory of the backend at its peak, bytes. */
  peakMemoryBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, "latin1");
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  }

  openDescriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Ends the backend, which must end well and have left alone what lies between what it was asked to write. */
  async stop(): Promise<void> {
    expect(await this.#backend?.stop()).toBe(0);
    this.#backend = undefined;
    const { dataPath } = this.#files;
    expect(statSync(dataPath).size).toBe(DISK_SECTORS * SECTOR_BYTES);
    expect(firstData(dataPath, HOSTILE_END_SECTOR * SECTOR_BYTES)).toBeGreaterThanOrEqual(
      CHECKED_SECTOR * SECTOR_BYTES,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend?.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  // --- internal ---

  #makeSource(): void {
    const path = join(this.#folder, "source.img");
    makeSparse(path, DISK_SECTORS * SECTOR_BYTES);
    this.sectors.beginWithSource();
    const content = new Uint8Array(CHECKED_SECTORS * SECTOR_BYTES);
    this.sectors.expected(CHECKED_SECTOR, CHECKED_SECTORS, content);
    const fd = openSync(path, "r+");
    writeSync(fd, content, 0, content.length, CHECKED_SECTOR * SECTOR_BYTES);
    closeSync(fd);
  }
}

/** Where a file has data from an offset on, as its file system tells; infinite where it has none. */
function firstData(path: string, offset: number): number {
  const SEEK_DATA = 3;
  const lseek = { args: ["i32", "i64", "i32"], returns: "i64" } as const;
  const fd = openSync(path, "r");
  const found = Number(dlopen("libc.so.6", { lseek }).symbols.lseek(fd, BigInt(offset), SEEK_DATA));
  closeSync(fd);
  return found < 0 ? Number.POSITIVE_INFINITY : found;
}

function makeSparse(path: string, bytes: number): void {
  const fd = openSync(path, "w", 0o600);
  ftruncateSync(fd, bytes);
  closeSync(fd);
}
