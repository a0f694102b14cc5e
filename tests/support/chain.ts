/**
 * Disks in a row, each filled from the one before: folders, documents and programs of one chain. All is run by the
 * compiled executable, as a user runs it.
 *
 *   image --raw--> disk a --archive--> objects --archive source--> disk b --stripe-server--> disk c
 */
import { expect } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { type Backend, EXECUTABLE, startBackend } from "./backend.ts";
import { ask, converse } from "./rpc-client.ts";

const TIMEOUT_MS = 120_000;
const LOOK_MS = 20;
const IDENTITY = "chain";

export interface ChainDiskOptions {
  readonly name: string;
  readonly sizeBytes: number;
  readonly stripeShift: number;
  readonly isEncrypted: boolean;
  readonly isWrittenTracked: boolean;
  /** Lines of `[stripe_source]`. */
  readonly source: string;
}

/** What an archive of a chain is like. */
export interface ChainArchive {
  readonly isEncrypted: boolean;
  readonly compression: "none" | "zstd";
  /** Lines that say where: `storage` and what goes with it. */
  readonly store: string;
}

export class Chain implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-chain-"));
  readonly #servers: AsyncDisposable[] = [];

  constructor() {
    for (const [name, bytes] of Object.entries({ kek: 32, psk: 32 })) {
      this.write(name, crypto.getRandomValues(new Uint8Array(bytes)));
    }
    for (const name of ["id", "password"]) {
      this.write(name, "of a store that needs none");
    }
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  write(name: string, content: string | Uint8Array): string {
    writeFileSync(this.file(name), content, { mode: 0o600 });
    return this.file(name);
  }

  /** Makes the files of a disk and its metadata. */
  async makeDisk(options: ChainDiskOptions): Promise<ChainDisk> {
    mkdirSync(this.file(options.name));
    const disk = new ChainDisk(this, options);
    const shift = ["-s", `${options.stripeShift}`];
    await this.run("init-metadata", "-f", disk.configPath, ...shift);
    return disk;
  }

  /** `[stripe_source]` of a disk that is filled from an archive. */
  archiveSource({ store }: ChainArchive): string {
    return `type = "archive"\n${store}\narchive_kek.ref = "kek"`;
  }

  async archive(disk: ChainDisk, archive: ChainArchive, ...flags: readonly string[]) {
    const target = this.#archiveDocument("target", archive);
    const files = ["-f", disk.configPath, "--target-config", target];
    const encrypt = archive.isEncrypted ? ["--encrypt"] : [];
    const compress = ["--compression", archive.compression];
    return await this.run("archive", ...files, ...encrypt, ...compress, "--quiet", ...flags);
  }

  /** The archive as a raw image. */
  async exported(archive: ChainArchive): Promise<Uint8Array> {
    const target = this.file("exported.raw");
    rmSync(target, { force: true });
    const source = this.#archiveDocument("archive", archive);
    await this.run("export-archive", "--source", source, "--target", target, "--quiet");
    return readFileSync(target);
  }

  /** Serves a disk over TLS-PSK. Returns `[stripe_source]` for its clients. */
  async serve(disk: ChainDisk): Promise<string> {
    const psk = `psk = { identity = "${IDENTITY}", secret.ref = "psk" }`;
    const listen = this.write(
      "listen.toml",
      `[server]\naddress = "127.0.0.1:0"\n${psk}\n${this.sections(["psk"])}`,
    );
    const logPath = this.file("server.log");
    const logFd = openSync(logPath, "w");
    const child = Bun.spawn(
      [EXECUTABLE, "stripe-server", "-f", disk.configPath, "--listen-config", listen],
      { stdin: "ignore", stdout: logFd, stderr: logFd, env: ENVIRONMENT },
    );
    this.#servers.push({
      [Symbol.asyncDispose]: async () => {
        child.kill("SIGTERM");
        expect(await child.exited).toBe(0);
      },
    });
    for (;;) {
      const text = readFileSync(logPath, "utf8");
      const address = /listening on (\S+:\d+)/.exec(text)?.[1];
      if (address !== undefined) {
        return `type = "remote"\naddress = "${address}"\nconnections = 4\n${psk}`;
      }
      expect(child.exitCode === null ? "" : text).toBe("");
      await Bun.sleep(LOOK_MS);
    }
  }

  /** Ends the servers, each of which must end well. */
  async stopServers(): Promise<void> {
    for (const server of this.#servers.splice(0)) {
      await server[Symbol.asyncDispose]();
    }
  }

  /** Must succeed. */
  async run(...command: readonly string[]): Promise<CommandResult> {
    const result = await this.attempt(...command);
    expect(result.exitCode === 0 ? "" : `${command.join(" ")}: ${result.stderr}`).toBe("");
    return result;
  }

  attempt(...command: readonly string[]): Promise<CommandResult> {
    const options = { cwd: this.folder, timeoutMs: TIMEOUT_MS, env: ENVIRONMENT };
    return runCommand([EXECUTABLE, ...command], options);
  }

  /** The secrets with these names, and permission for all that a test does. */
  sections(secrets: readonly string[]): string {
    const tables = secrets.map((name) => `[secrets.${name}]\nsource.file = "${this.file(name)}"\n`);
    const flags = ["enabled", ...DANGERS].map((flag) => `${flag} = true\n`);
    return `${tables.join("")}[danger_zone]\n${flags.join("")}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers.splice(0)) {
      await server[Symbol.asyncDispose]();
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  // --- internal ---

  #archiveDocument(section: "target" | "archive", { store }: ChainArchive): string {
    const danger = section === "target" ? "allow_plain_archive = true\n" : "";
    const text = `[${section}]\n${store}\narchive_kek.ref = "kek"\n`;
    return this.write(`${section}.toml`, `${text}${this.sections(STORE_SECRETS)}${danger}`);
  }
}

/** Names of secrets that a document about an archive may use. */
const STORE_SECRETS = ["kek", "id", "password"];
const DANGERS = ["allow_secret_over_regular_file", "allow_unencrypted_disk"];
const ENVIRONMENT = { ...process.env, UBIBLK_LOG: "info" };

export class ChainDisk {
  readonly configPath: string;
  readonly socketPath: string;
  readonly dataPath: string;
  readonly #chain: Chain;
  readonly #options: ChainDiskOptions;
  #backend: Backend | undefined;

  constructor(chain: Chain, options: ChainDiskOptions) {
    this.#chain = chain;
    this.#options = options;
    const { name, sizeBytes, isEncrypted, isWrittenTracked, source } = options;
    this.dataPath = chain.write(`${name}/disk.raw`, "");
    truncateSync(this.dataPath, sizeBytes);
    this.socketPath = chain.file(`${name}/vhost.sock`);
    chain.write(`${name}/key`, crypto.getRandomValues(new Uint8Array(64)));
    const key = `[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.file = "key"\n`;
    const lines = [
      `[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"`,
      `vhost_socket = "${this.socketPath}"\nrpc_socket = "rpc.sock"`,
      `track_written = ${isWrittenTracked}`,
      `[stripe_source]\n${source}`,
      isEncrypted ? key : "",
      chain.sections(["kek", "psk", "id", "password"]),
    ];
    this.configPath = chain.write(`${name}/disk.toml`, lines.join("\n"));
  }

  get sizeBytes(): number {
    return this.#options.sizeBytes;
  }

  /** What clients of `tests/support` want to know of a disk. */
  get files(): { readonly folder: string } {
    return { folder: this.#chain.file(this.#options.name) };
  }

  async start(): Promise<void> {
    this.#backend = await startBackend({
      command: [EXECUTABLE, "vhost", "--config", this.configPath],
      socketPath: this.socketPath,
      logPath: `${this.configPath}.log`,
      env: ENVIRONMENT,
    });
  }

  async stop(): Promise<void> {
    const code = await this.#backend?.stop();
    expect(code === 0 ? "" : `${code}: ${this.#backend?.log()}`).toBe("");
    this.#backend = undefined;
  }

  /** Stripes of the source that are there. */
  async fetched(): Promise<number> {
    return (await this.#status()).stripes.fetched;
  }

  /** One request line with members; its answer. */
  async command(members: Readonly<Record<string, unknown>>): Promise<unknown> {
    return JSON.parse(await converse(this.#rpcPath, `${JSON.stringify(members)}\n`));
  }

  /** Waits until every stripe of the source is there. */
  async untilFetched(): Promise<void> {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    for (;;) {
      const { stripes, fetch } = await this.#status();
      if (stripes.fetched === stripes.source) {
        return;
      }
      const { failed = 0 } = fetch ?? {};
      expect(failed === 0 ? "" : this.#backend?.log()).toBe("");
      expect(performance.now()).toBeLessThan(deadlineMs);
      await Bun.sleep(LOOK_MS);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend?.stop();
    this.#backend = undefined;
  }

  // --- internal ---

  get #rpcPath(): string {
    return join(this.files.folder, "rpc.sock");
  }

  async #status(): Promise<FetchStatus["status"]> {
    const { status } = (await ask(this.#rpcPath, "status")) as FetchStatus; // the tests check what they use
    return status;
  }
}

interface FetchStatus {
  readonly status: {
    readonly stripes: { readonly fetched: number; readonly source: number };
    readonly fetch?: { readonly failed?: number };
  };
}
