/** What the kernel tells about a block device, without opening it. */
import { readdirSync } from "node:fs";
import type { Finding } from "./finding.ts";
import { systemText } from "./system-file.ts";

export interface BlockDeviceFacts {
  readonly isReadOnly: boolean;
  /** Bytes that one discard may free; 0 when it can discard nothing. */
  readonly discardBytesMax: number;
  /** Where it is mounted, or what else keeps it. */
  readonly users: readonly string[];
}

/** @param number the device's, as stat(2) tells it */
export function blockDeviceFacts(number: bigint): BlockDeviceFacts {
  const name = deviceName(number);
  const folder = `/sys/dev/block/${name}`;
  const queue = (key: string) =>
    systemText(`${folder}/queue/${key}`) ?? systemText(`${folder}/../queue/${key}`);
  return {
    isReadOnly: systemText(`${folder}/ro`) === "1",
    discardBytesMax: Number(queue("discard_max_bytes") ?? 0),
    users: [...mountsOf(name), ...holdersOf(folder)],
  };
}

export function* blockDeviceFindings(
  facts: BlockDeviceFacts,
  isToBeWritten: boolean,
): Generator<Finding> {
  if (facts.isReadOnly && isToBeWritten) {
    const advice = "blockdev --setrw, or device.read_only";
    yield { check: "device", verdict: "fail", found: "the device is read-only", advice };
  }
  const found = facts.users.join(", ");
  if (facts.users.length === 0) {
    yield {
      check: "other users",
      verdict: "ok",
      found: "not mounted, and no part of another device",
    };
  } else if (isToBeWritten) {
    const advice = "unmount it: two programs on one disk destroy it";
    yield { check: "other users", verdict: "fail", found, advice };
  } else {
    const advice = "unmount it, or be sure that it does not change";
    yield { check: "other users", verdict: "warn", found, advice };
  }
}

// --- internal ---

/** `8:1`. */
function deviceName(number: bigint): string {
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** Lines of mountinfo: id, parent, device, root, place. */
function mountsOf(name: string): readonly string[] {
  return (systemText("/proc/self/mountinfo") ?? "")
    .split("\n")
    .map((line) => line.split(" "))
    .filter((fields) => fields[2] === name)
    .map((fields) => `mounted at ${fields[4]}`);
}

function holdersOf(folder: string): readonly string[] {
  try {
    return readdirSync(`${folder}/holders`).map((holder) => `a part of ${holder}`);
  } catch {
    return [];
  }
}
