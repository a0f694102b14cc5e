/** The native library's mechanism in C, under the address and undefined-behaviour sanitizers. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { outputOf } from "../../scripts/command.ts";

const FFI = resolve(import.meta.dir, "..", "..", "ffi");
const MECHANISM = [
  "tests/mechanism_test.c",
  "event.c",
  "file.c",
  "folder.c",
  "memory.c",
  "socket.c",
];
const STREAM = ["tests/stream_test.c", "socket.c", "stream.c"];
const SSL = ["ssl/tls.c", "ssl/table.c", "ssl/xts_portable.c"];
const FLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O1", "-g"];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

test("sockets, events, files, memory and its guard: as expected, and clean", async () => {
  await runNative("mechanism", MECHANISM, []);
}, 120_000);

test("streams and TLS on them: as expected, and clean", async () => {
  await runNative("stream", [...STREAM, ...SSL], ["-l:libssl.a", "-l:libcrypto.a"]);
}, 120_000);

async function runNative(name: string, files: readonly string[], libraries: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-native-"));
  const program = join(folder, name);
  const sources = files.map((file) => join(FFI, file));
  await outputOf(["gcc", ...FLAGS, ...SANITIZERS, "-o", program, ...sources, ...libraries]);
  expect(await outputOf([program, folder])).toBe("all as expected\n");
  rmSync(folder, { recursive: true });
}
