/**
 * Loads the native library: the executable carries it, it goes into a sealed memfd (nothing is left on
 * disk) and stays there for life. Workers get the address of its table from the main thread, so that
 * all threads share one copy.
 *
 * Traps this file knows: glibc caches a library by its path string, so the memfd is never closed; where
 * the kernel forbids executable memfds an installed copy is used, after its owner and mode are checked.
 */
import { CString, dlopen, type FFIFunction, linkSymbols, type Pointer, read } from "bun:ffi";
import { fstatSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import embeddedLibrary from "../../build/libubi.so" with { type: "file" };
import { errorText, UbiError } from "../errors.ts";

/** What a worker needs to share the main thread's library; part of the first message to every worker. */
export interface NativeInheritance {
  readonly nativeTable: number;
  /** Of the second library (ssl-library.ts), 0 when it has not been loaded. */
  readonly sslTable: number;
}

type Definitions = Readonly<Record<string, Pick<FFIFunction, "args" | "returns">>>;

/**
 * Resolves functions of the library by name.
 * @throws UbiError E_NATIVE_LIBRARY when the library cannot be loaded or lacks a function.
 */
export function link<T extends Definitions>(definitions: T) {
  const table = tableByName();
  const symbols = Object.entries(definitions).map(([name, definition]) => {
    const pointer = table.get(name);
    if (pointer === undefined) {
      throw new UbiError("E_NATIVE_LIBRARY", `the native library has no function ${name}`);
    }
    return [name, { ...definition, ptr: pointer }];
  });
  return linkSymbols<T>(Object.fromEntries(symbols)).symbols;
}

/** In a worker, before anything else of the library: shares the main thread's copy. */
export function adoptNativeLibrary(inheritance: NativeInheritance): void {
  tableAddress = inheritance.nativeTable;
  sslTableAddress = inheritance.sslTable;
}

/** For the first message to a new worker. */
export function nativeInheritance(): NativeInheritance {
  tableByName();
  return { nativeTable: tableAddress, sslTable: sslTableAddress };
}

/** Where the table of the second library is, 0 when nobody has loaded it that this thread knows of. */
export function sslTable(): number {
  return sslTableAddress;
}

/** Workers that this thread starts from here on share the second library. */
export function announceSslTable(address: number): void {
  sslTableAddress = address;
}

/**
 * Puts a library into a sealed memfd and returns a path to load it by.
 * @throws UbiError E_NATIVE_LIBRARY with what to do when the kernel does not allow it.
 */
export function sealedLibraryPath(name: string, image: Uint8Array): string {
  const fd = createExecutableMemfd(name);
  if (fd < 0) {
    return installedLibraryPath(name);
  }
  for (let offset = 0; offset < image.length; ) {
    offset += writeSync(fd, image, offset);
  }
  if (libc().fcntl(fd, F_ADD_SEALS, SEAL_ALL) !== 0) {
    throw new UbiError("E_NATIVE_LIBRARY", `cannot seal the memory of ${name}`);
  }
  return `/proc/self/fd/${fd}`;
}

/** The functions of a library by name, from the address of its table (struct ubi_entry). */
export function readTable(address: number): Map<string, Pointer> {
  const table = new Map<string, Pointer>();
  for (let entry = address; ; entry += 16) {
    const name = read.ptr(entry as Pointer, 0); // the table ends with a null name
    if (name === 0) {
      return table;
    }
    table.set(new CString(name as Pointer).toString(), read.ptr(entry as Pointer, 8) as Pointer);
  }
}

// --- internal ---

const F_ADD_SEALS = 1033;
const SEAL_ALL = 0xf;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
/** Linux 6.3 and later want to be told; earlier kernels refuse the flag with EINVAL. */
const MFD_EXEC = 0x10;

let functions: Map<string, Pointer> | undefined;
let tableAddress = 0;
let sslTableAddress = 0;

function tableByName(): Map<string, Pointer> {
  if (functions === undefined) {
    tableAddress = tableAddress === 0 ? loadTable() : tableAddress;
    functions = readTable(tableAddress);
  }
  return functions;
}

function loadTable(): number {
  const path = sealedLibraryPath("libubi.so", readFileSync(embeddedLibrary));
  try {
    const library = dlopen(path, { ubi_table: { args: [], returns: "ptr" } });
    return Number(library.symbols.ubi_table());
  } catch (error) {
    throw new UbiError("E_NATIVE_LIBRARY", `cannot load the native library: ${errorText(error)}`, {
      cause: error,
    });
  }
}

function createExecutableMemfd(name: string): number {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const label = Buffer.from(`${name}\0`);
  const fd = libc().memfd_create(label, flags | MFD_EXEC);
  return fd >= 0 ? fd : libc().memfd_create(label, flags);
}

function libc() {
  libcSymbols ??= dlopen("libc.so.6", {
    memfd_create: { args: ["ptr", "u32"], returns: "i32" },
    fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  }).symbols;
  return libcSymbols;
}

let libcSymbols:
  | {
      readonly memfd_create: (name: Uint8Array, flags: number) => number;
      readonly fcntl: (fd: number, command: number, argument: number) => number;
    }
  | undefined;

function installedLibraryPath(name: string): string {
  const folders = ["/usr/lib/ubiblk", "/usr/local/lib/ubiblk", dirname(process.execPath)];
  for (const folder of folders) {
    const fd = openInstalled(join(folder, name));
    if (fd >= 0) {
      return `/proc/self/fd/${fd}`;
    }
  }
  throw new UbiError(
    "E_NATIVE_LIBRARY",
    "this system forbids executable memory files (memfd_create, see vm.memfd_noexec); " +
      `install ${name} in ${folders[0]}, owned by root and writable by nobody else`,
  );
}

/** The descriptor stays open: what was checked is what is loaded. */
function openInstalled(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return -1;
    }
    throw new UbiError("E_NATIVE_LIBRARY", `cannot open ${path}: ${errorText(error)}`);
  }
  const info = fstatSync(fd);
  const isOurs = info.uid === 0 || info.uid === process.getuid?.();
  if (!info.isFile() || !isOurs || (info.mode & 0o022) !== 0) {
    throw new UbiError(
      "E_NATIVE_LIBRARY",
      `${path} is not loaded: it must be a file of root or of this user that nobody else may write`,
    );
  }
  return fd;
}
