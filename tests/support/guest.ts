/**
 * A Linux guest in QEMU whose disk /dev/vda is served over vhost-user-blk. It is emulated (no need for
 * KVM), boots a busybox root from memory, runs one script, hands back what the script printed on the
 * second serial line, and powers off.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { guestKernel, kernelModules } from "./guest-kernel.ts";
import { type ArchiveEntry, packArchive, programEntries } from "./initramfs.ts";
import { isInstalled } from "./requires.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const EMULATOR = "qemu-system-x86_64";
const DISK_PROGRAMS = ["mkfs.ext4", "e2fsck", "blkdiscard"] as const;
const MODULES = ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"] as const;

export interface GuestOptions {
  readonly socketPath: string;
  /** Run by the guest's shell with `set -eu`; what it prints comes back. */
  readonly script: string;
  /** Left out: as many as QEMU chooses by itself. */
  readonly queueCount?: number;
  readonly cpuCount?: number;
  readonly memoryMiB?: number;
  readonly timeoutMs?: number;
}

export interface GuestResult {
  /** The script's own exit code; undefined when the guest never got to its end. */
  readonly exitCode: number | undefined;
  readonly hasBegun: boolean;
  readonly output: string;
  /** What the firmware and the kernel said, and QEMU itself. */
  readonly console: string;
  readonly durationMs: number;
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

/**
 * Boots a guest and waits until it has powered off. The emulator of QEMU 7 now and then lets an
 * innocent kernel panic at boot (seen without any disk): such a boot is tried once more, and said so.
 */
export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  const result = await bootOnce(options);
  if (result.hasBegun || !/Kernel panic|Oops/.test(result.console)) {
    return result;
  }
  console.log("guest: the kernel panicked before the script began; booting once more");
  return await bootOnce(options);
}

/** `key=value` lines of what a script printed. */
export function valuesOf(result: GuestResult): Readonly<Record<string, string>> {
  const pairs = [...result.output.matchAll(/^([a-z_]+)=(.*?)\r?$/gm)];
  return Object.fromEntries(pairs.map((match) => [match[1] ?? "", match[2] ?? ""]));
}

// --- internal ---

async function bootOnce(options: GuestOptions): Promise<GuestResult> {
  const kernel = await guestKernel();
  baseArchive ??= buildBaseArchive();
  const folder = mkdtempSync(join(BUILD_FOLDER, "guest-run-"));
  try {
    const script = packArchive([{ path: "script", content: `set -eu\n${options.script}\n` }]);
    const archivePath = join(folder, "initramfs");
    writeFileSync(archivePath, Buffer.concat([await baseArchive, script]));
    const result = await runCommand(emulatorCommand(options, kernel.imagePath, folder), {
      timeoutMs: options.timeoutMs ?? 180_000,
    });
    const consoleText = readFileSync(join(folder, "console"), "utf8");
    const printed = readFileSync(join(folder, "output"), "utf8").replaceAll("\r\n", "\n");
    const ending = /^guest-exit=(\d+)$/m.exec(printed);
    const note = result.isTimedOut ? "\nthe guest ran out of time" : "";
    return {
      exitCode: ending === null ? undefined : Number(ending[1]),
      hasBegun: printed.startsWith("guest-begin"),
      output: printed.replace(/^guest-(begin|exit=\d+)\n/gm, ""),
      console: `${consoleText}${result.stdout}${result.stderr}${note}`,
      durationMs: result.durationMs,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function emulatorCommand(options: GuestOptions, kernelPath: string, folder: string): string[] {
  const memory = `${options.memoryMiB ?? 512}M`;
  const queues = options.queueCount === undefined ? "" : `,num-queues=${options.queueCount}`;
  const words = "console=ttyS0 quiet panic=-1 tsc=unstable random.trust_cpu=on";
  return [
    ...[EMULATOR, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", `${options.cpuCount ?? 1}`],
    ...["-m", memory, "-machine", "q35,memory-backend=mem"],
    ...["-object", `memory-backend-memfd,id=mem,size=${memory},share=on`],
    ...["-kernel", kernelPath, "-initrd", join(folder, "initramfs"), "-append", words],
    ...["-serial", `file:${join(folder, "console")}`, "-serial", `file:${join(folder, "output")}`],
    ...["-chardev", `socket,id=disk,path=${options.socketPath}`],
    ...["-device", `vhost-user-blk-pci,chardev=disk${queues}`],
  ];
}

let baseArchive: Promise<Uint8Array> | undefined;

const INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/sbin:/usr/bin:/bin
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
stty -F /dev/ttyS1 -opost 2>/dev/null
echo guest-begin >/dev/ttyS1
sh /script >/dev/ttyS1 2>&1
echo "guest-exit=$?" >/dev/ttyS1
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

function pathOf(program: string): string {
  const path = Bun.which(program, { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin` });
  if (path === null) {
    throw new Error(`${program} is not installed`);
  }
  return path;
}
