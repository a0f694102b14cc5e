/** The native library's mechanism in C, under the address and undefined-behaviour sanitizers. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { outputOf } from "../../scripts/command.ts";

const FFI = resolve(import.meta.dir, "..", "..", "ffi");
const SOURCES = ["tests/mechanism_test.c", "event.c", "file.c", "memory.c", "socket.c"];
const FLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O1", "-g"];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

test("sockets, events, files, memory and its guard: as expected, and clean", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-native-"));
  const program = join(folder, "mechanism");
  const sources = SOURCES.map((name) => join(FFI, name));
  await outputOf(["gcc", ...FLAGS, ...SANITIZERS, "-o", program, ...sources]);
  expect(await outputOf([program, folder])).toBe("all as expected\n");
  rmSync(folder, { recursive: true });
}, 120_000);
