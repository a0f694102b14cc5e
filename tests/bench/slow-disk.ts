/**
 * A file system whose flushes take a stated time each and never overlap, and whose reads take a stated time:
 * slow-disk.c over memory, so that nothing else about it is slow. Needs root and /dev/fuse.
 */
import { accessSync, constants, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { outputOf, runCommand } from "../../scripts/command.ts";

const MOUNT_TIMEOUT_MS = 5_000;

export interface SlowDiskOptions {
  /** Where the program was built, and is going to mount. */
  readonly folder: string;
  readonly flushMs: number;
  readonly readMs: number;
}

/** Builds what it takes, in that folder. A reason why there cannot be a slow disk here, or undefined. */
export async function missingSlowDisk(folder: string): Promise<string | undefined> {
  if (process.getuid?.() !== 0) {
    return "mounting needs root";
  }
  try {
    accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
  } catch {
    return "there is no /dev/fuse";
  }
  mkdirSync(folder, { recursive: true });
  const source = join(import.meta.dir, "slow-disk.c");
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", programIn(folder)];
  const built = await runCommand(["gcc", ...flags, source, "-lfuse3"]);
  const reason = built.stderr.split("\n").find((line) => line.includes("error"));
  return built.exitCode === 0 ? undefined : `slow-disk.c is not to be built: ${reason}`;
}

export class SlowDisk implements AsyncDisposable {
  /** Where files are slow. */
  readonly path: string;
  /** The same files, fast. */
  readonly fastPath: string;
  readonly #child: Bun.Subprocess;

  private constructor(path: string, fastPath: string, child: Bun.Subprocess) {
    this.path = path;
    this.fastPath = fastPath;
    this.#child = child;
  }

  /** @throws Error with what the compiler, mount or the program says */
  static async start(options: SlowDiskOptions): Promise<SlowDisk> {
    const { folder, flushMs, readMs } = options;
    const path = join(folder, "slow");
    const fastPath = join(folder, "memory");
    await unmount(path);
    await unmount(fastPath);
    mkdirSync(path, { recursive: true });
    mkdirSync(fastPath, { recursive: true });
    await outputOf(["mount", "-t", "tmpfs", "-o", "size=60%", "slow-disk-memory", fastPath]);
    const child = Bun.spawn([programIn(folder), fastPath, path, `${flushMs}`, `${readMs}`], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    });
    const disk = new SlowDisk(path, fastPath, child);
    const deadlineMs = performance.now() + MOUNT_TIMEOUT_MS;
    while (!isMounted(path)) {
      if (child.exitCode !== null || performance.now() > deadlineMs) {
        await disk[Symbol.asyncDispose]();
        throw new Error(`slow-disk does not mount ${path}`);
      }
      await Bun.sleep(5);
    }
    return disk;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#child.exited;
    await unmount(this.path);
    await unmount(this.fastPath);
  }
}

// --- internal ---

function programIn(folder: string): string {
  return join(folder, "slow-disk");
}

function isMounted(path: string): boolean {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[1] === path);
}

/** Also what an earlier run left. Lazily: the ring of a process that ended keeps its files a moment longer. */
async function unmount(path: string): Promise<void> {
  while (isMounted(path)) {
    await outputOf(["umount", "--lazy", path]);
  }
}
