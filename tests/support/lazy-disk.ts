/** A disk that is filled from a raw image, in a folder of its own, for tests of the executable. */

import { expect } from "bun:test";
import { closeSync, openSync, readFileSync, renameSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { type Backend, EXECUTABLE, startBackend } from "./backend.ts";
import { at, DATA, HostileClient, WRITE } from "./hostile-client.ts";
import { MetadataDisk } from "./metadata-disk.ts";
import { ask, converse } from "./rpc-client.ts";
import { until } from "./until.ts";

export const MIB = 2 ** 20;
const WAIT_MS = 60_000;
/** What one request of the tests moves. */
const PIECE_BYTES = 512 * 1024;

export interface LazyDiskOptions {
  readonly diskBytes: number;
  readonly imageBytes: number;
  readonly isEncrypted: boolean;
  /** Lines of `[stripe_source]` beside type and path. */
  readonly source?: string;
  /** Of `[stripe_source]`, instead of the image. */
  readonly origin?: string;
  /** Lines of `[device]`. */
  readonly device?: string;
  /** Further sections. */
  readonly sections?: string;
  /** Stripes of 1 MiB that are zeros in the image. */
  readonly zeroStripes?: readonly number[];
  /** Instead of one that is made up. */
  readonly image?: Uint8Array;
}

/** A byte of the image; never zero, so that a hole is told from data. */
function byteAt(offset: number): number {
  return (((offset * 31) ^ (offset >> 9) ^ (offset >> 20)) & 0xff) | 1;
}

export class LazyDisk implements AsyncDisposable {
  readonly files: MetadataDisk;
  readonly image: Uint8Array;
  readonly socketPath: string;
  readonly rpcPath: string;
  #backend: Backend | undefined;
  #options: LazyDiskOptions;

  constructor(options: LazyDiskOptions) {
    this.#options = options;
    const { diskBytes, imageBytes, isEncrypted } = options;
    this.files = new MetadataDisk({ diskBytes, imageBytes, isEncrypted });
    this.socketPath = this.files.file("vhost.sock");
    this.rpcPath = this.files.file("rpc.sock");
    this.image = options.image ?? imageOf(options);
    this.files.write("image.raw", this.image);
    this.configure(options);
  }

  /** Writes the configuration anew; files are left as they are. */
  configure(changes: Partial<LazyDiskOptions>): void {
    this.#options = { ...this.#options, ...changes };
    const { isEncrypted, device = "", source = "", sections = "" } = this.#options;
    const { origin = 'type = "raw"\nimage_path = "image.raw"' } = this.#options;
    const lines = [
      `[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"`,
      `vhost_socket = "${this.socketPath}"\nrpc_socket = "rpc.sock"\n${device}`,
      source === "none" ? "" : `[stripe_source]\n${origin}\n${source}`,
      isEncrypted ? `[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.file = "key"` : "",
      "[danger_zone]\nenabled = true",
      `${isEncrypted ? "allow_secret_over_regular_file" : "allow_unencrypted_disk"} = true`,
      sections,
    ];
    this.files.write("disk.toml", `${lines.join("\n")}\n`);
  }

  async init(...flags: readonly string[]): Promise<void> {
    const { exitCode, stderr } = await this.files.run("init-metadata", ...flags);
    expect(stderr).toBe("");
    expect(exitCode).toBe(0);
  }

  /** @param env further variables */
  async start(env: Readonly<Record<string, string>> = {}): Promise<Backend> {
    this.#backend = await startBackend({
      command: [EXECUTABLE, "vhost", "--config", "disk.toml"],
      socketPath: this.socketPath,
      logPath: this.files.file("log"),
      env: { ...process.env, UBIBLK_LOG: "info", ...env },
      cwd: this.files.folder,
    });
    return this.#backend;
  }

  async stop(): Promise<void> {
    expect(await this.#backend?.stop()).toBe(0);
    this.#backend = undefined;
  }

  status(): Promise<LazyStatus> {
    return ask(this.rpcPath, "status") as Promise<LazyStatus>; // the test checks what it uses
  }

  /** One request line with members; its answer. */
  async command(members: Readonly<Record<string, unknown>>): Promise<unknown> {
    return JSON.parse(await converse(this.rpcPath, `${JSON.stringify(members)}\n`));
  }

  /** Waits until the status is as wanted. @throws Error after a minute */
  async until(condition: (status: LazyStatus) => boolean): Promise<LazyStatus> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const status = await this.status();
      if (condition(status)) {
        return status;
      }
      if (performance.now() > deadline) {
        throw new Error(`not reached: ${JSON.stringify(status)}\n${this.#backend?.log()}`);
      }
      await Bun.sleep(20);
    }
  }

  /** Waits until all is fetched; what was given up is asked for again, as a person would. */
  async untilFetched(waitMs: number): Promise<void> {
    const isFetched = async () => {
      const { status } = await this.status();
      if (status.fetch !== undefined && status.fetch.failed !== 0) {
        await this.command({ command: "retry_failed" });
      }
      return status.stripes.fetched === status.stripes.source;
    };
    await until("all stripes are fetched", isFetched, waitMs);
  }

  /** The disk in the clear, as the tools see it. */
  async plainBytes(): Promise<Uint8Array> {
    if (!this.#options.isEncrypted) {
      return readFileSync(this.files.file("disk.raw"));
    }
    const { exitCode } = await this.files.run("xts", "disk.raw", "plain.raw");
    expect(exitCode).toBe(0);
    return readFileSync(this.files.file("plain.raw"));
  }

  /** What the guest sees before it wrote anything. */
  expected(): Uint8Array {
    const bytes = new Uint8Array(this.#options.diskBytes);
    bytes.set(this.image);
    return bytes;
  }

  moveImage(): void {
    renameSync(this.files.file("image.raw"), this.files.file("moved.raw"));
  }

  /** Bytes that the disk takes on its file system. */
  takenBytes(): number {
    return statSync(this.files.file("disk.raw")).blocks * 512;
  }

  /** Overwrites the disk's file without its user's knowledge. */
  soil(value: number): void {
    const fd = openSync(this.files.file("disk.raw"), "r+");
    writeSync(fd, new Uint8Array(this.#options.diskBytes).fill(value), 0);
    closeSync(fd);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend?.stop();
    this.files[Symbol.dispose]();
  }
}

export interface LazyStatus {
  readonly status: {
    readonly fetch?: Readonly<Record<string, unknown>>;
    readonly stripes: { readonly fetched: number; readonly source: number; readonly total: number };
  };
}

/** Says where bytes differ, instead of showing megabytes. */
export function expectSame(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length);
  if (Buffer.compare(actual, expected) !== 0) {
    const at = actual.findIndex((byte, i) => byte !== expected[i]);
    const [is, wanted] = [actual[at], expected[at]];
    throw new Error(`byte ${at} (stripe ${Math.floor(at / MIB)}) is ${is}, not ${wanted}`);
  }
}

/** A guest with one request at a time. */
export class LazyGuest implements Disposable {
  readonly client: HostileClient;

  /** @param disk any that listens at vhost.sock in its folder */
  constructor(disk: { readonly files: { readonly folder: string } }) {
    this.client = HostileClient.attach(join(disk.files.folder, "vhost.sock"));
  }

  read(offset: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    for (let done = 0; done < lengthBytes; done += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, lengthBytes - done);
      this.#request(REQUEST_TYPE.IN, offset + done, { address: at(DATA), length, flags: WRITE });
      bytes.set(this.client.bytes.subarray(DATA, DATA + length), done);
    }
    return bytes;
  }

  /** The status of a read of one sector. */
  statusOf(offset: number): number {
    const { client } = this;
    const data = { address: at(DATA), length: 512, flags: WRITE };
    client.submit([client.header(0, REQUEST_TYPE.IN, offset / 512), data, client.statusByte(0)]);
    return client.status(0);
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; done += PIECE_BYTES) {
      const part = bytes.subarray(done, done + PIECE_BYTES);
      this.client.bytes.set(part, DATA);
      const data = { address: at(DATA), length: part.length, flags: 0 };
      this.#request(REQUEST_TYPE.OUT, offset + done, data);
    }
  }

  /** The status of a write of one piece. */
  statusOfWrite(offset: number, bytes: Uint8Array): number {
    const { client } = this;
    client.bytes.set(bytes, DATA);
    const data = { address: at(DATA), length: bytes.length, flags: 0 };
    const header = client.header(0, REQUEST_TYPE.OUT, offset / 512);
    client.submit([header, data, client.statusByte(0)]);
    return client.status(0);
  }

  flush(): void {
    this.#request(REQUEST_TYPE.FLUSH, 0);
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
  }

  // --- internal ---

  #request(type: number, offset: number, data?: Parameters<HostileClient["setDescriptor"]>[1]) {
    const { client } = this;
    client.submit([
      client.header(0, type, offset / 512),
      ...(data === undefined ? [] : [data]),
      client.statusByte(0),
    ]);
    expect(client.status(0)).toBe(0);
  }
}

// --- internal ---

function imageOf({ imageBytes, zeroStripes = [] }: LazyDiskOptions): Uint8Array {
  const image = Uint8Array.from({ length: imageBytes }, (_, offset) => byteAt(offset));
  for (const stripe of zeroStripes) {
    image.fill(0, stripe * MIB, (stripe + 1) * MIB);
  }
  return image;
}
