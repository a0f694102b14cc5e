/** Tells whether a block device holds something, from its first and last bytes. */
import { closeSync, constants, openSync } from "node:fs";
import { claimDevice } from "../disk/disk-lock.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { probeFile, readFileAt } from "../ffi/file.ts";

export interface DeviceContent {
  readonly sizeBytes: number;
  /** What it holds, as a clause; undefined when it begins and ends with zeros. */
  readonly content: string | undefined;
}

/** @throws UbiError E_DISK_OPEN, E_DISK_LOCKED, E_DISK_IO */
export function inspectDevice(path: string): DeviceContent {
  const fd = openDevice(path);
  try {
    const geometry = probeFile(fd);
    if (typeof geometry === "number" || !geometry.isBlockDevice) {
      throw new UbiError("E_DISK_OPEN", `${path} is no block device; for a file give --size`);
    }
    closeSync(claimDevice(fd, path)); // refused while it is mounted
    const { sizeBytes } = geometry;
    const lengthBytes = Math.min(LOOK_BYTES, sizeBytes);
    using arena = new Arena(LOOK_BYTES);
    const { address, view } = arena.bytes(LOOK_BYTES);
    read(fd, { path, offset: 0, address, lengthBytes });
    const first = contentOf(view.subarray(0, lengthBytes));
    if (first !== undefined) {
      return { sizeBytes, content: first };
    }
    read(fd, { path, offset: sizeBytes - lengthBytes, address, lengthBytes });
    const isZero = view.subarray(0, lengthBytes).every((byte) => byte === 0);
    return { sizeBytes, content: isZero ? undefined : "data at its end" };
  } finally {
    closeSync(fd);
  }
}

/** What the first bytes of a device belong to, as a clause; undefined when they are zeros. */
export function contentOf(bytes: Uint8Array): string | undefined {
  const known = SIGNATURES.find(({ offset, magic }) =>
    magic.every((byte, i) => bytes[offset + i] === byte),
  );
  if (known !== undefined) {
    return known.name;
  }
  return bytes.every((byte) => byte === 0)
    ? undefined
    : "data of a kind that is not known, such as an encrypted disk";
}

// --- internal ---

/** More than how far signatures of file systems and volumes lie from either end. */
const LOOK_BYTES = 2 ** 20;

interface Signature {
  readonly name: string;
  readonly offset: number;
  readonly magic: readonly number[];
}

const text = (characters: string) => [...characters].map((character) => character.charCodeAt(0));

/** Those of file systems before that of a boot sector, which some of them have as well. */
const SIGNATURES: readonly Signature[] = [
  { name: "metadata of a ubiblk disk", offset: 0, magic: text("BDEV_UBI\0") },
  { name: "an ext file system", offset: 1024 + 56, magic: [0x53, 0xef] },
  { name: "an XFS file system", offset: 0, magic: text("XFSB") },
  { name: "a Btrfs file system", offset: 65_536 + 64, magic: text("_BHRfS_M") },
  { name: "an NTFS file system", offset: 3, magic: text("NTFS    ") },
  { name: "a FAT file system", offset: 54, magic: text("FAT") },
  { name: "a FAT file system", offset: 82, magic: text("FAT32") },
  { name: "a SquashFS file system", offset: 0, magic: text("hsqs") },
  { name: "an ISO 9660 file system", offset: 32_769, magic: text("CD001") },
  { name: "a LUKS volume", offset: 0, magic: text("LUKS\xba\xbe") },
  { name: "an LVM volume", offset: 512, magic: text("LABELONE") },
  { name: "swap space", offset: 4096 - 10, magic: text("SWAPSPACE2") },
  { name: "a part of a RAID", offset: 4096, magic: [0xfc, 0x4e, 0x2b, 0xa9] },
  { name: "a qcow2 image", offset: 0, magic: text("QFI\xfb") },
  { name: "a partition table (GPT)", offset: 512, magic: text("EFI PART") },
  { name: "a partition table (GPT)", offset: 4096, magic: text("EFI PART") },
  { name: "a partition table or boot sector", offset: 510, magic: [0x55, 0xaa] },
];

function openDevice(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw new UbiError("E_DISK_OPEN", `cannot open ${path}: ${errorText(error)}`, { cause: error });
  }
}

function read(
  fd: number,
  range: {
    readonly path: string;
    readonly offset: number;
    readonly address: number;
    readonly lengthBytes: number;
  },
): void {
  const result = readFileAt(fd, range.offset, range.address, range.lengthBytes);
  if (result < 0) {
    throw new UbiError("E_DISK_IO", `cannot read ${range.path}: ${errnoText(result)}`);
  }
}
