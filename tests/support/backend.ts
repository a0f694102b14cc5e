/**
 * Programs that serve a disk over vhost-user-blk: ours, and qemu-storage-daemon as a control and a peer.
 * Each is started with a socket, is ready when something listens there, and is ended by its own pid.
 */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

export const EXECUTABLE = resolve(import.meta.dir, "..", "..", "dist", "ubiblk");

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;

export interface BackendCommand {
  readonly command: readonly string[];
  readonly socketPath: string;
  /** What it prints goes here. */
  readonly logPath: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
}

export interface Backend extends AsyncDisposable {
  readonly pid: number;
  readonly socketPath: string;
  /** From the start of the process to a listening socket. */
  readonly startMs: number;
  log(): string;
  isRunning(): boolean;
  /** Asks it to end and waits: its exit code, or 128 + signal. SIGKILL after 15 s. */
  stop(): Promise<number>;
}

/** Starts a backend and waits until it listens. @throws Error with its log when it does not */
export async function startBackend(options: BackendCommand): Promise<Backend> {
  const beginMs = performance.now();
  const before = listenersAt(options.socketPath);
  const logFd = openSync(options.logPath, "w");
  const child = Bun.spawn([...options.command], {
    stdin: "ignore",
    stdout: logFd,
    stderr: logFd,
    // Its log is looked at, however little the tests in this process want to see of theirs.
    env: options.env ?? { ...process.env, UBIBLK_LOG: undefined },
    cwd: options.cwd ?? process.cwd(),
  });
  closeSync(logFd);
  const log = () => readFileSync(options.logPath, "utf8");
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  const stop = async () => {
    if (isRunning()) {
      child.kill("SIGTERM");
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    try {
      return await child.exited;
    } finally {
      clearTimeout(timer);
    }
  };
  while (listenersAt(options.socketPath).every((inode) => before.includes(inode))) {
    if (!isRunning() || performance.now() - beginMs > START_TIMEOUT_MS) {
      await stop();
      throw new Error(`${options.command.join(" ")} does not listen:\n${log()}`);
    }
    await Bun.sleep(2);
  }
  const startMs = performance.now() - beginMs;
  return {
    pid: child.pid,
    socketPath: options.socketPath,
    startMs,
    log,
    isRunning,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}

/** A config for `ubiblk vhost`, in a folder of its own. */
export interface DiskOptions {
  readonly folder: string;
  readonly isEncrypted: boolean;
  /** Left out: disk.img in that folder. */
  readonly dataPath?: string;
  /** Further TOML, such as a `[tuning]` section. */
  readonly moreConfig?: string;
}

export interface DiskFiles {
  readonly dataPath: string;
  readonly socketPath: string;
  readonly configPath: string;
}

/** Writes the config, and the key beside it. Making the data file is the caller's. */
export function writeDiskConfig(options: DiskOptions): DiskFiles {
  mkdirSync(options.folder, { recursive: true });
  const files: DiskFiles = {
    dataPath: options.dataPath ?? join(options.folder, "disk.img"),
    socketPath: join(options.folder, "vhost.sock"),
    configPath: join(options.folder, "disk.toml"),
  };
  const device = `[device]\ndata_path = "${files.dataPath}"\nvhost_socket = "vhost.sock"\n`;
  const permission = options.isEncrypted
    ? "allow_secret_over_regular_file"
    : "allow_unencrypted_disk";
  const danger = `[danger_zone]\nenabled = true\n${permission} = true\n`;
  const encryption = `[encryption]\nxts_key.ref = "disk"\n[secrets.disk]\nsource.file = "key"\n`;
  const parts = [device, options.moreConfig ?? "", danger, options.isEncrypted ? encryption : ""];
  writeFileSync(files.configPath, parts.join("\n"), { mode: 0o600 });
  if (options.isEncrypted) {
    const key = crypto.getRandomValues(new Uint8Array(64));
    writeFileSync(join(options.folder, "key"), key, { mode: 0o600 });
  }
  return files;
}

/** Serves a disk made by `writeDiskConfig` with the compiled executable. */
export function startUbiblk(files: DiskFiles, ...flags: readonly string[]): Promise<Backend> {
  return startBackend({
    command: [EXECUTABLE, "vhost", "--config", files.configPath, ...flags],
    socketPath: files.socketPath,
    logPath: `${files.configPath}.log`,
  });
}

/** Serves the same file, as it is, with qemu-storage-daemon. */
export function startStorageDaemon(files: DiskFiles, queueCount: number): Promise<Backend> {
  const address = `addr.type=unix,addr.path=${files.socketPath}`;
  const options = `type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=${queueCount}`;
  return startBackend({
    command: ["qemu-storage-daemon", ...rawNode(files), "--export", `${options},${address}`],
    socketPath: files.socketPath,
    logPath: `${files.configPath}.log`,
  });
}

// --- internal ---

function rawNode(files: DiskFiles): readonly string[] {
  const options = "cache.direct=on,aio=io_uring,discard=unmap,detect-zeroes=unmap";
  return ["--blockdev", `driver=file,node-name=disk,filename=${files.dataPath},${options}`];
}

/**
 * Inodes of the sockets that accept connections at a path: more than one while a process that was killed is still being
 * taken apart. Looks without connecting: a client's visit would be seen by the backend.
 */
export function listenersAt(socketPath: string): readonly string[] {
  const acceptsConnections = "00010000";
  return readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .filter((line) => line.endsWith(` ${socketPath}`))
    .map((line) => line.trim().split(/ +/))
    .filter((columns) => columns[3] === acceptsConnections)
    .map((columns) => columns[6] ?? "");
}
