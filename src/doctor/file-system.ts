/** File systems that disks lie on, and what is peculiar about them. */
import { statfsSync } from "node:fs";
import type { Finding } from "./finding.ts";

export interface FileSystemFacts {
  /** Of statfs(2): which kind it is. */
  readonly type: number;
  readonly freeBytes: number;
}

/** @throws the system's error */
export function fileSystemOf(path: string): FileSystemFacts {
  const { type, bavail, bsize } = statfsSync(path);
  return { type, freeBytes: bavail * bsize };
}

export function fileSystemFinding({ type }: Pick<FileSystemFacts, "type">): Finding {
  const check = "file system";
  const known = FILE_SYSTEMS[type];
  if (known === undefined) {
    return { check, verdict: "ok", found: `number 0x${type.toString(16)}, not known here` };
  }
  const { name, quirk, advice } = known;
  return quirk === undefined
    ? { check, verdict: "ok", found: name }
    : { check, verdict: "warn", found: `${name}: ${quirk}`, advice };
}

// --- internal ---

interface KnownFileSystem {
  readonly name: string;
  readonly quirk?: string;
  readonly advice?: string;
}

const NETWORK = {
  quirk: "each flush waits for the server, and all I/O when it does not answer",
  advice: "for lazy disks keep the disk here and the source there",
};

/** By statfs(2)'s magic numbers (linux/magic.h). */
const FILE_SYSTEMS: Readonly<Record<number, KnownFileSystem>> = {
  61267: { name: "ext4 (or ext2, ext3)" },
  1481003842: { name: "xfs" },
  4076150800: { name: "f2fs" },
  2435016766: {
    name: "btrfs",
    quirk: "copies each block that is written, which scatters the file",
    advice: "chattr +C on the empty file, or on its folder before the file is made",
  },
  801189825: {
    name: "zfs",
    quirk: "copies each block that is written; direct I/O may go through its cache",
    advice: "use a zvol, or recordsize=16k",
  },
  16914836: {
    name: "tmpfs",
    quirk: "lies in memory: what is written is gone with the next start of the machine",
    advice: "put disks to keep elsewhere",
  },
  2240043254: {
    name: "ramfs",
    quirk: "lies in memory: what is written is gone with the next start of the machine",
    advice: "put disks to keep elsewhere",
  },
  2035054128: {
    name: "overlayfs",
    quirk: "belongs to a container: what is written goes with it",
    advice: "use a volume",
  },
  26985: { name: "nfs", ...NETWORK },
  4283649346: { name: "cifs", ...NETWORK },
  4266872130: { name: "smb2", ...NETWORK },
  16914839: { name: "9p", ...NETWORK },
  12805120: { name: "ceph", ...NETWORK },
  1702057286: {
    name: "fuse",
    quirk: "another program serves it, and all I/O waits for that",
    advice: "make sure that it outlives the backend",
  },
  19780: {
    name: "vfat",
    quirk: "has neither holes nor owners",
    advice: "use ext4 or xfs",
  },
  538032816: { name: "exfat", quirk: "has neither holes nor owners", advice: "use ext4 or xfs" },
};
