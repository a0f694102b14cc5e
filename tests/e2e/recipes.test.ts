/**
 * The recipes of docs/recipes.md, run as they stand there: a guest of each front end that this kind of machine can run makes
 * a file system on its disk and checks it. Emulated processors take the place of KVM, which the recipes let the reader choose.
 */
import { expect } from "bun:test";
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type CommandResult, outputOf } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { commandsOf } from "../support/document-commands.ts";
import { Home } from "../support/document-home.ts";
import { guestInitramfs, missingForGuest, valuesOf } from "../support/guest.ts";
import { EMULATOR, EMULATOR_FOLDER, newestEmulator } from "../support/guest-boot.ts";
import { guestKernel, hasGuestKernel } from "../support/guest-kernel.ts";
import { isInstalled, skipUnless } from "../support/requires.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { succeeds, testIn } from "../support/ublk-script.ts";

const GUEST_TIMEOUT_MS = 300_000;
const PAGE = "docs/recipes.md";
const missing = missingForGuest(hasGuestKernel());
const DISK = commandsOf(PAGE, "A disk");
const DISK_AND_BACKEND = `${DISK}${commandsOf(PAGE, "A backend")}`;

/** Of the guest: what is written is read back, on a disk of the size that the recipe makes. */
const FILE_SYSTEM_LIFE = `
[ $(cat /sys/block/vda/size) = 2097152 ]
mkfs.ext4 -q /dev/vda
mount -t ext4 /dev/vda /mnt
head -c 3000000 /dev/urandom >/mnt/file
sum=$(sha256sum </mnt/file)
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum </mnt/file)" = "$sum" ]
umount /mnt
e2fsck -fn /dev/vda
`;

skipUnless(missing ?? "", missing === undefined)(
  "QEMU: a guest uses the disk",
  async () => {
    const said = await booted(runMachine);
    expect(said).not.toContain(TIMED_OUT);
    expect(said).toMatch(/^guest-exit=0\r?$/m);
  },
  2 * GUEST_TIMEOUT_MS,
);

const libvirtPrograms = ["libvirtd", "virsh", "virt-xml-validate", "xmllint", "setpriv"];
const missingProgram = libvirtPrograms.find((program) => !isInstalled(program));
const missingForLibvirt =
  missing ?? (missingProgram === undefined ? undefined : `${missingProgram} is not installed`);

skipUnless(missingForLibvirt ?? "", missingForLibvirt === undefined)(
  "libvirt: a domain uses the disk",
  async () => {
    expect(await booted(runDomain)).toMatch(/^guest-exit=0\r?$/m);
  },
  2 * GUEST_TIMEOUT_MS,
);

testIn("trixie", "ublk: this machine uses the disk, and nothing of it is left behind", async () => {
  using disk = await UblkDisk.make({ kind: "plain", sizeMiB: 64 });
  const [serve = "", end = ""] = commandsOf(PAGE, "This machine: ublk").split(/^(?=umount)/m);
  const script = `
export HOME=/data
modprobe() { [ "$1" = ublk_drv ]; } # there already: the guest has no tree of modules to look in
${DISK}
${serve}
head -c 3000000 /dev/urandom >/mnt/vm1/file
sync
echo "size=$(cat /sys/block/ublkb0/size)"
${end}
echo "left=$(ls /dev | grep -c ublkb || true)"
`;
  const values = valuesOf(await succeeds({ suite: "trixie", script, dataDisk: disk.path }));
  expect(values).toMatchObject({ size: "2097152", left: "0" });
});

// --- internal ---

const TIMED_OUT = "the guest ran out of time";

/** What a guest printed. A boot that does not get to its script is tried once more: that is emulation (guest-boot.ts). */
async function booted(run: () => Promise<string>): Promise<string> {
  const first = await run();
  return first.includes("guest-begin") ? first : await run();
}

