/**
 * A Linux guest with the ublk driver, in which our executable runs as anybody's would: emulated, with a
 * kernel of a later Debian suite. It has no network and no udev; /dev is a plain devtmpfs.
 *
 *   initramfs   busybox, kernel modules, the script, the caller's files
 *   /dev/vda    read-only root: busybox, ubiblk, disk tools and their libraries; made once per build
 *   /dev/vdb    on request: an ext4 file system, mounted at /data, that outlives the guest
 *
 * The script runs in the root as /tmp/script with `set -eu`; the caller's files are in /tmp/files. What
 * it prints comes back.
 */
import {
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { EXECUTABLE } from "./backend.ts";
import {
  BUILD_FOLDER,
  bootGuest,
  EMULATOR,
  type GuestResult,
  newestEmulator,
  pathOf,
} from "./guest-boot.ts";
import { guestKernel, hasGuestKernel, type KernelChoice, kernelModules } from "./guest-kernel.ts";
import { type ArchiveEntry, packArchive } from "./initramfs.ts";
import { isInstalled } from "./requires.ts";

/** Debian 13's 6.12 has no zero copy; sid's has everything that ublk can do. */
export type UblkSuite = "trixie" | "sid";

export interface UblkGuestOptions {
  readonly suite: UblkSuite;
  readonly script: string;
  /** An image made by `makeDataDisk`. */
  readonly dataDisk?: string;
  /** Laid at /tmp/files, executable. */
  readonly files?: Readonly<Record<string, Uint8Array | string>>;
  /** Left out: 2. */
  readonly cpuCount?: number;
  readonly memoryMiB?: number;
  readonly timeoutMs?: number;
}

/** What this machine lacks to run such a guest, as a reason for skipping; undefined when nothing. */
export function missingForUblkGuest(suite: UblkSuite): string | undefined {
  const programs = [EMULATOR, "ldd", "mke2fs", ...PROGRAMS];
  const missing = programs.find((program) => !isInstalled(program));
  if (missing !== undefined) {
    return `${missing} is not installed`;
  }
  const choice = kernelChoice(suite);
  return hasGuestKernel(choice)
    ? undefined
    : `no kernel package in build/${choice}: run scripts/setup.sh test`;
}

/** Boots a guest, and waits until it has powered off. */
export async function runUblkGuest(options: UblkGuestOptions): Promise<GuestResult> {
  const kernel = await guestKernel(kernelChoice(options.suite));
  const files = Object.entries(options.files ?? {}).map(([name, content]) => ({
    path: `files/${name}`,
    content,
  }));
  const script = { path: "script", content: `set -eu\n${options.script}\n` };
  const { dataDisk } = options;
  const drives = [
    drive("root", await rootDisk(), "readonly=on"),
    ...(dataDisk === undefined ? [] : [drive("data", dataDisk, "cache=unsafe,discard=unmap")]),
  ];
  return await bootGuest({
    emulator: newestEmulator(),
    kernelPath: kernel.imagePath,
    initramfs: [await baseArchive(options.suite), packArchive([script, ...files])],
    cpuCount: options.cpuCount ?? 2,
    memoryMiB: options.memoryMiB ?? 1024,
    devices: drives.flat(),
    words: "cryptomgr.notests", // QEMU 7 emulates AVX so that the kernel's test of AES-GCM traps
    timeoutMs: options.timeoutMs ?? 480_000,
  });
}

export interface DataDiskOptions {
  readonly path: string;
  readonly sizeBytes: number;
  /** A folder whose files it holds; left out: it is empty. */
  readonly tree?: string;
}

/** Makes a file system for /data. */
export async function makeDataDisk({ path, sizeBytes, tree }: DataDiskOptions): Promise<void> {
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
  const ready = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard";
  const from = tree === undefined ? [] : ["-d", tree];
  await outputOf([pathOf("mke2fs"), "-q", "-F", "-t", "ext4", "-E", ready, ...from, path]);
}

// --- internal ---

/** Busybox has simpler ones of some, and its shell prefers those; the tests shall use what users have. */
const PROGRAMS = [
  ...["mkfs.ext4", "e2fsck", "blkdiscard", "blockdev", "losetup", "dmsetup", "fio"],
  ...[
    "dash",
    "dd",
    "sha256sum",
    "timeout",
    "cmp",
    "setpriv",
    "mount",
    "umount",
    "fstrim",
    "tc",
    "busybox",
  ],
] as const;

const MODULES = [
  ...["virtio_pci", "virtio_blk", "ext4", "ublk_drv", "loop", "dm_mod", "dm_crypt"],
  ...["dm_flakey", "dm_delay", "aesni_intel", "xts", "sch_netem"],
] as const;

const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/sbin:/usr/bin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
stty -F /dev/ttyS1 -opost 2>/dev/null
mount -t ext4 -o ro /dev/vda /root
for folder in proc sys dev; do mount -o move /$folder /root/$folder; done
for folder in tmp run mnt; do mount -t tmpfs tmpfs /root/$folder; done
mkdir /root/dev/shm /root/tmp/files
mount -t tmpfs tmpfs /root/dev/shm
cp /script /root/tmp/
if [ -e /files ]; then cp /files/* /root/tmp/files/; fi
if [ -e /root/dev/vdb ]; then mount -t ext4 -o noatime /root/dev/vdb /root/data; fi
echo guest-begin >/root/dev/ttyS1
chroot /root /bin/dash /tmp/script >/root/dev/ttyS1 2>&1
echo "guest-exit=$?" >/root/dev/ttyS1
if [ -e /root/dev/vdb ]; then umount /root/data || umount -l /root/data; sync; fi
poweroff -f
`;

function kernelChoice(suite: UblkSuite): KernelChoice {
  return `guest-ublk/${suite}`;
}

function drive(id: string, path: string, options: string): readonly string[] {
  const file = path.replaceAll(",", ",,");
  return [
    ...["-drive", `if=none,id=${id},format=raw,file=${file},${options}`],
    ...["-device", `virtio-blk-pci,drive=${id}`],
  ];
}

const baseArchives = new Map<UblkSuite, Promise<Uint8Array>>();

/** Everything in memory but the script; the same for every boot of this process. */
function baseArchive(suite: UblkSuite): Promise<Uint8Array> {
  const archive = baseArchives.get(suite) ?? buildBaseArchive(suite);
  baseArchives.set(suite, archive);
  return archive;
}

async function buildBaseArchive(suite: UblkSuite): Promise<Uint8Array> {
  const modules = await kernelModules(await guestKernel(kernelChoice(suite)), MODULES);
  const empty = (name: string): ArchiveEntry => ({ path: `${name}/.keep`, content: "" });
  return packArchive([
    { path: "init", content: INIT },
    { path: "bin/busybox", content: readFileSync(pathOf("busybox")) },
    { path: "modules/order", content: modules.map(({ name }) => name).join("\n") },
    ...modules.map(({ name, content }) => ({ path: `modules/${name}.ko`, content })),
    ...["proc", "sys", "dev", "root"].map(empty),
  ]);
}

/** The image of the root, made anew when a program in it has changed. */
async function rootDisk(): Promise<string> {
  const files = new Map([["bin/ubiblk", EXECUTABLE]]);
  for (const program of PROGRAMS) {
    files.set(`bin/${program}`, pathOf(program));
  }
  for (const path of [...files.values()]) {
    for (const library of await librariesOf(path)) {
      files.set(library.slice(1), library);
    }
  }
  const stamp = [...files].map(([target, path]) => `${target} ${identityOf(path)}`).join("\n");
  const folder = join(BUILD_FOLDER, "guest-ublk-root"); // not beside the kernels, which several trees may share
  mkdirSync(folder, { recursive: true });
  const imagePath = join(folder, "root.img");
  const stampPath = join(folder, "root.files");
  const isCurrent = existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp;
  if (!isCurrent || !existsSync(imagePath)) {
    rmSync(stampPath, { force: true });
    await makeRootDisk(imagePath, files);
    writeFileSync(stampPath, stamp);
  }
  return imagePath;
}

async function makeRootDisk(path: string, files: ReadonlyMap<string, string>): Promise<void> {
  const tree = mkdtempSync(join(dirname(path), "root-"));
  const partPath = `${tree}.img`;
  try {
    for (const name of ["bin", "proc", "sys", "dev", "tmp", "run", "mnt", "data", "etc"]) {
      mkdirSync(join(tree, name));
    }
    for (const [target, source] of files) {
      mkdirSync(join(tree, dirname(target)), { recursive: true });
      copyFileSync(source, join(tree, target), constants.COPYFILE_FICLONE);
    }
    const applets = (await outputOf([pathOf("busybox"), "--list"])).trim().split("\n");
    for (const applet of applets.filter((name) => !files.has(`bin/${name}`))) {
      symlinkSync("busybox", join(tree, "bin", applet));
    }
    writeFileSync(join(tree, "etc", "passwd"), PASSWD);
    symlinkSync("/proc/mounts", join(tree, "etc", "mtab"));
    await makeDataDisk({ path: partPath, sizeBytes: ROOT_BYTES, tree });
    renameSync(partPath, path);
  } finally {
    rmSync(tree, { recursive: true, force: true });
    rmSync(partPath, { force: true });
  }
}

const PASSWD = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";

/** Room for the programs; what is not used takes none. */
const ROOT_BYTES = 512 * 2 ** 20;

/** Those that the loader finds; none of a static program. */
async function librariesOf(path: string): Promise<readonly string[]> {
  const child = Bun.spawn(["ldd", path], { stdout: "pipe", stderr: "ignore" });
  const output = await child.stdout.text();
  return [...output.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? "");
}

function identityOf(path: string): string {
  const { size, mtimeMs } = statSync(path);
  return `${path} ${size} ${mtimeMs}`;
}
