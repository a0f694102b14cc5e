/**
 * One start of an emulated machine: a kernel, a root file system in memory, and two serial lines that are
 * files here. The first carries what kernel and firmware say, the second what the script printed, between
 * `guest-begin` and `guest-exit=N`; an init written by the caller keeps to that.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
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

/** From the start of the emulator to the script's; on an idle machine that is some seconds. */
export const BOOT_MS = 90_000;
export const BOOTS = 3;

/**
 * Boots a guest and waits until it has powered off. Emulators now and then let an innocent kernel panic at boot (seen
 * without any disk), lose the timer of a processor so that it waits for ever, or end by an assertion of their own: such
 * a boot is tried again, and said so.
 */
export async function bootGuest(machine: GuestMachine): Promise<GuestResult> {
  for (let boot = 1; ; boot++) {
    const result = await bootOnce(machine);
    const isBroken = /Kernel panic|Oops|Assertion .* failed|did not come up/.test(result.console);
    if (result.hasBegun || !isBroken || boot === BOOTS) {
      return result;
    }
    console.log("guest: kernel or emulator broke before the script began; booting once more");
  }
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
  const outputPath = join(folder, "output");
  const stuck = new AbortController();
  const watch = setTimeout(() => {
    if (!existsSync(outputPath) || statSync(outputPath).size === 0) {
      stuck.abort();
    }
  }, BOOT_MS);
  try {
    writeFileSync(join(folder, "initramfs"), Buffer.concat(machine.initramfs));
    const result = await runCommand(emulatorCommand(machine, folder), {
      timeoutMs: machine.timeoutMs,
      signal: stuck.signal,
    });
    const consoleText = readFileSync(join(folder, "console"), "utf8");
    const printed = readFileSync(outputPath, "utf8").replaceAll("\r\n", "\n");
    const ending = /^guest-exit=(\d+)$/m.exec(printed);
    const note = result.isTimedOut
      ? "\nthe guest ran out of time"
      : stuck.signal.aborted
        ? `\nthe guest did not come up within ${BOOT_MS / 1000} s`
        : "";
    return {
      exitCode: ending === null ? undefined : Number(ending[1]),
      hasBegun: printed.startsWith("guest-begin"),
      output: printed.replace(/^guest-(begin|exit=\d+)\n/gm, ""),
      console: `${consoleText}${result.stdout}${result.stderr}${note}`,
      durationMs: result.durationMs,
    };
  } finally {
    clearTimeout(watch);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param folder has `initramfs`; the serial lines go there */
export function emulatorCommand(machine: GuestMachine, folder: string): string[] {
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