/** What a machine started by the recipe printed. */
async function runMachine(): Promise<string> {
  using home = new GuestHome();
  await home.prepare();
  home.prepareEmulator();
  const script = `${DISK_AND_BACKEND}\n${commandsOf(PAGE, "QEMU")}`;
  const { stdout, isTimedOut } = await home.runGuest(script);
  return isTimedOut ? `${stdout}\n${TIMED_OUT}` : stdout;
}

/** What a domain made by the recipe printed until it was off, which is seen to when its boot hangs. */
async function runDomain(): Promise<string> {
  using home = new GuestHome();
  await home.prepare();
  const result = await home.runGuest(`
libvirtd --timeout 60 &
manager=$!
until virsh version; do kill -0 $manager; sleep 0.2; done
${DISK_AND_BACKEND}
${commandsOf(PAGE, "libvirt")}
looks=0
until [ "$(virsh domstate vm1)" = "shut off" ]; do
  sleep 0.5
  looks=$((looks + 1))
  if [ $looks = 180 ] && ! grep -q guest-begin console.log; then virsh destroy vm1; fi
done
virsh undefine vm1
kill $manager
wait $manager
`);
  expect(result.exitCode === 0 ? "" : result.stderr).toBe("");
  expect(result.stderr).toContain("vm1.xml validates");
  return readFileSync(join(home.path, "vm1", "console.log"), "utf8");
}

const NOBODY = "65534";

/**
 * A home with a kernel and a root for a guest, and with the executable, where everything runs as an ordinary user:
 * libvirt's daemon would else be the one of the whole machine.
 */
class GuestHome extends Home {
  readonly #environment = {
    KERNEL: this.#file("kernel"),
    INITRD: this.#file("initrd"),
    ACCEL: "tcg,thread=multi",
    VIRT_TYPE: "qemu",
    LIBVIRT_DEFAULT_URI: "qemu:///session",
    // Else a client that finds no daemon yet starts one, and the test's own ends at once, as the second.
    LIBVIRT_AUTOSTART: "0",
    XDG_RUNTIME_DIR: this.#file("run"),
    XDG_CONFIG_HOME: this.#file("config"),
    XDG_CACHE_HOME: this.#file("cache"),
    XDG_DATA_HOME: this.#file("data"),
    PATH: `${this.path}:/usr/sbin:/usr/bin:/sbin:/bin`,
  } as const;

  async prepare(): Promise<void> {
    const { KERNEL, INITRD, XDG_RUNTIME_DIR, XDG_CONFIG_HOME } = this.#environment;
    copyFileSync(EXECUTABLE, this.#file("ubiblk"));
    copyFileSync((await guestKernel()).imagePath, KERNEL);
    writeFileSync(INITRD, Buffer.concat(await guestInitramfs(FILE_SYSTEM_LIFE)));
    mkdirSync(XDG_RUNTIME_DIR, { mode: 0o700 });
    mkdirSync(join(XDG_CONFIG_HOME, "libvirt"), { recursive: true });
    // Else the daemon starts another one, for the guests' output, that outlives it.
    writeFileSync(join(XDG_CONFIG_HOME, "libvirt", "qemu.conf"), 'stdio_handler = "file"\n');
  }

  /** Two processors are more than the emulation of QEMU before 9 takes: there a newer one comes first in PATH. */
  prepareEmulator(): void {
    if (existsSync(EMULATOR_FOLDER)) {
      const folder = this.#file("emulator");
      cpSync(EMULATOR_FOLDER, folder, { recursive: true });
      const script = `#!/bin/sh\nexec ${newestEmulator(folder).join(" ")} "$@"\n`;
      writeFileSync(this.#file(EMULATOR), script, { mode: 0o755 });
    }
  }

  async runGuest(script: string): Promise<CommandResult> {
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) {
      await outputOf(["chown", "-R", `${NOBODY}:${NOBODY}`, this.path]);
    }
    const user = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
    return await this.run(script, {
      environment: this.#environment,
      command: isRoot ? user : [],
      timeoutMs: GUEST_TIMEOUT_MS - 5_000,
    });
  }

  #file(name: string): string {
    return join(this.path, name);
  }
}
