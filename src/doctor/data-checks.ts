/**
 * The disk: that it is there, that it can be read as a backend would, who has it, and what lies below it. It is opened
 * for reading and writing where a backend would, but never locked and never written.
 */
import { type BigIntStats, closeSync, constants, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { lockHolderPid } from "../disk/disk-lock.ts";
import { errnoText, errorText } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import {
  allocateFile,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type FileGeometry,
  probeFile,
  readFileAt,
  writeFileAt,
} from "../ffi/file.ts";
import { blockDeviceFacts, blockDeviceFindings } from "./block-device.ts";
import type { CheckContext } from "./check-context.ts";
import { fileSystemFinding, fileSystemOf } from "./file-system.ts";
import type { Finding } from "./finding.ts";
import { sizeText } from "./size-text.ts";
import { systemText } from "./system-file.ts";

export async function* examineData(context: CheckContext): AsyncGenerator<Finding> {
  const { device, tuning, encryption } = await context.config();
  const { dataPath: path, readOnly } = device;
  const stats = lookAt(path);
  if (typeof stats === "string") {
    yield { check: "file", verdict: "fail", found: stats, advice: MISSING_ADVICE };
    return;
  }
  if (!stats.isFile() && !stats.isBlockDevice()) {
    const found = `${path} is neither a file nor a block device`;
    yield { check: "file", verdict: "fail", found, advice: "name one of them" };
    return;
  }
  yield modeFinding(path, stats, encryption !== undefined);
  if (stats.isBlockDevice()) {
    yield* blockDeviceFindings(blockDeviceFacts(stats.rdev), !readOnly);
  }
  const fd = openQuietly(path, stats, readOnly);
  if (typeof fd === "string") {
    const advice =
      "run as its owner, or give this user access (a service: User=, SupplementaryGroups=)";
    yield { check: "access", verdict: "fail", found: fd, advice };
    return;
  }
  try {
    yield* openFindings({ path, fd, stats });
  } finally {
    closeSync(fd);
  }
  yield tuning.disableDiscard
    ? { check: "discard", verdict: "skip", found: "tuning.disable_discard turns it off" }
    : discardFinding(path, stats);
}

/** @param isEncrypted whether what others read is enciphered */
export function modeFinding(
  path: string,
  stats: Pick<BigIntStats, "mode" | "uid" | "gid" | "isFile">,
  isEncrypted: boolean,
): Finding {
  const check = "file";
  const mode = Number(stats.mode & 0o7777n);
  const kind = stats.isFile() ? "file" : "block device";
  const owner = `owner ${stats.uid}:${stats.gid}, mode ${mode.toString(8).padStart(4, "0")}`;
  const found = `${kind} ${path}, ${owner}`;
  if ((mode & 0o002) !== 0) {
    const advice = `chmod o-w ${path}`;
    return { check, verdict: "warn", found: `${found}: every user can change it`, advice };
  }
  if ((mode & 0o004) !== 0 && !isEncrypted) {
    const advice = `chmod o-r ${path}`;
    return { check, verdict: "warn", found: `${found}: every user can read it`, advice };
  }
  return { check, verdict: "ok", found };
}

export function sizeFinding({ sizeBytes, logicalBlockBytes }: FileGeometry): Finding {
  const check = "size";
  if (sizeBytes === 0) {
    return {
      check,
      verdict: "fail",
      found: "it is empty",
      advice: "truncate -s SIZE, or fallocate -l SIZE",
    };
  }
  return sizeBytes % logicalBlockBytes === 0
    ? { check, verdict: "ok", found: `${sizeText(sizeBytes)} (${sizeBytes / 512} sectors)` }
    : {
        check,
        verdict: "fail",
        found: `${sizeBytes} bytes, which is not a multiple of ${logicalBlockBytes}`,
        advice: `truncate -s %${logicalBlockBytes} makes it larger`,
      };
}

/** Blocks that a sparse file still has to get when the guest writes to them. */
export function spaceFinding(facts: {
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  readonly freeBytes: number;
}): Finding {
  const check = "space";
  const missing = Math.max(0, facts.sizeBytes - facts.allocatedBytes);
  const found = `${sizeText(missing)} of the disk have no blocks yet, ${sizeText(facts.freeBytes)} are free`;
  if (missing === 0) {
    return { check, verdict: "ok", found: "all of the disk has its blocks" };
  }
  return missing > facts.freeBytes
    ? {
        check,
        verdict: "warn",
        found,
        advice: "make room: a write without a block fails in the guest",
      }
    : { check, verdict: "ok", found };
}

// --- internal ---

const MISSING_ADVICE =
  "mend device.data_path, or make the disk: truncate -s SIZE, or fallocate -l SIZE";
const TRIED_BLOCKS = [512, 1024, 2048, 4096];
const EINVAL = -22;
/** Of open(2): a file without a name, which ends with its descriptor. */
const O_TMPFILE = 0o20200000;
const HOLE_BYTES = 64 * 1024;

function lookAt(path: string): BigIntStats | string {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    return `cannot open data ${path}: ${errorText(error)}`;
  }
}

