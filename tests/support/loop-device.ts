/** Block devices for tests: a file behind a loop device, with sectors of any size. Needs root. */
import { closeSync, mkdirSync, openSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isInstalled } from "./requires.ts";

export interface LoopDevice extends Disposable {
  readonly path: string;
  readonly backingPath: string;
}

/** A reason why there are no loop devices here, or undefined. */
export function missingLoopDevices(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "loop devices need root";
  }
  if (Bun.which("losetup", { PATH: PATH_OF_ROOT }) === null) {
    return "losetup is not installed";
  }
  const found = Bun.spawnSync(["losetup", "--find"], { env: { PATH: PATH_OF_ROOT } });
  if (found.exitCode !== 0) {
    return "there is no free loop device";
  }
  try {
    closeSync(openSync(found.stdout.toString().trim(), "r"));
    return undefined;
  } catch (error) {
    return `loop devices cannot be opened: ${error instanceof Error ? error.message : error}`;
  }
}

/** A loop device over a new sparse file. @throws Error when the system refuses */
export function attachLoopDevice(options: {
  readonly backingPath: string;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
}): LoopDevice {
  const { backingPath, sizeBytes, sectorBytes } = options;
  writeFileSync(backingPath, "");
  truncateSync(backingPath, sizeBytes);
  const path = losetup("--find", "--show", "--sector-size", String(sectorBytes), backingPath);
  return { path, backingPath, [Symbol.dispose]: () => void losetup("--detach", path) };
}

/** The same file as another block device, both without a cache of their own: what one writes the other reads. */
export function attachSharedLoopDevice(first: LoopDevice): LoopDevice {
  const { backingPath } = first;
  losetup("--direct-io=on", first.path);
  const path = losetup("--find", "--show", "--direct-io=on", backingPath);
  return { path, backingPath, [Symbol.dispose]: () => void losetup("--detach", path) };
}

/** A reason why no file system can be made and mounted here, or undefined. */
export function missingMounts(): string | undefined {
  return missingLoopDevices() ?? (isInstalled("mkfs.ext4") ? undefined : "no mkfs.ext4 here");
}

/** A new file system on a block device, mounted in `folder`. */
export class MountedDevice implements Disposable {
  readonly #path: string;

  constructor(device: LoopDevice, folder: string) {
    this.#path = join(folder, "mount");
    mkdirSync(this.#path);
    run("mkfs.ext4", "-q", device.path);
    run("mount", device.path, this.#path);
  }

  /** A new sparse file. */
  file(bytes: number): string {
    const path = join(this.#path, "disk.img");
    writeFileSync(path, "", { mode: 0o600 });
    truncateSync(path, bytes);
    return path;
  }

  /** Until `thaw` whoever writes waits, and cannot be killed. */
  freeze(): void {
    run("fsfreeze", "--freeze", this.#path);
  }

  thaw(): void {
    run("fsfreeze", "--unfreeze", this.#path);
  }

  /** The ring of a process that ended goes some time later, and its file with it: until then it is busy. */
  [Symbol.dispose](): void {
    const deadlineMs = performance.now() + 30_000;
    for (;;) {
      try {
        run("umount", this.#path);
        return;
      } catch (error) {
        if (performance.now() > deadlineMs) {
          throw error;
        }
        Bun.sleepSync(20);
      }
    }
  }
}

// --- internal ---

const PATH_OF_ROOT = `${process.env.PATH ?? ""}:/usr/sbin:/sbin`;

function losetup(...words: readonly string[]): string {
  return run("losetup", ...words);
}

/** What the program prints. @throws Error when it fails */
function run(...command: readonly string[]): string {
  const result = Bun.spawnSync([...command], { env: { PATH: PATH_OF_ROOT } });
  if (result.exitCode !== 0) {
    throw new Error(`${command.join(" ")}: ${result.stderr.toString()}`);
  }
  return result.stdout.toString().trim();
}
