/**
 * The second native library (ffi/ssl/): OpenSSL, for what the first one cannot do. It is embedded like the
 * first, and read and loaded only when something asks for it, 4 MB and some milliseconds later. Workers share
 * it with the thread that starts them, if that one has loaded it by then; else each loads its own.
 */
import { dlopen, type FFIFunction, linkSymbols, type Pointer } from "bun:ffi";
import { readFileSync } from "node:fs";
import embeddedLibrary from "../../build/libubissl.so" with { type: "file" };
import { errorText, UbiError } from "../errors.ts";
import { announceSslTable, readTable, sealedLibraryPath, sslTable } from "./library.ts";

/** Its functions by name; the first call in a thread loads it. @throws UbiError E_NATIVE_LIBRARY */
export function sslFunctions(): ReadonlyMap<string, Pointer> {
  functions ??= load();
  return functions;
}

/** Resolves functions of it by name. @throws UbiError E_NATIVE_LIBRARY */
export function linkSsl<T extends Readonly<Record<string, Pick<FFIFunction, "args" | "returns">>>>(
  definitions: T,
) {
  const table = sslFunctions();
  const symbols = Object.entries(definitions).map(([name, definition]) => {
    const pointer = table.get(name);
    if (pointer === undefined) {
      throw new UbiError("E_NATIVE_LIBRARY", `the second native library has no function ${name}`);
    }
    return [name, { ...definition, ptr: pointer }];
  });
  return linkSymbols<T>(Object.fromEntries(symbols)).symbols;
}

// --- internal ---

let functions: ReadonlyMap<string, Pointer> | undefined;

function load(): ReadonlyMap<string, Pointer> {
  if (sslTable() !== 0) {
    return readTable(sslTable());
  }
  const address = tableAddress();
  const table = readTable(address);
  const start = table.get("ubi_ssl_start");
  if (start === undefined || startLibrary(start) !== 0) {
    throw new UbiError("E_NATIVE_LIBRARY", "the second native library does not start");
  }
  announceSslTable(address);
  return table;
}

function tableAddress(): number {
  const path = sealedLibraryPath("libubissl.so", readFileSync(embeddedLibrary));
  try {
    const library = dlopen(path, { ubi_ssl_table: { args: [], returns: "ptr" } });
    return Number(library.symbols.ubi_ssl_table());
  } catch (error) {
    const message = `cannot load the second native library: ${errorText(error)}`;
    throw new UbiError("E_NATIVE_LIBRARY", message, { cause: error });
  }
}

function startLibrary(start: Pointer): number {
  const native = linkSymbols({ start: { args: [], returns: "i32", ptr: start } });
  return native.symbols.start();
}
