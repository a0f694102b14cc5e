/**
 * A disk whose program can be exchanged: served by a symbolic link in a folder of its own, and by whatever lies there
 * when it is upgraded.
 */
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Backend, EXECUTABLE, startBackend } from "./backend.ts";
import { converse } from "./rpc-client.ts";
import { until } from "./until.ts";

export interface UpgradableOptions {
  readonly diskBytes: number;
  /** A key of the disk, which comes once, through a pipe. */
  readonly isEncrypted?: boolean;
  /** Further lines of `[device]`, and sections behind it. */
  readonly device?: string;
  readonly sections?: string;
}

interface UpgradeAnswer {
  readonly upgrade?: { readonly pid: number; readonly version: string; readonly pause_ms: number };
  readonly code?: string;
  readonly error?: string;
}

export class UpgradableDisk implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-upgrade-"));
  readonly socketPath = this.file("vhost.sock");
  readonly rpcPath = this.file("rpc.sock");
  readonly #options: UpgradableOptions;
  readonly key = crypto.getRandomValues(new Uint8Array(64));
  #backend: Backend | undefined;
  /** Of the process that serves now. */
  pid = 0;

  constructor(options: UpgradableOptions) {
    this.#options = options;
    writeFileSync(this.file("disk.raw"), "", { mode: 0o600 });
    truncateSync(this.file("disk.raw"), options.diskBytes);
    this.install();
    this.configure();
    if (options.isEncrypted === true) {
      Bun.spawnSync(["mkfifo", "-m", "600", this.file("key")]);
    }
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /** Writes the configuration, with changes of some of its lines. */
  configure(change: (text: string) => string = (text) => text): void {
    const { isEncrypted = false, device = "", sections = "" } = this.#options;
    const key = `[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.file = "key"`;
    const danger = "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true";
    const text = [
      `[device]\ndata_path = "disk.raw"\nvhost_socket = "${this.socketPath}"`,
      `rpc_socket = "rpc.sock"\n${device}`,
      isEncrypted ? key : danger,
      sections,
    ].join("\n");
    writeFileSync(this.file("disk.toml"), `${change(text)}\n`, { mode: 0o600 });
  }

  /** Puts the executable, or a script of the shell, in the place of the program. */
  install(script?: string): void {
    const path = this.file("ubiblk");
    rmSync(path, { force: true });
    if (script === undefined) {
      symlinkSync(EXECUTABLE, path);
    } else {
      writeFileSync(path, `#!/bin/sh\n${script}\n`);
      chmodSync(path, 0o755);
    }
  }

  async start(env: Readonly<Record<string, string>> = {}): Promise<Backend> {
    if (this.#options.isEncrypted === true) {
      // Waits for its reader.
      Bun.spawn(["sh", "-c", 'cat > "$0"', this.file("key")], { stdin: this.key });
    }
    this.#backend = await startBackend({
      command: [this.file("ubiblk"), "vhost", "--config", "disk.toml"],
      socketPath: this.socketPath,
      logPath: this.file("log"),
      env: { ...process.env, UBIBLK_LOG: "info", ...env },
      cwd: this.folder,
    });
    this.pid = this.#backend.pid;
    return this.#backend;
  }

  /** Another process serves it from here on. */
  adopt(pid: number): void {
    this.pid = pid;
  }

  log(): string {
    return readFileSync(this.file("log"), "utf8");
  }

  command(members: Readonly<Record<string, unknown>>): Promise<unknown> {
    return converse(this.rpcPath, `${JSON.stringify(members)}\n`).then((text) => JSON.parse(text));
  }

  /** Asks for an upgrade; what the answer is. */
  async upgrade(members: Readonly<Record<string, unknown>> = {}): Promise<UpgradeAnswer> {
    const answer = (await this.command({ command: "upgrade", ...members })) as UpgradeAnswer; // the test looks at it
    this.pid = answer.upgrade?.pid ?? this.pid;
    return answer;
  }

  /** What the process that serves has open, in order: paths, and kinds of all else. */
  openFiles(): readonly string[] {
    const folder = `/proc/${this.pid}/fd`;
    return readdirSync(folder)
      .map((fd) => linkOf(join(folder, fd)).replace(/\d{3,}/, "N"))
      .filter((link) => link !== "")
      .sort();
  }

  /** Until it has the same open as once before: a connection that has ended is closed a moment later. */
  async untilOpen(files: readonly string[]): Promise<void> {
    const wanted = files.join("\n");
    await until(`open:\n${wanted}`, () => this.openFiles().join("\n") === wanted);
  }

  /** Ends whoever serves, as a service manager does. */
  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }

  // --- internal ---

  async #end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    if (this.pid !== 0 && isRunning(this.pid)) {
      process.kill(this.pid, signal);
    }
    await this.#backend?.stop();
    await until("the process has ended", () => this.pid === 0 || !isRunning(this.pid));
    this.#backend = undefined;
    this.pid = 0;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed meanwhile
  }
}

/** A process that nobody has waited for counts as ended, once all its threads have: until then they hold what it had open. */
export function isRunning(pid: number): boolean {
  try {
    const state = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.charAt(0);
    return (state !== "Z" && state !== "X") || readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}
