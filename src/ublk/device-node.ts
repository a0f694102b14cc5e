/** The files that the kernel makes for a device, in /dev with or without udev: waited for, opened, read about. */
import { closeSync, constants, openSync, readdirSync, statSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";

const NODE_MS = 5_000;
const LOOK_MS = 5;
const CLASS_FOLDER = "/sys/class/ublk-char";

export function blockPath(id: number): string {
  return `/dev/ublkb${id}`;
}

/**
 * Opens the character device that a server works with.
 * @param busyMs how long another server may have it: one that has just died may still be closing it
 * @throws UbiError E_UBLK_DEVICE when it does not appear, or another program has it
 */
export async function openCharacterDevice(id: number, busyMs = NODE_MS): Promise<number> {
  const path = `/dev/ublkc${id}`;
  const startMs = performance.now();
  for (;;) {
    try {
      return openSync(path, constants.O_RDWR);
    } catch (error) {
      const code = codeOf(error);
      const isPassing = code === "ENOENT" || code === "ENXIO" || code === "ENODEV";
      const isSlow = code === "EACCES" || code === "EBUSY"; // udev may set the permissions later
      const limitMs = code === "EBUSY" ? busyMs : NODE_MS;
      if (!(isPassing || isSlow) || performance.now() - startMs > limitMs) {
        const why = isPassing ? "it did not appear; is /dev a devtmpfs?" : errorText(error);
        throw new UbiError("E_UBLK_DEVICE", `cannot open ${path}: ${why}`, { cause: error });
      }
    }
    await Bun.sleep(LOOK_MS);
  }
}

/** Waits until the block device can be found. @throws UbiError E_UBLK_DEVICE when it does not appear */
export async function waitForBlockDevice(id: number): Promise<string> {
  const path = blockPath(id);
  const deadline = performance.now() + NODE_MS;
  while (!isBlockDevice(path)) {
    if (performance.now() > deadline) {
      throw new UbiError("E_UBLK_DEVICE", `${path} did not appear; is /dev a devtmpfs?`);
    }
    await Bun.sleep(LOOK_MS);
  }
  return path;
}

/** Whether no server has the device open. */
export function isAbandoned(id: number): boolean {
  try {
    closeSync(openSync(`/dev/ublkc${id}`, constants.O_RDWR));
    return true;
  } catch (error) {
    return codeOf(error) !== "EBUSY";
  }
}

/** Ids of all ublk devices there are, of whatever program. */
export function deviceIds(): readonly number[] {
  let names: readonly string[];
  try {
    names = readdirSync(CLASS_FOLDER);
  } catch {
    return []; // the driver is not loaded
  }
  return names
    .map((name) => Number(/^ublkc(\d+)$/.exec(name)?.[1] ?? Number.NaN))
    .filter((id) => Number.isInteger(id))
    .sort((a, b) => a - b);
}

// --- internal ---

function isBlockDevice(path: string): boolean {
  try {
    return statSync(path).isBlockDevice();
  } catch {
    return false;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
