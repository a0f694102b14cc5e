/**
 * One start of an emulated machine: a kernel, a root file system in memory, and two serial lines that are
 * files here. The first carries what kernel and firmware say, the second what the script printed, between
 * `guest-begin` and `guest-exit=N`; an init written by the caller keeps to that.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";

export const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
export const EMULATOR_FOLDER = join(BUILD_FOLDER, "guest-ublk", "emulator");
export const EMULATOR = "qemu-system-x86_64";

export interface GuestResult {
  /** The script's own exit code; undefined when the guest never got to its end. */
  readonly exitCode: number | undefined;
  readonly hasBegun: boolean;
  readonly output: string;
  /** What the firmware and the kernel said, and QEMU itself. */
  readonly console: string;
  readonly durationMs: number;
}

export interface GuestMachine {
  /** How the emulator is started; left out: the installed one. */
  readonly emulator?: readonly string[];
  readonly kernelPath: string;
  /** Archives of the root file system, one behind the other. */
  readonly initramfs: readonly Uint8Array[];
  readonly cpuCount: number;
  readonly memoryMiB: number;
  /** Further arguments of QEMU. Memory is the object `mem`, shared as vhost-user needs it. */
  readonly devices: readonly string[];
  /** Further words of the kernel's command line. */
  readonly words?: string;
  readonly timeoutMs: number;
}

/**
 * Boots a guest and waits until it has powered off. The emulator of QEMU 7 now and then lets an
 * innocent kernel panic at boot (seen without any disk), or ends by an assertion of its own: such a boot is tried
 * once more, and said so.
 */
export async function bootGuest(machine: GuestMachine): Promise<GuestResult> {
  const result = await bootOnce(machine);
  if (result.hasBegun || !/Kernel panic|Oops|Assertion .* failed/.test(result.console)) {
    return result;
  }
  console.log("guest: the kernel or its emulator broke before the script began; booting once more");
  return await bootOnce(machine);
}

/**
 * A newer emulator than is installed, where scripts/setup.sh saw need for it; its firmware is the installed one's.
 * @param folder where it is
 */
export function newestEmulator(folder = EMULATOR_FOLDER): readonly string[] {
  const program = join(folder, "usr", "bin", EMULATOR);
  return existsSync(program)
    ? [program, "-L", join(folder, "usr", "share", "qemu"), "-L", "/usr/share/seabios"]
    : [EMULATOR];
}

/** Where a program of this machine is; the administrator's programs are not in every PATH. */
export function pathOf(program: string): string {
  const path = Bun.which(program, { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin` });
  if (path === null) {
    throw new Error(`${program} is not installed`);
  }
  return path;
}

// --- internal ---

async function bootOnce(machine: GuestMachine): Promise<GuestResult> {
  const folder = mkdtempSync(join(BUILD_FOLDER, "guest-run-"));
  try {
    writeFileSync(join(folder, "initramfs"), Buffer.concat(machine.initramfs));
    const result = await runCommand(emulatorCommand(machine, folder), {
      timeoutMs: machine.timeoutMs,
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

function emulatorCommand(machine: GuestMachine, folder: string): string[] {
  const memory = `${machine.memoryMiB}M`;
  const words = "console=ttyS0 quiet panic=-1 tsc=unstable random.trust_cpu=on";
  const moreWords = machine.words === undefined ? "" : ` ${machine.words}`;
  return [
    ...(machine.emulator ?? [EMULATOR]),
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", `${machine.cpuCount}`],
    ...["-m", memory, "-machine", "q35,memory-backend=mem"],
    ...["-object", `memory-backend-memfd,id=mem,size=${memory},share=on`],
    ...["-kernel", machine.kernelPath],
    ...["-initrd", join(folder, "initramfs"), "-append", `${words}${moreWords}`],
    ...["-serial", `file:${join(folder, "console")}`, "-serial", `file:${join(folder, "output")}`],
    ...machine.devices,
  ];
}
