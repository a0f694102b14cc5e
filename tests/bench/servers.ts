/**
 * Who takes part: our executable and qemu-storage-daemon, each serving an encrypted, a plain and an
 * empty disk; and two that use the file directly, our own floor and fio. All of them use one data file,
 * O_DIRECT; only LUKS, which has a header, has an image of its own.
 */
import { existsSync, mkdirSync, statSync, unlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { outputOf, runCommand } from "../../scripts/command.ts";
import { type Backend, startBackend, startUbiblk, writeDiskConfig } from "../support/backend.ts";

const ROOT = resolve(import.meta.dir, "..", "..");
const FOLDER = join(ROOT, "build", "bench");
const SOCKET = join(FOLDER, "peer.sock");
const LUKS_SECRET = "secret,id=s0,data=benchmark";
const MIB = 1024 * 1024;

export type ServerName =
  | "ubiblk encrypted"
  | "ubiblk plain"
  | "ubiblk null"
  | "qsd luks"
  | "qsd raw"
  | "qsd null-co";

export interface DataFiles {
  readonly plainPath: string;
  readonly luksPath: string;
  readonly floorPath: string;
  readonly sizeBytes: number;
}

/** Where the files are; `prepareFiles` makes them. */
export function dataFiles(sizeMib: number): DataFiles {
  return {
    plainPath: join(FOLDER, "disk.img"),
    luksPath: join(FOLDER, "luks.img"),
    floorPath: join(FOLDER, "floor"),
    sizeBytes: sizeMib * MIB,
  };
}

/**
 * Makes what is missing: data files written from end to end and read once (the disk of a virtual machine
 * is fast only where it has been read), and the floor's program.
 */
export async function prepareFiles(files: DataFiles): Promise<void> {
  mkdirSync(FOLDER, { recursive: true });
  const sizeMib = files.sizeBytes / MIB;
  const source = join(import.meta.dir, "floor.c");
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", files.floorPath];
  await outputOf(["gcc", ...flags, source, "-luring"]);
  if (!existsSync(files.plainPath) || statSync(files.plainPath).size !== files.sizeBytes) {
    await writeThrough(files.plainPath, sizeMib);
  }
  if (!existsSync(files.luksPath) || statSync(files.luksPath).size < files.sizeBytes) {
    await createLuks(files.luksPath, sizeMib);
  }
  for (const path of [files.plainPath, files.luksPath]) {
    await outputOf(["dd", `if=${path}`, "of=/dev/null", "bs=1M", "iflag=direct"]);
  }
}

/** Starts a server; it is ended by the caller. */
export function startServer(name: ServerName, files: DataFiles): Promise<Backend> {
  switch (name) {
    case "ubiblk encrypted":
      return startUbiblk(diskConfig(files, "encrypted"));
    case "ubiblk plain":
      return startUbiblk(diskConfig(files, "plain"));
    case "ubiblk null":
      return startUbiblk(diskConfig(files, "plain"), "--null-disk");
    case "qsd luks": {
      const file = `file.driver=file,file.filename=${files.luksPath},${direct("file.")}`;
      return startDaemon([
        ...["--object", LUKS_SECRET],
        ...["--blockdev", `driver=luks,node-name=disk,key-secret=s0,${file}`],
      ]);
    }
    case "qsd raw":
      return startDaemon([
        "--blockdev",
        `driver=file,node-name=disk,filename=${files.plainPath},${direct("")}`,
      ]);
    case "qsd null-co":
      return startDaemon([
        "--blockdev",
        `driver=null-co,node-name=disk,size=${files.sizeBytes},read-zeroes=off`,
      ]);
  }
}

// --- internal ---

function direct(prefix: string): string {
  return `${prefix}cache.direct=on,${prefix}aio=io_uring`;
}

function diskConfig(files: DataFiles, kind: "encrypted" | "plain") {
  return writeDiskConfig({
    folder: join(FOLDER, kind),
    isEncrypted: kind === "encrypted",
    dataPath: files.plainPath,
  });
}

function startDaemon(node: readonly string[]): Promise<Backend> {
  const options = "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=1";
  const address = `addr.type=unix,addr.path=${SOCKET}`;
  return startBackend({
    command: ["qemu-storage-daemon", ...node, "--export", `${options},${address}`],
    socketPath: SOCKET,
    logPath: join(FOLDER, "peer.log"),
  });
}

async function writeThrough(path: string, sizeMib: number): Promise<void> {
  const target = [`of=${path}`, "bs=1M", `count=${sizeMib}`, "oflag=direct", "conv=fsync"];
  await outputOf(["dd", "if=/dev/urandom", ...target], { timeoutMs: 600_000 });
}

/** Creating one times its key derivation, which at such a short time may fail: it is tried again. */
async function createLuks(path: string, sizeMib: number): Promise<void> {
  const cipher = "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,iter-time=10";
  const options = `key-secret=s0,${cipher},preallocation=full`;
  const command = ["qemu-img", "create", "-q", "-f", "luks", "--object", LUKS_SECRET];
  for (let triesLeft = 20; ; triesLeft--) {
    const result = await runCommand([...command, "-o", options, path, `${sizeMib}M`], {
      timeoutMs: 600_000,
    });
    if (result.exitCode === 0) {
      return;
    }
    if (existsSync(path)) {
      unlinkSync(path);
    }
    if (triesLeft === 1) {
      throw new Error(`qemu-img create: ${result.stderr.trim()}`);
    }
  }
}
