import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import type { KeptSecret } from "../config/kept-secrets.ts";
import { createSharedMemory } from "../ffi/memory.ts";
import { SecretMemory } from "./secret-memory.ts";

const SECRETS: readonly KeptSecret[] = [
  { kind: "secret", name: "key", declaration: "d".repeat(64), bytes: new Uint8Array(64).fill(5) },
  { kind: "variable", name: "TOKEN", declaration: "", bytes: new Uint8Array(8191).fill(6) },
  { kind: "secret", name: "ü", declaration: "e".repeat(64), bytes: Uint8Array.of(7) },
];

test("secrets come as they were put in; then nothing of them is left", () => {
  using memory = SecretMemory.holding(SECRETS);
  const given = openSync(`/proc/self/fd/${memory.fd}`, "r+");
  expect(SecretMemory.take(given)).toEqual(SECRETS);
  expect(readFileSync(`/proc/self/fd/${memory.fd}`).every((byte) => byte === 0)).toBe(true);
  closeSync(memory.fd);
});

test("who puts secrets in wipes them, whether anybody took them or not", () => {
  const memory = SecretMemory.holding(SECRETS);
  expect(readFileSync(`/proc/self/fd/${memory.fd}`).includes(5)).toBe(true);
  memory[Symbol.dispose]();
  expect(readFileSync(`/proc/self/fd/${memory.fd}`).every((byte) => byte === 0)).toBe(true);
  closeSync(memory.fd);
});

test.each([
  ["no memory at all", () => openSync("/dev/null", "r+")],
  ["a file, which may shrink", () => openSync(import.meta.path, "r")],
])("%s is refused", (_, open) => {
  expect(() => SecretMemory.take(open())).toThrow("not as they were written");
});

test("memory that says of more than it has is refused", () => {
  const fd = createSharedMemory(4096);
  const view = new Uint8Array(4096).fill(0xff);
  writeSync(fd, view);
  expect(() => SecretMemory.take(fd)).toThrow("not as they were written");
});
