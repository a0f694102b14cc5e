import { expect, test } from "bun:test";
import { join } from "node:path";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { loadKeyConfig } from "../config/load-config.ts";
import { resolveSecrets } from "../config/resolve-secrets.ts";

const MAIN = join(import.meta.dir, "..", "main.ts");
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const KEK = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);

const wrapSecret = (stdin: Uint8Array, ...argv: readonly string[]) => {
  const command = [process.execPath, MAIN, "wrap-secret", ...argv];
  const env = { ...process.env, UBIBLK_LOG: "warn" };
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { stdin, env });
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
};

test("what is wrapped is what a document with encrypted_by gets", async () => {
  using folder = new ConfigFolder({ kek: KEK });
  const wrapped = wrapSecret(KEY, "--name", "k", "--kek", folder.file("kek"));
  const path = folder.write(
    "c.toml",
    `[encryption]\nxts_key.ref = "k"
[secrets.k]\nsource.inline = "${wrapped.stdout.trim()}"\nencoding = "base64"\nencrypted_by.ref = "kek"
[secrets.kek]\nsource.file = "kek"
[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n`,
  );
  const config = await loadKeyConfig(path);
  using secrets = await resolveSecrets(config, ["encryption"]);
  expect(secrets.get(config.encryption.xtsKey).bytes).toEqual(KEY);
  expect(wrapped).toMatchObject({ exitCode: 0, stderr: "" });
});

test("the same secret is never wrapped in the same way twice", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const flags = ["--name", "k", "--kek", folder.file("kek")];
  expect(wrapSecret(KEY, ...flags).stdout).not.toBe(wrapSecret(KEY, ...flags).stdout);
});

test.each([
  ["kek", 0, "E_SECRET_SIZE: standard input is empty"],
  ["kek", 8165, "E_SECRET_SIZE: the secret is too large: at most 8164 bytes"],
  ["long", 64, "has more than 32 bytes; a KEK has exactly 32"],
  ["short", 64, "has 31 bytes; a KEK has exactly 32"],
  ["none", 64, "E_SECRET_READ: cannot read"],
])("with the KEK %s and a secret of %d bytes nothing is printed", (kek, sizeBytes, reason) => {
  using folder = new ConfigFolder({ kek: KEK, long: new Uint8Array(33), short: KEK.subarray(1) });
  const flags = ["--name", "k", "--kek", folder.file(kek)];
  const { exitCode, stdout, stderr } = wrapSecret(new Uint8Array(sizeBytes), ...flags);
  expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
  expect(stderr).toContain(reason);
});

test("the largest secret that a document takes is wrapped, and a newline at the end pointed out", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const secret = new Uint8Array(8164).fill(0x0a);
  const flags = ["--name", "k", "--kek", folder.file("kek")];
  const { exitCode, stdout, stderr } = wrapSecret(secret, ...flags);
  expect(exitCode).toBe(0);
  expect(Uint8Array.fromBase64(stdout.trim())).toHaveLength(8192);
  expect(stderr).toContain("ends in a newline");
});

test("a secret has a name", () => {
  const { exitCode, stderr } = wrapSecret(KEY, "--name=", "--kek=kek");
  expect(exitCode).toBe(2);
  expect(stderr).toContain("--name: empty");
});
