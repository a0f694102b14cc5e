/** `ubiblk rpc`, against a backend and against what is none. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { runCommand } from "../../scripts/command.ts";
import { RPC_COMMANDS } from "../../src/commands/rpc-commands.ts";
import { type Backend, EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { ask } from "../support/rpc-client.ts";

let folder: string;
let rpcPath: string;
let backend: Backend;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-rpc-command-"));
  rpcPath = join(folder, "rpc.sock");
  const moreConfig = `rpc_socket = "${rpcPath}"\n`;
  const disk = writeDiskConfig({ folder, isEncrypted: false, moreConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 2 ** 20);
  backend = await startUbiblk(disk);
});

afterAll(async () => {
  await backend.stop();
  rmSync(folder, { recursive: true });
});

test("the answer as it comes, in one line", async () => {
  const result = await rpc(rpcPath, "version");
  expect(result).toMatchObject({
    exitCode: 0,
    stdout: `{"version":"${packageJson.version}"}\n`,
    stderr: "",
  });
});

test("members are JSON, or text", async () => {
  expect((await rpc(rpcPath, "set_log_level", "level=warn")).stdout).toBe('{"log_level":"warn"}\n');
  const number = await rpc(rpcPath, "set_log_level", "level=3");
  expect(number).toMatchObject({ exitCode: 1, stdout: "" });
  expect(number.stderr).toContain("error E_RPC_REQUEST: invalid request: `level` must be one of");
});

test.each([
  { words: ["nope"], error: "E_RPC_COMMAND: unknown command: nope; ubiblk-rpc(7)" },
  { words: ["stauts"], error: "E_RPC_COMMAND: unknown command: stauts; did you mean status?\n" },
  { words: ["later", "x=1"], error: "E_RPC_COMMAND: unknown command: later" },
  { words: ["set_limits", "iop=1"], error: "E_RPC_REQUEST: invalid request: `iop` is no limit" },
  { words: ["resume_fetch"], error: "E_RPC_NO_FETCH: nothing to fetch" },
])("an error of the backend: $error", async ({ words, error }) => {
  const result = await rpc(rpcPath, ...words);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(error);
});

test.each([
  { words: [] as string[], error: "COMMAND: missing" },
  { words: ["stats", "loud"], error: "loud: no KEY=VALUE" },
  {
    words: ["limits", "iops=5"],
    error: "iops: limits takes no KEY=VALUE, and changes nothing; did you mean set_limits?",
  },
  { words: ["stats", "queue=0"], error: "queue: stats takes no KEY=VALUE\n" },
  { words: ["set_log_level", "lvl=warn"], error: "lvl: set_log_level takes level only" },
])("wrong usage: $error", async ({ words, error }) => {
  const result = await rpc(rpcPath, ...words);
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toContain(error);
});

test("every command that is suggested is one, and the documentation has it", async () => {
  const page = readFileSync(join(import.meta.dir, "../../docs/rpc.md"), "utf8");
  const notHere = ["clients", "stop", "resize", "upgrade"]; // of a stripe server, or they change the disk
  for (const command of Object.keys(RPC_COMMANDS)) {
    expect(page).toContain(`\`${command}\``);
    if (!notHere.includes(command)) {
      expect(await ask(rpcPath, command)).not.toMatchObject({ code: "E_RPC_COMMAND" });
    }
  }
  const named = page.slice(page.indexOf("## Commands"), page.indexOf("### version"));
  for (const [, command = ""] of named.matchAll(/^\| `(\w+)`/gm)) {
    expect(Object.keys(RPC_COMMANDS)).toContain(command);
  }
});

test("nobody there, and somebody who is no backend", async () => {
  const nobody = await rpc(join(folder, "nothing"), "version");
  expect(nobody.exitCode).toBe(1);
  expect(nobody.stderr).toContain("error E_SOCKET: no answer from");
  const path = join(folder, "other.sock");
  const other = createServer((client) => client.end("hello\n")).listen(path);
  const stranger = await rpc(path, "version");
  expect(stranger.exitCode).toBe(1);
  expect(stranger.stderr).toContain("E_SOCKET: what answers is no RPC socket");
  other.close();
});

test("stop: the backend ends as by a signal", async () => {
  expect((await rpc(rpcPath, "stop")).stdout).toBe('{"stop":{"stopping":true}}\n');
  expect(await backend.stop()).toBe(0);
});

// --- internal ---

function rpc(...words: readonly string[]) {
  return runCommand([EXECUTABLE, "rpc", ...words], { timeoutMs: 30_000 });
}
