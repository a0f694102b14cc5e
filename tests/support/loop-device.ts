/** Block devices for tests: a file behind a loop device, with sectors of any size. Needs root. */
import { closeSync, openSync, truncateSync, writeFileSync } from "node:fs";

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

// --- internal ---

const PATH_OF_ROOT = `${process.env.PATH ?? ""}:/usr/sbin:/sbin`;

function losetup(...words: readonly string[]): string {
  const result = Bun.spawnSync(["losetup", ...words], { env: { PATH: PATH_OF_ROOT } });
  if (result.exitCode !== 0) {
    throw new Error(`losetup ${words.join(" ")}: ${result.stderr.toString()}`);
  }
  return result.stdout.toString().trim();
}
