/**
 * A file that stops answering when it is told to: its file system is a program of ours, which can be halted. Needs
 * root and FUSE (fuse.h of the kernel, version 7.31).
 *
 *     read(path) -> kernel -> /dev/fuse -> this file as a program -> the real file
 *                                          ^ SIGSTOP: reads wait, SIGCONT: they go on
 *
 * The mount has one file and no folder: its root is the file itself. Writes can be held back, as by a disk that takes
 * them long after whoever asked for them is gone. Syncs are counted, and what asks for them goes to no medium.
 */
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";

const CAP_SYS_ADMIN = 21n;

/** A reason why there is no such file here, or undefined. */
export function missingFuse(): string | undefined {
  const capabilities = /^CapEff:\s*(\w+)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1];
  if (process.getuid?.() !== 0 || ((BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN) & 1n) === 0n) {
    return "a mount needs root";
  }
  if (!/\tfuse$/m.test(readFileSync("/proc/filesystems", "utf8"))) {
    return "the kernel has no FUSE";
  }
  try {
    closeSync(openSync("/dev/fuse", "r+"));
    return undefined;
  } catch (error) {
    return `FUSE cannot be opened: ${error instanceof Error ? error.message : error}`;
  }
}

export class FuseImage implements AsyncDisposable {
  readonly #path: string;
  readonly #holdPath: string;
  readonly #syncsPath: string;
  readonly #server: Bun.Subprocess;

  /**
   * `path` shows what `imagePath` holds, or only its size and EIO to who reads it.
   * @throws Error when the system refuses
   */
  constructor(imagePath: string, path: string, { failsReads = false } = {}) {
    this.#path = path;
    this.#holdPath = `${imagePath}.hold`;
    this.#syncsPath = `${imagePath}.syncs`;
    writeFileSync(this.#syncsPath, "");
    writeFileSync(path, "");
    const fd = openSync("/dev/fuse", "r+");
    const own = `fd=3,rootmode=100000,user_id=0,group_id=0,allow_other`;
    run(["mount", "-i", "-t", "fuse", "-o", own, "test-image", path], fd);
    const what = [imagePath, failsReads ? FAILING : "", this.#holdPath, this.#syncsPath];
    this.#server = Bun.spawn([process.execPath, import.meta.path, ...what], {
      stdio: ["ignore", "inherit", "inherit", fd],
    });
    closeSync(fd);
  }