/** A block device is opened for reading only: whoever closes a writer makes the system look at it anew. */
function openQuietly(path: string, stats: BigIntStats, isReadOnly: boolean): number | string {
  const access = isReadOnly || stats.isBlockDevice() ? constants.O_RDONLY : constants.O_RDWR;
  try {
    return openSync(path, access | constants.O_NONBLOCK);
  } catch (error) {
    const purpose = access === constants.O_RDWR ? "reading and writing" : "reading";
    return `cannot open ${path} for ${purpose}: ${errorText(error)}`;
  }
}

function* openFindings(disk: {
  readonly path: string;
  readonly fd: number;
  readonly stats: BigIntStats;
}): Generator<Finding> {
  const { path, fd, stats } = disk;
  const geometry = probeFile(fd);
  if (typeof geometry === "number") {
    yield { check: "size", verdict: "fail", found: `it tells no size: ${errnoText(geometry)}` };
    return;
  }
  yield sizeFinding(geometry);
  yield directFinding(path, geometry);
  if (stats.isFile()) {
    const fileSystem = fileSystemOf(path);
    yield fileSystemFinding(fileSystem);
    const allocatedBytes = Number(stats.blocks) * 512;
    const { sizeBytes } = geometry;
    yield spaceFinding({ sizeBytes, allocatedBytes, freeBytes: fileSystem.freeBytes });
  }
  yield holderFinding(lockHolderPid(fd));
}

/** Reads the first block past the page cache, the smallest that is taken. */
function directFinding(path: string, geometry: FileGeometry): Finding {
  const check = "direct I/O";
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_DIRECT);
  } catch (error) {
    const advice = "data goes through the page cache here, which costs memory and speed";
    return {
      check,
      verdict: "warn",
      found: `not on this file system: ${errorText(error)}`,
      advice,
    };
  }
  try {
    using arena = new Arena(4096);
    const { address } = arena.bytes(4096);
    for (const bytes of TRIED_BLOCKS.filter((each) => each <= geometry.sizeBytes)) {
      const result = readFileAt(fd, 0, address, bytes);
      if (result === 0) {
        const { memoryAlignBytes } = geometry;
        const found = `works in blocks of ${bytes} bytes; memory is aligned to ${memoryAlignBytes}`;
        return { check, verdict: "ok", found };
      }
      if (result !== EINVAL) {
        const advice = "look for the disk in the kernel's log";
        return {
          check,
          verdict: "fail",
          found: `reading the first block: ${errnoText(result)}`,
          advice,
        };
      }
    }
    const advice = "data goes through the page cache here, which costs memory and speed";
    return { check, verdict: "warn", found: "no block of up to 4096 bytes is taken", advice };
  } finally {
    closeSync(fd);
  }
}

function holderFinding(pid: number | undefined): Finding {
  const check = "lock";
  if (pid === undefined) {
    return { check, verdict: "ok", found: "nobody has the disk locked" };
  }
  const name = systemText(`/proc/${pid}/comm`) ?? "unknown";
  const found = `locked by process ${pid} (${name})`;
  return name.startsWith("ubiblk")
    ? { check, verdict: "ok", found }
    : { check, verdict: "warn", found, advice: "end it before the disk is served" };
}

/** Tries on a file without a name in the same folder, so that nothing is left and nothing of the disk is touched. */
function discardFinding(path: string, stats: BigIntStats): Finding {
  const check = "discard";
  if (stats.isBlockDevice()) {
    return blockDeviceFacts(stats.rdev).discardBytesMax > 0
      ? { check, verdict: "ok", found: "the device takes it" }
      : { check, verdict: "warn", found: "the device frees nothing", advice: DISCARD_ADVICE };
  }
  const folder = dirname(path);
  let fd: number;
  try {
    fd = openSync(folder, constants.O_RDWR | O_TMPFILE, 0o600);
  } catch (error) {
    const found = `cannot be tried: no temporary file in ${folder}: ${errorText(error)}`;
    return { check, verdict: "skip", found };
  }
  try {
    using arena = new Arena(HOLE_BYTES);
    const { address } = arena.bytes(HOLE_BYTES);
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const written = writeFileAt(fd, 0, address, HOLE_BYTES, false);
    const result = written < 0 ? written : allocateFile(fd, mode, 0, HOLE_BYTES);
    return result === 0
      ? { check, verdict: "ok", found: "the file system frees blocks inside of files" }
      : { check, verdict: "warn", found: `refused: ${errnoText(result)}`, advice: DISCARD_ADVICE };
  } finally {
    closeSync(fd);
  }
}

const DISCARD_ADVICE =
  "what guests delete keeps its room; tuning.disable_discard does not offer it";
