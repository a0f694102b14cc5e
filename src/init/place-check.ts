/** Looks at everything that a new disk needs and that can be in its way, before anything is made. */
import { type BigIntStats, closeSync, constants, openSync, statfsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { InputFile, isSameFile } from "../copy/input-file.ts";
import { lockDisk } from "../disk/disk-lock.ts";
import { errorText, UbiError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { inspectDevice } from "./device-content.ts";
import { FILE_NAMES } from "./disk-document.ts";
import { type DiskRequest, secretFilesOf } from "./disk-request.ts";
import { isTaken, pathStatus } from "./path-status.ts";

export interface CheckedPlace {
  /** Of the disk. */
  readonly sizeBytes: number;
  /** Files to make, in the order in which they go to their place. */
  readonly names: readonly string[];
  /** Names that are taken, and are to be replaced. */
  readonly retired: readonly string[];
}

/** @throws UbiError E_INIT, E_DISK_OPEN, E_DISK_SIZE, E_DISK_LOCKED, E_DISK_IO, E_SOCKET */
export function checkPlace(request: DiskRequest): CheckedPlace {
  checkFolder(request.folder);
  checkSockets(request);
  const names = namesOf(request);
  const clash = names.find((name) => join(request.folder, name) === request.configPath);
  if (clash !== undefined) {
    throw new UbiError("E_INIT", `--config: ${request.configPath} is that of the new ${clash}`);
  }
  const existing = existingNames(request);
  const inTheWay = [
    ...existing.filter((name) => names.includes(name)).map((name) => join(request.folder, name)),
    ...existingConfig(request),
  ];
  if (inTheWay.length > 0 && !request.isForced) {
    const list = inTheWay.join(", ");
    const advice = "choose another folder, or give --force to lose what is there";
    throw new UbiError("E_INIT", `there already: ${list}; ${advice}`);
  }
  const retired = request.isForced ? existing : [];
  checkRetired(request, retired);
  const sizeBytes = checkMedium(request);
  checkImage(request, sizeBytes);
  return { sizeBytes, names, retired };
}

/** What is there already of the files that are made for a disk, or were for one with another kind of key. */
export function existingFiles(request: DiskRequest): readonly string[] {
  const inFolder = existingNames(request).map((name) => join(request.folder, name));
  return [...inFolder, ...existingConfig(request)];
}

// --- internal ---

function existingConfig({ configPath }: DiskRequest): readonly string[] {
  return configPath !== undefined && isTaken(configPath) ? [configPath] : [];
}

function existingNames({ folder, medium }: DiskRequest): readonly string[] {
  return Object.values(FILE_NAMES).filter(
    (name) =>
      !(name === FILE_NAMES.disk && medium.kind === "device") && // it is not replaced by the device
      isTaken(join(folder, name)),
  );
}

/** sun_path less its NUL (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107;
/** More than any file system has, and what can be asked for. */
const SIZE_BYTES_MAX = 2 ** 52 - SECTOR_BYTES;

function namesOf({ medium, key, configPath }: DiskRequest): readonly string[] {
  return [
    ...(medium.kind === "file" ? [FILE_NAMES.disk] : []),
    ...(key.kind === "file" ? [FILE_NAMES.xtsKey] : []),
    ...(key.kind === "new-kek" ? [FILE_NAMES.kek] : []),
    FILE_NAMES.metadata,
    ...(configPath === undefined ? [FILE_NAMES.config] : []), // last: with it the disk is there
  ];
}

function checkFolder(folder: string): void {
  const stats = pathStatus(folder);
  if (stats !== undefined && !stats.isDirectory()) {
    throw new UbiError("E_INIT", `--dir: ${folder} is no folder`);
  }
}

function checkSockets({ folder, device }: DiskRequest): void {
  for (const [flag, path] of [
    ["--vhost-socket", device.vhost_socket],
    ["--rpc-socket", device.rpc_socket],
  ] as const) {
    const whole = resolve(folder, path);
    if (new TextEncoder().encode(whole).length > SOCKET_PATH_BYTES_MAX) {
      const limit = `is longer than ${SOCKET_PATH_BYTES_MAX} bytes, which sockets may have`;
      throw new UbiError("E_SOCKET", `${flag}: ${whole} ${limit}; choose a shorter path`);
    }
  }
}

/** A disk that is served is not replaced, nor what the new one is made of. */
function checkRetired(request: DiskRequest, retired: readonly string[]): void {
  for (const name of retired) {
    const path = join(request.folder, name);
    const stats = pathStatus(path);
    if (stats?.isDirectory() === true) {
      throw new UbiError("E_INIT", `${path} is a folder, which is not replaced; move it away`);
    }
    if (stats?.isFile() === true) {
      checkUnlocked(path);
    }
    const input = stats === undefined ? undefined : sameInput(request, stats);
    if (input !== undefined) {
      const what = "would be replaced, but the new disk is made from it";
      throw new UbiError("E_INIT", `${path} ${what} (${input}); choose another folder`);
    }
  }
}

function sameInput(request: DiskRequest, stats: BigIntStats): string | undefined {
  const { source, key, medium } = request;
  const inputs = [...secretFilesOf(request).values()].map(({ path }) => path);
  if (source.kind === "raw") {
    inputs.push(source.path);
  }
  if (key.kind === "given-kek") {
    inputs.push(key.path);
  }
  if (medium.kind === "device") {
    inputs.push(medium.path);
  }
  return inputs.find((path) => {
    const other = pathStatus(path);
    return other !== undefined && isSameFile(other, stats);
  });
}

function checkUnlocked(path: string): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw new UbiError("E_INIT", `cannot open ${path}: ${errorText(error)}`, { cause: error });
  }
  try {
    lockDisk(fd, path, "exclusive");
  } finally {
    closeSync(fd);
  }
}

