/** The file of a listening socket: whom it replaces, whom it may be seen by, what is left of it. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UbiError } from "../../src/errors.ts";
import { closeDescriptor, listenSocket, probeSocket } from "../../src/ffi/socket.ts";
import { ListeningSocket } from "../../src/ffi/socket-file.ts";

let folder = "";
let path = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "socket-file-"));
  path = join(folder, "s");
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

test.each([0o000, 0o022, 0o077])("umask %o: the mode is 0660 and the umask stays", (umask) => {
  const before = process.umask(umask);
  try {
    using _socket = ListeningSocket.open(path);
    expect(lstatSync(path).mode & 0o777).toBe(0o660);
    expect(process.umask()).toBe(umask);
  } finally {
    process.umask(before);
  }
});

test("dispose: the file is gone, also when it is called twice", () => {
  const socket = ListeningSocket.open(path);
  expect(probeSocket(path)).toBe(0);
  socket[Symbol.dispose]();
  expect(existsSync(path)).toBe(false);
  socket[Symbol.dispose]();
});

test("dispose after another program took the path: its socket stays", () => {
  const socket = ListeningSocket.open(path);
  renameSync(path, join(folder, "moved"));
  using other = ListeningSocket.open(path);
  socket[Symbol.dispose]();
  expect(existsSync(other.path)).toBe(true);
  expect(probeSocket(path)).toBe(0);
});

test("socket of a dead process: it is replaced", () => {
  closeDescriptor(listenSocket(path, { mode: 0o600 }, 1));
  expect(existsSync(path)).toBe(true);
  using _socket = ListeningSocket.open(path);
  expect(probeSocket(path)).toBe(0);
});

test("socket of a living process: refused, and it goes on", () => {
  using _socket = ListeningSocket.open(path);
  expect(codeOf(() => ListeningSocket.open(path))).toBe("E_SOCKET_IN_USE");
  expect(probeSocket(path)).toBe(0);
});

test("regular file: refused and left alone", () => {
  writeFileSync(path, "precious");
  expect(codeOf(() => ListeningSocket.open(path))).toBe("E_SOCKET_NOT_OURS");
  expect(readFileSync(path, "utf8")).toBe("precious");
});

test("symbolic link, also to a socket: refused and left alone", () => {
  closeDescriptor(listenSocket(join(folder, "target"), { mode: 0o600 }, 1));
  symlinkSync(join(folder, "target"), path);
  expect(codeOf(() => ListeningSocket.open(path))).toBe("E_SOCKET_NOT_OURS");
  expect(lstatSync(path).isSymbolicLink()).toBe(true);
});

test("directory: refused", () => {
  mkdirSync(path);
  expect(codeOf(() => ListeningSocket.open(path))).toBe("E_SOCKET_NOT_OURS");
});

test.each([
  { name: "folder missing", end: join("missing", "s") },
  { name: "file in the place of the folder", end: join("file", "s") },
  { name: "path too long", end: "x".repeat(120) },
])("$name: refused with the path", ({ end }) => {
  writeFileSync(join(folder, "file"), "");
  const wanted = join(folder, end);
  expect(codeOf(() => ListeningSocket.open(wanted))).toBe("E_SOCKET");
  expect(() => ListeningSocket.open(wanted)).toThrow(wanted);
});

// --- internal ---

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return error instanceof UbiError ? error.code : String(error);
  }
  return "nothing thrown";
}
