/**
 * Folders in which every command of the executable works, each a copy of one that is made once: a disk with metadata
 * and image, its archive, keys, documents of each kind. Then something in it is spoiled.
 *
 *   disk.toml -> disk.raw, meta, key, image.raw          target.toml -> archive2/, kek
 *   archive.toml -> archive/, kek                        server.toml -> stripes.sock
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, outputOf } from "../../scripts/command.ts";
import { EXECUTABLE } from "./backend.ts";
import { SeededRandom } from "./random.ts";

/** What can stand in the place of a file. */
export const SPOILINGS = [
  "missing",
  "folder",
  "unreadable",
  "empty",
  "socket",
  "pipe",
  "endless",
  "garbage",
] as const;
export type Spoiling = (typeof SPOILINGS)[number];

const DISK_BYTES = 256 * 1024;
const NOBODY = 65_534;
const LIMIT_MS = 20_000;
/** Longer than what documents here give the writer of a pipe. */
const PATIENCE_MS = 600;

const DANGER =
  "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\nallow_unencrypted_connection = true\n";
const secret = (name: string, file: string) =>
  `[secrets.${name}]\nsource.file = "${file}"\npipe_timeout_ms = 200\n`;
const DOCUMENTS: Readonly<Record<string, string>> = {
  "disk.toml":
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\nvhost_socket = "vhost.sock"\nrpc_socket = "rpc.sock"\n' +
    `[stripe_source]\ntype = "raw"\nimage_path = "image.raw"\n` +
    `[encryption]\nxts_key.ref = "key"\n${secret("key", "key")}${DANGER}`,
  "scrub.toml":
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\ntrack_written = true\n' +
    '[stripe_source]\ntype = "archive"\nstorage = "filesystem"\npath = "archive"\narchive_kek.ref = "kek"\n' +
    secret("kek", "kek") +
    `[encryption]\nxts_key.ref = "key"\n${secret("key", "key")}${DANGER}`,
  "target.toml": `[target]\nstorage = "filesystem"\npath = "archive2"\narchive_kek.ref = "kek"\n${secret("kek", "kek")}${DANGER}`,
  "archive.toml": `[archive]\nstorage = "filesystem"\npath = "archive"\narchive_kek.ref = "kek"\n${secret("kek", "kek")}${DANGER}`,
  "new-target.toml": `[target]\nstorage = "filesystem"\npath = "archive"\narchive_kek.ref = "kek2"\n${secret("kek2", "kek2")}${DANGER}`,
  "server.toml": '[server]\nunix_socket = "stripes.sock"\noperation_attempt_timeout_ms = 500\n',
  // Their outputs go to another folder.
  "full-disk.toml":
    `[device]\ndata_path = "disk.raw"\nmetadata_path = "full/meta"\n` +
    `[encryption]\nxts_key.ref = "key"\n${secret("key", "key")}${DANGER}`,
  "full-target.toml": `[target]\nstorage = "filesystem"\npath = "full"\narchive_kek.ref = "kek"\n${secret("kek", "kek")}${DANGER}`,
};

