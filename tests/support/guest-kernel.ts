/**
 * A guest's kernel: one of the distribution's own packages, which scripts/setup.sh put into
 * build/guest, or into build/guest-ublk for a kernel with the ublk driver. It is unpacked, not installed; the kernel is taken out of its self-extracting image,
 * which an emulated machine starts faster, and of the modules only those that are needed are used.
 */
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import { outputOf } from "../../scripts/command.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");

/** This machine's distribution's own, or that of a later suite, which has the ublk driver. */
export type KernelChoice = "guest" | "guest-ublk/trixie" | "guest-ublk/sid";

export interface GuestKernel {
  readonly name: string;
  readonly imagePath: string;
  readonly modulesFolder: string;
}

export interface KernelModule {
  readonly name: string;
  readonly content: Uint8Array;
}

/** Whether the packages are there; without them there is no guest. */
export function hasGuestKernel(choice: KernelChoice = "guest"): boolean {
  return packages(join(BUILD_FOLDER, choice)).length > 0;
}

/** Unpacks the kernel unless that has been done. @throws Error when a package is not as expected */
export async function guestKernel(choice: KernelChoice = "guest"): Promise<GuestKernel> {
  const source = join(BUILD_FOLDER, choice);
  const names = packages(source).map((path) => basename(path));
  const folder = join(source, `kernel-${Bun.hash(names.join("\n")).toString(16)}`);
  if (!existsSync(folder)) {
    await unpackPackages(source, folder);
  }
  const modulesRoot = ["lib", "usr/lib"]
    .map((path) => join(folder, path, "modules"))
    .find(existsSync);
  const name = readdirSync(modulesRoot ?? folder).find((each) => /^\d/.test(each));
  if (modulesRoot === undefined || name === undefined) {
    throw new Error(`${folder} holds no kernel modules`);
  }
  return { name, imagePath: join(folder, "vmlinux"), modulesFolder: join(modulesRoot, name) };
}

/**
 * The named modules and what they depend on, each after what it needs. One that the kernel has built
 * in is left out; one that does not exist at all is an error.
 */
export async function kernelModules(
  kernel: GuestKernel,
  names: readonly string[],
): Promise<readonly KernelModule[]> {
  const files = new Map<string, string>();
  for (const file of new Bun.Glob("**/*.ko{,.xz,.zst,.gz}").scanSync(kernel.modulesFolder)) {
    files.set(moduleName(file), join(kernel.modulesFolder, file));
  }
  const builtin = readFileSync(join(kernel.modulesFolder, "modules.builtin"), "utf8");
  const builtinNames = new Set(builtin.trim().split("\n").map(moduleName));
  const loaded = new Map<string, KernelModule>();
  const visit = async (name: string): Promise<void> => {
    const file = files.get(name);
    if (loaded.has(name) || (file === undefined && builtinNames.has(name))) {
      return;
    }
    if (file === undefined) {
      throw new Error(`kernel ${kernel.name} has no module ${name}`);
    }
    const content = await unpacked(file);
    for (const dependency of dependencies(content)) {
      await visit(dependency);
    }
    loaded.set(name, { name, content });
  };
  for (const name of names) {
    await visit(name);
  }
  return [...loaded.values()];
}

// --- internal ---

/** Two test files may do it at once: what is whole is put in place, by whoever is first. */
async function unpackPackages(source: string, folder: string): Promise<void> {
  const part = mkdtempSync(join(source, "unpacking-"));
  try {
    for (const path of packages(source)) {
      await outputOf(["dpkg-deb", "-x", path, part]);
    }
    const image = onlyFile(part, "**/vmlinuz*");
    writeFileSync(join(part, "vmlinux"), await unpackedKernel(readFileSync(image)));
    try {
      renameSync(part, folder);
    } catch (error) {
      if (!existsSync(folder)) {
        throw error;
      }
    }
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
}

function packages(folder: string): readonly string[] {
  if (!existsSync(folder)) {
    return [];
  }
  const names = readdirSync(folder).filter((name) => name.endsWith(".deb"));
  return names.sort().map((name) => join(folder, name));
}

function onlyFile(folder: string, pattern: string): string {
  const found = [...new Bun.Glob(pattern).scanSync(folder)];
  const [name] = found;
  if (name === undefined || found.length > 1) {
    throw new Error(`${folder} must hold one file like ${pattern}, it holds ${found.length}`);
  }
  return join(folder, name);
}

/** virtio_blk for kernel/drivers/block/virtio_blk.ko.xz: the kernel takes - and _ for the same. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, "")
    .replaceAll("-", "_");
}

/** A module's .modinfo section holds `depends=a,b`, ended by a zero byte. */
function dependencies(content: Uint8Array): readonly string[] {
  const text = Buffer.from(content).toString("latin1");
  const list = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? "";
  return list === "" ? [] : list.split(",").map(moduleName);
}

async function unpacked(path: string): Promise<Uint8Array> {
  const program = { ".xz": "xz", ".zst": "zstd", ".gz": "gzip" }[/\.\w+$/.exec(path)?.[0] ?? ""];
  return program === undefined
    ? readFileSync(path)
    : await filter([program, "-dc"], readFileSync(path));
}

/**
 * A bzImage carries the compressed kernel behind its set-up code (Documentation/arch/x86/boot.rst:
 * setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c), followed by its size.
 */
async function unpackedKernel(image: Uint8Array): Promise<Uint8Array> {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const setupSectors = view.getUint8(0x1f1) || 4;
  const start = (setupSectors + 1) * 512 + view.getUint32(0x248, true);
  const payload = image.subarray(start, start + view.getUint32(0x24c, true) - 4);
  const magic = Buffer.from(payload.subarray(0, 4)).toString("hex");
  const programs: Readonly<Record<string, string>> = {
    fd377a58: "xz",
    "02214c18": "lz4",
    "28b52ffd": "zstd",
  };
  const program = magic.startsWith("1f8b") ? "gzip" : programs[magic];
  if (program === undefined) {
    return image; // this starts as well, only slower
  }
  return await filter([program, "-dc"], payload);
}

async function filter(command: readonly string[], input: Uint8Array): Promise<Uint8Array> {
  const child = Bun.spawn([...command], { stdin: input, stdout: "pipe", stderr: "pipe" });
  const [output, problem, exitCode] = await Promise.all([
    child.stdout.bytes(),
    child.stderr.text(),
    child.exited,
  ]);
  if (exitCode !== 0) {
    throw new Error(`${command.join(" ")}: exit code ${exitCode}: ${problem.trim()}`);
  }
  return output;
}
