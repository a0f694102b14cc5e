/** Disks with lazy stripes for the benchmark: their files, their server, and what it tells of its stripes. */
import { existsSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { FrontEnd } from "../../src/bench/front-end.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { converse } from "../support/rpc-client.ts";
import type { DataFiles } from "./servers.ts";

export const MIB = 2 ** 20;
/** What init-metadata makes when it is not told: 2048 sectors. */
export const STRIPE_BYTES = 2048 * 512;

export interface LazyDiskOptions {
  readonly folder: string;
  readonly dataPath: string;
  readonly imagePath: string;
  /** Left out: beside the configuration. */
  readonly metadataPath?: string;
  readonly isEncrypted: boolean;
  /** Lines of `[device]`. */
  readonly device?: string;
  /** Lines of `[stripe_source]` beside type and path. */
  readonly source?: string;
  /** Further sections. */
  readonly sections?: string;
}

/** Where the benchmark keeps what its rows of lazy stripes need. */
export function lazyFolder(files: DataFiles): string {
  return join(dirname(files.plainPath), "lazy");
}

/** A file of that size, written from end to end if it was not there. */
export async function writtenFile(path: string, sizeBytes: number): Promise<string> {
  if (!existsSync(path) || statSync(path).size !== sizeBytes) {
    const target = [`of=${path}`, "bs=1M", `count=${sizeBytes / MIB}`, "oflag=direct"];
    const command = ["dd", "if=/dev/urandom", ...target, "conv=fsync"];
    await outputOf(command, { timeoutMs: 600_000 });
  }
  return path;
}

/** A file of that size that takes no space. */
export function sparseFile(path: string, sizeBytes: number): string {
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
  return path;
}

/** Writes the configuration and makes metadata: everything in the image is still to be fetched. */
export async function makeLazyDisk(options: LazyDiskOptions): Promise<DiskFiles> {
  const { folder, dataPath, isEncrypted } = options;
  const lines = [
    `metadata_path = "${options.metadataPath ?? join(folder, "metadata")}"`,
    `rpc_socket = "rpc.sock"\n${options.device ?? ""}`,
    `[stripe_source]\ntype = "raw"\nimage_path = "${options.imagePath}"\n${options.source ?? ""}`,
    options.sections ?? "",
  ];
  const files = writeDiskConfig({ folder, dataPath, isEncrypted, moreConfig: lines.join("\n") });
  const command = [EXECUTABLE, "init-metadata", "--force", "--config", files.configPath];
  await outputOf(command, { env: { ...process.env, UBIBLK_LOG: "error" } });
  return files;
}

/** `makeLazyDisk`, and its server. */
export async function startLazyDisk(options: LazyDiskOptions): Promise<Backend> {
  return startUbiblk(await makeLazyDisk(options));
}

/** What the server tells of the fetch. */
export interface FetchStatus {
  readonly fetched: number;
  readonly unfetched: number;
  readonly inFlight: number;
  readonly retries: number;
}

export async function fetchStatus(folder: string): Promise<FetchStatus> {
  const answer = await command(folder, "status");
  const number = (...path: readonly string[]) => {
    const value = path.reduce<unknown>((part, key) => memberOf(part, key), answer);
    if (typeof value !== "number") {
      throw new Error(`the status lacks ${path.join(".")}: ${JSON.stringify(answer)}`);
    }
    return value;
  };
  return {
    fetched: number("status", "stripes", "fetched"),
    unfetched: number("status", "fetch", "unfetched"),
    inFlight: number("status", "fetch", "in_flight"),
    retries: number("status", "fetch", "retries"),
  };
}

/** Sends one RPC command; its answer. */
export async function command(folder: string, name: string): Promise<unknown> {
  const line = `${JSON.stringify({ command: name })}\n`;
  return JSON.parse(await converse(join(folder, "rpc.sock"), line));
}

/** A guest with one queue. */
export function attach(backend: Backend, queueDepth: number, dataBytesMax: number): FrontEnd {
  return FrontEnd.connect({
    socketPath: backend.socketPath,
    queueCount: 1,
    queueDepth,
    segmentsMax: 1,
    dataBytesMax,
    timeoutMs: 30_000,
    usesEventIndex: true,
    isIndirect: false,
    isPacked: false,
    usesReplyAck: true,
    usesMemorySlots: false,
    isReconnecting: false,
    usesInflight: false,
  });
}

// --- internal ---

function memberOf(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null
    ? Object.entries(value).find(([name]) => name === key)?.[1]
    : undefined;
}