/** Makes copies of the folder, which are gone when it is. */
export class SpoilableFolder implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "ubiblk-bad-"));
  /** Where every user may run it. */
  readonly executable = join(this.#folder, "ubiblk");
  #copies = 0;

  static async make(): Promise<SpoilableFolder> {
    const made = new SpoilableFolder();
    chmodSync(made.#folder, 0o755);
    await outputOf(["cp", "--reflink=auto", EXECUTABLE, made.executable]);
    mkdirSync(made.#template);
    const write = (name: string, content: string | Uint8Array) =>
      writeFileSync(join(made.#template, name), content, { mode: 0o600 });
    const random = new SeededRandom(7);
    const bytes = (count: number) => Uint8Array.from({ length: count }, () => random.below(256));
    for (const [name, count] of Object.entries({ key: 64, kek: 32, kek2: 32 })) {
      write(name, bytes(count));
    }
    for (const [name, text] of Object.entries(DOCUMENTS)) {
      write(name, text);
    }
    write("disk.raw", bytes(DISK_BYTES));
    write("image.raw", bytes(DISK_BYTES));
    write("plain.raw", bytes(DISK_BYTES));
    for (const words of [
      ["init-metadata", "-f", "disk.toml", "-s", "7"],
      ["archive", "-f", "disk.toml", "--target-config", "target.toml", "--encrypt"],
    ]) {
      await outputOf([made.executable, ...words], { cwd: made.#template });
    }
    cpSync(join(made.#template, "archive2"), join(made.#template, "archive"), { recursive: true });
    rmSync(join(made.#template, "archive2"), { recursive: true });
    const envelope = await outputOf(
      ["sh", "-c", '"$0" secret wrap --name key --kek kek < key', made.executable],
      { cwd: made.#template },
    );
    write("envelope", envelope);
    return made;
  }

  get #template(): string {
    return join(this.#folder, "template");
  }

  /** The path of a copy. */
  copy(): string {
    this.#copies += 1;
    const folder = join(this.#folder, `copy-${this.#copies}`);
    cpSync(this.#template, folder, { recursive: true });
    return folder;
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Puts something else in the place of `name`. */
export function spoil(folder: string, name: string, spoiling: Spoiling): void {
  const path = join(folder, name);
  switch (spoiling) {
    case "unreadable":
      giveAway(folder);
      chmodSync(path, 0);
      lchownSync(path, 0, 0);
      return;
    case "empty":
      truncateSync(path, 0);
      return;
    case "garbage":
      writeFileSync(
        path,
        Uint8Array.from({ length: 4096 }, (_, i) => (i * 73 + 41) % 251),
      );
      return;
    case "missing":
      rmSync(path);
      return;
    default:
      rmSync(path);
  }
  switch (spoiling) {
    case "folder":
      mkdirSync(path);
      break;
    case "socket":
      leaveSocket(path);
      break;
    case "pipe":
      Bun.spawnSync(["mkfifo", "-m", "600", path]);
      break;
    case "endless":
      symlinkSync("/dev/zero", path);
      break;
  }
}

export interface RunOptions {
  readonly folder: string;
  readonly isNobody?: boolean;
  /** The name of a file there; nothing otherwise. */
  readonly stdin?: string | undefined;
}

/** How a command ended; `isAsked`: it waited for the writer of a pipe, and was asked to end. */
export interface Ending extends CommandResult {
  readonly isAsked: boolean;
}

/** Runs a command in a folder, with a limit of time. */
export async function runIn(command: readonly string[], options: RunOptions): Promise<Ending> {
  const { folder, isNobody = false, stdin } = options;
  const user = isNobody
    ? ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"]
    : [];
  const beginMs = performance.now();
  const child = Bun.spawn([...user, ...command], {
    cwd: folder,
    stdin: stdin === undefined ? "ignore" : Bun.file(join(folder, stdin)),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, UBIBLK_LOG: undefined },
  });
  let isTimedOut = false;
  const timer = setTimeout(() => {
    isTimedOut = true;
    child.kill("SIGKILL");
  }, LIMIT_MS);
  let stderr = "";
  let asking: Timer | undefined;
  const listen = async () => {
    const decoder = new TextDecoder();
    for await (const bytes of child.stderr) {
      stderr += decoder.decode(bytes, { stream: true });
      if (asking === undefined && stderr.includes("waiting for ")) {
        asking = setTimeout(() => child.kill("SIGTERM"), PATIENCE_MS);
      }
    }
  };
  const [stdout, , exitCode] = await Promise.all([child.stdout.text(), listen(), child.exited]);
  clearTimeout(timer);
  clearTimeout(asking);
  const durationMs = performance.now() - beginMs;
  const isAsked = child.signalCode === "SIGTERM" || stderr.includes("E_INTERRUPTED");
  return { exitCode, stdout, stderr, durationMs, isTimedOut, isAsked };
}

/** Everything below a folder, one line each: name, kind, mode, size and content. */
export function listing(folder: string, inside = ""): readonly string[] {
  return readdirSync(join(folder, inside))
    .sort()
    .flatMap((name) => {
      const path = join(inside, name);
      const stats = lstatSync(join(folder, path));
      const line = `${path} ${stats.mode.toString(8)} ${stats.isDirectory() ? "" : stats.size}`;
      if (stats.isDirectory()) {
        return [line, ...listing(folder, path)];
      }
      const digest = stats.isFile() ? digestOf(join(folder, path)) : "";
      return [`${line} ${digest}`];
    });
}

// --- internal ---

function digestOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 16);
}

/** The socket file of a process that was killed. */
function leaveSocket(path: string): void {
  const listen = `require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`;
  Bun.spawnSync([process.execPath, "-e", listen, path]);
}

/** The folder and all below it belong to another user. */
export function giveAway(path: string): void {
  lchownSync(path, NOBODY, NOBODY);
  if (lstatSync(path).isDirectory()) {
    for (const name of readdirSync(path)) {
      giveAway(join(path, name));
    }
  }
}
