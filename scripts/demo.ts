/**
 * `npm run demo`: builds the executable, serves an encrypted disk with it, checks every byte through a
 * virtual machine's front end, and prints how fast it is. Everything lives in a folder that is removed.
 */
import { existsSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build, EXECUTABLE } from "./build.ts";
import { outputOf } from "./command.ts";

const DISK_MIB = 512;
const READY_TIMEOUT_MS = 15_000;

const folder = mkdtempSync(join(process.env.UBIBLK_DEMO_DIR ?? tmpdir(), "ubiblk-demo-"));
try {
  await demonstrate();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

// --- internal ---

async function demonstrate(): Promise<void> {
  step("building dist/ubiblk");
  await build();
  step(`making an encrypted disk of ${DISK_MIB} MiB in ${folder}`);
  await outputOf([EXECUTABLE, "init", "--size", `${DISK_MIB}M`, "--dir", folder]);
  const backend = await serve();
  try {
    await verifyAndMeasure(backend.pid);
  } finally {
    backend.kill("SIGTERM");
  }
  const exitCode = await backend.exited;
  if (exitCode !== 0) {
    throw new Error(`ubiblk vhost ended with code ${exitCode}`);
  }
  await compareWithPlaintext();
  step("done: the disk was served, verified and stopped cleanly");
}

async function serve() {
  const command = [EXECUTABLE, "vhost", "--config", "config.toml"];
  step(`serving it: ${["ubiblk", ...command.slice(1)].join(" ")}`);
  const backend = Bun.spawn(command, {
    cwd: folder,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!existsSync(join(folder, "vhost.sock"))) {
    if (backend.exitCode !== null || performance.now() > deadline) {
      throw new Error("ubiblk vhost does not listen; its messages are above");
    }
    await Bun.sleep(10);
  }
  return backend;
}

async function verifyAndMeasure(pid: number): Promise<void> {
  step("verifying every byte: a front end writes a pattern, flushes, reads it back");
  await bench(["--workload", "verify", "--time", "4", "--block-size", "16K"]);
  for (const [workload, blockSize, depth] of [
    ["randread", "4K", "32"],
    ["randwrite", "4K", "32"],
    ["read", "128K", "16"],
    ["write", "128K", "16"],
  ] as const) {
    step(`speed: ${workload}, ${blockSize}, ${depth} requests in flight, enciphered`);
    const shape = ["--workload", workload, "--block-size", blockSize, "--queue-depth", depth];
    await bench([...shape, "--time", "2", "--pid", String(pid)]);
  }
}

/** Deciphers the disk's file and shows that it holds what the front end saw, and the file does not. */
async function compareWithPlaintext(): Promise<void> {
  step("deciphering the first MiB of the file: ubiblk xts");
  const plain = join(folder, "plain.raw");
  const flags = ["--config", "config.toml", "--len", "2048"];
  await outputOf([EXECUTABLE, "xts", ...flags, "disk.raw", plain], { cwd: folder });
  const onDisk = firstBytes(join(folder, "disk.raw"));
  const deciphered = readFileSync(plain).subarray(0, onDisk.length);
  print(`  on disk     ${onDisk.toString("hex")}`);
  print(`  deciphered  ${deciphered.toString("hex")}`);
  if (onDisk.equals(deciphered)) {
    throw new Error("the file on disk is not encrypted");
  }
}

async function bench(flags: readonly string[]): Promise<void> {
  const output = await outputOf([
    EXECUTABLE,
    "bench",
    "--socket",
    join(folder, "vhost.sock"),
    ...flags,
  ]);
  print(output.trimEnd().replaceAll(/^/gm, "  "));
}

function firstBytes(path: string): Buffer {
  const bytes = Buffer.alloc(32);
  readSync(openSync(path, "r"), bytes);
  return bytes;
}

function step(text: string): void {
  print(`\n=> ${text}`);
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
