/**
 * A Linux guest in QEMU whose disk /dev/vda is served over vhost-user-blk. It is emulated (no need for
 * KVM), boots a busybox root from memory, runs one script, hands back what the script printed on the
 * second serial line, and powers off.
 */
import { readFileSync } from "node:fs";
import { bootGuest, EMULATOR, type GuestResult, pathOf } from "./guest-boot.ts";
import { guestKernel, kernelModules } from "./guest-kernel.ts";
import { type ArchiveEntry, packArchive, programEntries } from "./initramfs.ts";
import { isInstalled } from "./requires.ts";

const DISK_PROGRAMS = ["mkfs.ext4", "e2fsck", "blkdiscard"] as const;
const MODULES = ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"] as const;

export type { GuestResult };

export interface GuestOptions {
  readonly socketPath: string;
  /** Run by the guest's shell with `set -eu`; what it prints comes back. */
  readonly script: string;
  /** Left out: as many as QEMU chooses by itself. */
  readonly queueCount?: number;
  /** Offer the guest packed rings. */
  readonly isPacked?: boolean;
  /** QEMU looks for a backend that ended every second. */
  readonly isReconnecting?: boolean;
  /** Further arguments of QEMU, for devices behind the disk. */
  readonly moreDevices?: readonly string[];
  readonly cpuCount?: number;
  readonly memoryMiB?: number;
  readonly timeoutMs?: number;
}

/** What this machine lacks to run a guest, as a reason for skipping; undefined when nothing. */
export function missingForGuest(hasKernel: boolean): string | undefined {
  const programs = [EMULATOR, "busybox", "ldd", ...DISK_PROGRAMS];
  const missing = programs.find((program) => !isInstalled(program));
  if (missing !== undefined) {
    return `${missing} is not installed`;
  }
  return hasKernel ? undefined : "no kernel package in build/guest: run scripts/setup.sh test";
}

/** Boots a guest on the disk behind that socket, and waits until it has powered off. */
export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  const kernel = await guestKernel();
  const queues = options.queueCount === undefined ? "" : `,num-queues=${options.queueCount}`;
  const reconnect = options.isReconnecting === true ? ",reconnect=1" : "";
  const packed = options.isPacked === true ? ",packed=on" : "";
  return await bootGuest({
    kernelPath: kernel.imagePath,
    initramfs: await guestInitramfs(options.script),
    cpuCount: options.cpuCount ?? 1,
    memoryMiB: options.memoryMiB ?? 512,
    devices: [
      ...["-chardev", `socket,id=disk,path=${options.socketPath}${reconnect}`],
      ...["-device", `vhost-user-blk-pci,chardev=disk${queues}${packed}`],
      ...(options.moreDevices ?? []),
    ],
    timeoutMs: options.timeoutMs ?? 480_000,
  });
}

/** The root of a guest that runs `script`: on its second serial line, or its first one where it has no other. */
export async function guestInitramfs(script: string): Promise<Uint8Array[]> {
  baseArchive ??= buildBaseArchive();
  const content = `set -eu\n${script}\n`;
  return [await baseArchive, packArchive([{ path: "script", content }])];
}

/** `key=value` lines of what a script printed. */
export function valuesOf(result: Pick<GuestResult, "output">): Readonly<Record<string, string>> {
  const pairs = [...result.output.matchAll(/^([a-z_]+)=(.*?)\r?$/gm)];
  return Object.fromEntries(pairs.map((match) => [match[1] ?? "", match[2] ?? ""]));
}

// --- internal ---

let baseArchive: Promise<Uint8Array> | undefined;

const INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/sbin:/usr/bin:/bin
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
line=/dev/ttyS1
grep -q '^1: uart:unknown' /proc/tty/driver/serial && line=/dev/ttyS0
stty -F $line -opost 2>/dev/null
echo guest-begin >$line
sh /script >$line 2>&1
echo "guest-exit=$?" >$line
poweroff -f
`;

/** Everything but the script; the same for every boot of this process. */
async function buildBaseArchive(): Promise<Uint8Array> {
  const modules = await kernelModules(await guestKernel(), MODULES);
  const files = new Map<string, ArchiveEntry>();
  for (const program of DISK_PROGRAMS) {
    for (const entry of await programEntries(pathOf(program), `sbin/${program}`)) {
      files.set(entry.path, entry);
    }
  }
  const order = modules.map(({ name }) => name).join("\n");
  return packArchive([
    { path: "init", content: INIT },
    { path: "bin/busybox", content: readFileSync(pathOf("busybox")) },
    { path: "modules/order", content: order },
    ...modules.map(({ name, content }) => ({ path: `modules/${name}.ko`, content })),
    ...["proc", "sys", "dev", "tmp", "mnt"].map((name) => ({ path: `${name}/.keep`, content: "" })),
    ...files.values(),
  ]);
}
