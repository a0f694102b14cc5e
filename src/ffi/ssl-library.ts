/**
 * The second native library (ffi/ssl/): OpenSSL, for what the first one cannot do. It is embedded like the
 * first, and read and loaded only when something asks for it, 4 MB and some milliseconds later.
 */
import { dlopen, linkSymbols, type Pointer } from "bun:ffi";
import { readFileSync } from "node:fs";
import embeddedLibrary from "../../build/libubissl.so" with { type: "file" };
import { errorText, UbiError } from "../errors.ts";
import { readTable, sealedLibraryPath } from "./library.ts";

/** Its functions by name; the first call in a thread loads it. @throws UbiError E_NATIVE_LIBRARY */
export function sslFunctions(): ReadonlyMap<string, Pointer> {
  functions ??= load();
  return functions;
}

// --- internal ---

let functions: ReadonlyMap<string, Pointer> | undefined;

function load(): ReadonlyMap<string, Pointer> {
  const table = readTable(tableAddress());
  const start = table.get("ubi_ssl_start");
  if (start === undefined || startLibrary(start) !== 0) {
    throw new UbiError("E_NATIVE_LIBRARY", "the second native library does not start");
  }
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
