/** The files that the kernel makes for a device, in /dev with or without udev: waited for, opened, read about. */
import { closeSync, constants, openSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";

const NODE_MS = 5_000;
const LOOK_MS = 5;
const CLASS_FOLDER = "/sys/class/ublk-char";

export function blockPath(id: number): string {
  return `/dev/ublkb${id}`;
}

/**
 * Opens the character device that a server works with.
 * @throws UbiError E_UBLK_DEVICE when it does not appear, or another program has it
 */
export async function openCharacterDevice(id: number): Promise<number> {
  const path = `/dev/ublkc${id}`;
  const deadline = performance.now() + NODE_MS;
  for (;;) {
    try {
      return openSync(path, constants.O_RDWR);
    } catch (error) {
      const code = codeOf(error);
      const isPassing = code === "ENOENT" || code === "ENXIO" || code === "ENODEV";
      // udev may set the permissions later; a server that has just died may still be closing it.
      const isSlow = code === "EACCES" || code === "EBUSY";
      if (!(isPassing || isSlow) || performance.now() > deadline) {
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

/**
 * Lets the driver look every second whether requests under way still have a server; nothing else comes of it.
 * Drivers before 6.16 see in no other way that a server died which had all requests of a queue in its hands.
 */
export function watchServer(id: number): void {
  const path = `/sys/block/ublkb${id}/queue/io_timeout`;
  try {
    writeFileSync(path, "1000");
  } catch (error) {
    log.warn("requests under way may wait 30 s when this process dies", {
      cause: `cannot write ${path}: ${errorText(error)}`,
    });
  }
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