/** The size of the disk. */
function checkMedium({ medium, folder, isForced }: DiskRequest): number {
  if (medium.kind === "device") {
    const { sizeBytes, content } = inspectDevice(medium.path);
    if (content !== undefined && !isForced) {
      const advice = "look what it is, and give --force to use it as a disk all the same";
      throw new UbiError("E_INIT", `--disk: ${medium.path} holds ${content}; ${advice}`);
    }
    checkSize("--disk", sizeBytes);
    return sizeBytes;
  }
  checkSize("--size", medium.sizeBytes);
  if (medium.isPreallocated) {
    const freeBytes = freeBytesAt(folder);
    if (medium.sizeBytes > freeBytes) {
      const sizes = `${medium.sizeBytes} bytes are wanted, ${freeBytes} are free in ${folder}`;
      throw new UbiError("E_INIT", `--preallocate: ${sizes}; make room, or leave it out`);
    }
  }
  return medium.sizeBytes;
}

function checkSize(flag: string, sizeBytes: number): void {
  if (sizeBytes === 0) {
    throw new UbiError("E_DISK_SIZE", `${flag}: a disk of 0 bytes is none`);
  }
  if (sizeBytes > SIZE_BYTES_MAX) {
    throw new UbiError("E_DISK_SIZE", `${flag}: ${sizeBytes} bytes; a file has at most 4 PiB`);
  }
  if (sizeBytes % SECTOR_BYTES !== 0) {
    const below = Math.floor(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
    const near = `${below === 0 ? "" : `${below} and `}${below + SECTOR_BYTES}`;
    const what = `${sizeBytes} bytes are no multiple of ${SECTOR_BYTES}`;
    throw new UbiError("E_DISK_SIZE", `${flag}: ${what}; next to it are ${near}`);
  }
}

/** Of the nearest folder that is there. */
function freeBytesAt(folder: string): number {
  let path = folder;
  while (pathStatus(path) === undefined) {
    path = dirname(path);
  }
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

function checkImage({ source, medium }: DiskRequest, diskBytes: number): void {
  if (source.kind !== "raw") {
    return;
  }
  if (pathStatus(source.path)?.isDirectory() === true) {
    throw new UbiError("E_DISK_OPEN", `--base: ${source.path} is a folder, not an image`);
  }
  using image = new InputFile(source.path, "image");
  const device = medium.kind === "device" ? pathStatus(medium.path) : undefined;
  if (device !== undefined && isSameFile(device, image.status())) {
    throw new UbiError("E_STRIPE_SOURCE", `--base: ${source.path} is the disk itself`);
  }
  if (image.sizeBytes === 0) {
    throw new UbiError("E_STRIPE_SOURCE", `--base: ${source.path} is empty`);
  }
  if (image.sizeBytes > diskBytes) {
    const sizes = `has ${image.sizeBytes} bytes, the disk only ${diskBytes}`;
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `--base: ${source.path} ${sizes}; make the disk as large`,
    );
  }
}