  /** How often it was asked to make durable what was written: by a flush, or by a write that is to be durable. */
  get syncs(): number {
    return statSync(this.#syncsPath).size;
  }

  /** From here on writes are taken and neither done nor answered. */
  holdWrites(): void {
    writeFileSync(this.#holdPath, "");
  }

  /** How many are held. */
  get heldWrites(): number {
    return statSync(this.#holdPath).size;
  }

  /** They are done now, in the order in which they came. */
  releaseWrites(): void {
    rmSync(this.#holdPath);
    statfsSync(this.#path); // a request, at which the program looks
  }

  /**
   * Returns when the program stands still. Before that it might take one more request, and a process that waits for
   * the answer to one that was taken cannot be ended by anything.
   */
  halt(): void {
    this.#server.kill("SIGSTOP");
    while (!/\) [TtZ] /.test(readFileSync(`/proc/${this.#server.pid}/stat`, "latin1"))) {
      Bun.sleepSync(1);
    }
  }

  goOn(): void {
    this.#server.kill("SIGCONT");
  }

  /** With the program goes the connection: what still waits for it fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.kill("SIGKILL");
    await this.#server.exited;
    run(["umount", "-l", this.#path]);
  }
}

// --- internal ---

/** @param fd is number 3 there */
function run(command: string[], fd: number | "ignore" = "ignore"): void {
  const env = { ...process.env, PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin` };
  const stdio: ["ignore", "pipe", "pipe", number | "ignore"] = ["ignore", "pipe", "pipe", fd];
  const { exitCode, stderr } = Bun.spawnSync(command, { env, stdio });
  if (exitCode !== 0) {
    throw new Error(`${command.join(" ")}: ${stderr}`);
  }
}

const FUSE_FD = 3;
const OPERATION = {
  GETATTR: 3,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  INIT: 26,
  DESTROY: 38,
} as const;
/** FORGET, INTERRUPT, BATCH_FORGET: nobody waits for an answer. */
const UNANSWERED: readonly number[] = [2, 36, 42];
const IN_HEADER_BYTES = 40;
const OUT_HEADER_BYTES = 16;
const WRITE_IN_BYTES = 40;
const REQUEST_BYTES_MAX = 256 * 1024;
const VALID_SECONDS = 1000n;
const MODE_FILE = 0o100600;
const FOPEN_NOFLUSH = 1 << 5;
const ENOSYS = -38;
const EIO = -5;
/** Word of the command line. */
const FAILING = "failing";

/** Answers until the file system is unmounted. */
function serve(imagePath: string, isFailing: boolean, holdPath: string, syncsPath: string): void {
  const image = openSync(imagePath, "r+");
  const held: Buffer[] = [];
  const sizeBytes = fstatSync(image).size;
  const request = Buffer.alloc(REQUEST_BYTES_MAX);
  for (;;) {
    const lengthBytes = readSync(FUSE_FD, request);
    if (request.readUInt32LE(4) === OPERATION.FSYNC) {
      appendFileSync(syncsPath, "."); // before the answer: whoever waited for it finds it counted
    }
    if (isFailing && request.readUInt32LE(4) === OPERATION.READ) {
      reply(request, Buffer.alloc(0), EIO);
    } else if (request.readUInt32LE(4) === OPERATION.WRITE && existsSync(holdPath)) {
      held.push(Buffer.from(request.subarray(0, lengthBytes)));
      appendFileSync(holdPath, "."); // a mark for each
    } else {
      if (!existsSync(holdPath)) {
        for (const write of held.splice(0)) {
          answer(write, image, sizeBytes);
        }
      }
      answer(request.subarray(0, lengthBytes), image, sizeBytes);
    }
  }
}

function answer(request: Buffer, image: number, sizeBytes: number): void {
  const operation = request.readUInt32LE(4);
  if (!UNANSWERED.includes(operation)) {
    const body = bodyOf(operation, request, image, sizeBytes);
    reply(request, body ?? Buffer.alloc(0), body === undefined ? ENOSYS : 0);
  }
}

/** Undefined for what is not served here. */
function bodyOf(
  operation: number,
  request: Buffer,
  image: number,
  sizeBytes: number,
): Buffer | undefined {
  switch (operation) {
    case OPERATION.INIT:
      return initialised(request);
    case OPERATION.GETATTR:
      return attributes(sizeBytes);
    case OPERATION.OPEN:
      return opened();
    case OPERATION.READ: {
      const offset = Number(request.readBigUInt64LE(IN_HEADER_BYTES + 8));
      const data = Buffer.alloc(request.readUInt32LE(IN_HEADER_BYTES + 16));
      return data.subarray(0, readSync(image, data, 0, data.length, offset));
    }
    case OPERATION.WRITE: {
      const offset = Number(request.readBigUInt64LE(IN_HEADER_BYTES + 8));
      const body = Buffer.alloc(8);
      const data = request.subarray(IN_HEADER_BYTES + WRITE_IN_BYTES);
      body.writeUInt32LE(writeSync(image, data, 0, data.length, offset), 0);
      return body;
    }
    case OPERATION.STATFS:
      return Buffer.alloc(80);
    case OPERATION.FSYNC:
    case OPERATION.RELEASE:
    case OPERATION.DESTROY:
      return Buffer.alloc(0);
    default:
      return undefined;
  }
}

function reply(request: Buffer, body: Buffer, error: number): void {
  const head = Buffer.alloc(OUT_HEADER_BYTES);
  head.writeUInt32LE(OUT_HEADER_BYTES + body.length, 0);
  head.writeInt32LE(error, 4);
  request.copy(head, 8, 8, 16); // the number of the request
  try {
    writeSync(FUSE_FD, Buffer.concat([head, body]));
  } catch (e) {
    if (!(e instanceof Error && "code" in e && e.code === "ENOENT")) {
      throw e; // the one that asked has gone: no fault
    }
  }
}

/** struct fuse_init_out: version 7.31, no options, requests of up to 128 KiB. */
function initialised(request: Buffer): Buffer {
  const body = Buffer.alloc(64);
  body.writeUInt32LE(7, 0);
  body.writeUInt32LE(31, 4);
  body.writeUInt32LE(request.readUInt32LE(IN_HEADER_BYTES + 8), 8); // read-ahead, as offered
  body.writeUInt16LE(64, 16); // requests in the background
  body.writeUInt16LE(64, 18);
  body.writeUInt32LE(128 * 1024, 20);
  body.writeUInt32LE(1, 24);
  return body;
}

/** struct fuse_open_out: closing tells us nothing, since whoever closes would wait for a program that is halted. */
function opened(): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(FOPEN_NOFLUSH, 8);
  return body;
}

/** struct fuse_attr_out. */
function attributes(sizeBytes: number): Buffer {
  const body = Buffer.alloc(104);
  body.writeBigUInt64LE(VALID_SECONDS, 0);
  body.writeBigUInt64LE(1n, 16);
  body.writeBigUInt64LE(BigInt(sizeBytes), 24);
  body.writeBigUInt64LE(BigInt(Math.ceil(sizeBytes / 512)), 32);
  body.writeUInt32LE(MODE_FILE, 76);
  body.writeUInt32LE(1, 80); // links
  body.writeUInt32LE(4096, 96); // block
  return body;
}

if (import.meta.main) {
  serve(
    process.argv[2] ?? "",
    process.argv[3] === FAILING,
    process.argv[4] ?? "",
    process.argv[5] ?? "",
  );
}
