/** A small disk served by the executable for hostile clients, and what is asked of it after each of them. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Backend, type DiskFiles, startUbiblk, writeDiskConfig } from "./backend.ts";
import { HostileClient } from "./hostile-client.ts";

export const DISK_BYTES = 64 * 2 ** 20;
export const DISK_SECTORS = DISK_BYTES / 512;

export interface HostileDisk {
  readonly backend: Backend;
  readonly files: DiskFiles;
  attach(features?: readonly number[]): HostileClient;
  connect(): HostileClient;
  /** A new client writes and reads: the backend lives and serves. */
  isServing(): boolean;
  /** Private memory of the backend at its peak, bytes. */
  peakMemoryBytes(): number;
  /** Ends the backend: its exit code. */
  close(): Promise<number>;
}

export async function serveHostileDisk(options: {
  readonly isEncrypted: boolean;
  readonly tuning?: string;
  /** What every client negotiates. */
  readonly features?: readonly number[];
}): Promise<HostileDisk> {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-hostile-"));
  const moreConfig = options.tuning === undefined ? "" : `[tuning]\n${options.tuning}\n`;
  const files = writeDiskConfig({ folder, isEncrypted: options.isEncrypted, moreConfig });
  writeFileSync(files.dataPath, "");
  truncateSync(files.dataPath, DISK_BYTES);
  const backend = await startUbiblk(files);
  const attach = (features: readonly number[] = []) =>
    HostileClient.attach(files.socketPath, {
      features: [...(options.features ?? []), ...features],
    });
  return {
    backend,
    files,
    attach,
    connect: () => new HostileClient(files.socketPath),
    isServing: () => {
      using client = attach();
      return client.isServed();
    },
    peakMemoryBytes: () => {
      const status = readFileSync(`/proc/${backend.pid}/status`, "latin1");
      return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
    },
    close: async () => {
      const exitCode = await backend.stop();
      rmSync(folder, { recursive: true });
      return exitCode;
    },
  };
}
