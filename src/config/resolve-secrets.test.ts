import { afterEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { UbiError } from "../errors.ts";
import { sealEnvelope } from "./envelope.ts";
import { loadArchiveConfig, loadDeviceConfig, loadKeyConfig } from "./load-config.ts";
import { resolveSecrets } from "./resolve-secrets.ts";

const zone = (...flags: readonly string[]) =>
  `\n[danger_zone]\nenabled = true\n${flags.map((flag) => `${flag} = true\n`).join("")}`;
const ENV = zone("allow_env_secrets");
const INLINE = zone("allow_inline_plaintext_secrets");
const FILE = zone("allow_secret_over_regular_file");
const USE = '[encryption]\nxts_key.ref = "k"\n[secrets.k]\n';

const S3_USE = `[archive]
storage = "s3"
bucket = "b"
access_key_id.ref = "id"
secret_access_key.ref = "key"
[secrets.id]
source.file = "id"
[secrets.key]
source.file = "key"
${FILE}`;

const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const KEK = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const envelope = (name: string, kek = KEK) =>
  sealEnvelope(KEY, { kek, context: new TextEncoder().encode(name) });

/** The hex digits of the XTS key of the document at `path`. */
const keyOf = async (path: string) => {
  const config = await loadKeyConfig(path);
  using secrets = await resolveSecrets(config, ["encryption"]);
  return Buffer.from(secrets.get(config.encryption.xtsKey).bytes).toString("hex");
};
const HEX = Buffer.from(KEY).toString("hex");

afterEach(() => {
  delete process.env.UBIBLK_TEST_SECRET;
});

test("an environment secret of 64 characters gives exactly those bytes", async () => {
  process.env.UBIBLK_TEST_SECRET = "x".repeat(64);
  using folder = new ConfigFolder({
    "c.toml": `${USE}source.env = "UBIBLK_TEST_SECRET"${ENV}`,
  });
  expect(await keyOf(folder.file("c.toml"))).toBe("78".repeat(64));
});

test("a variable that was read is gone from the environment", async () => {
  process.env.UBIBLK_TEST_SECRET = "x".repeat(64);
  using folder = new ConfigFolder({ "c.toml": `${USE}source.env = "UBIBLK_TEST_SECRET"${ENV}` });
  await keyOf(folder.file("c.toml"));
  expect(process.env.UBIBLK_TEST_SECRET).toBeUndefined();
});

test("a variable that was read can be read again: for another document, or a later time", async () => {
  process.env.UBIBLK_TEST_SECRET = "x".repeat(64);
  using folder = new ConfigFolder({ "c.toml": `${USE}source.env = "UBIBLK_TEST_SECRET"${ENV}` });
  await keyOf(folder.file("c.toml"));
  expect(await keyOf(folder.file("c.toml"))).toBe("78".repeat(64));
});

test("a key of the wrong size is refused with name, sizes and place", async () => {
  process.env.UBIBLK_TEST_SECRET = "short";
  using folder = new ConfigFolder({ "c.toml": `${USE}source.env = "UBIBLK_TEST_SECRET"${ENV}` });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toBe(
    `E_SECRET_SIZE ${folder.file("c.toml")}:2: encryption.xts_key: ` +
      'secret "k" has 5 bytes; exactly 64 are expected',
  );
});

test("a variable that is not set is named", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.env = "UBIBLK_TEST_UNSET"${ENV}` });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("secrets.k.source: environment variable UBIBLK_TEST_UNSET is not set");
});

test("an environment secret without the flag is refused, naming the flag", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.env = "UBIBLK_TEST_SECRET"` });
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain("danger_zone.allow_env_secrets");
});

test("a regular file without the flag is refused, naming the flag", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "key"`, key: KEY });
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain(
    "danger_zone.allow_secret_over_regular_file",
  );
});

test("a regular file beside the document gives exactly its bytes", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "key"${FILE}`, key: KEY });
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test("a key or KEK in base64 without encoding is seen to be that", async () => {
  const files = { key: `${base64(KEY)}\n`, kek: base64(KEK), wrapped: envelope("k") };
  using folder = new ConfigFolder({
    ...files,
    "c.toml": `${USE}source.file = "key"${FILE}`,
    "d.toml": `${USE}source.file = "wrapped"\nencrypted_by.ref = "q"\n[secrets.q]\nsource.file = "kek"${FILE}`,
  });
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toEndWith(
    'has 89 bytes; exactly 64 are expected (it looks like base64 of 64 bytes: set encoding = "base64")',
  );
  expect(await errorsOf(keyOf(folder.file("d.toml")))).toEndWith(
    'has 44 bytes; a KEK has exactly 32 (it looks like base64 of 32 bytes: set encoding = "base64")',
  );
});

test("a newline at the end of a plaintext file counts, and the error says so", async () => {
  using folder = new ConfigFolder({
    "c.toml": `${USE}source.file = "key"${FILE}`,
    key: `${"x".repeat(64)}\n`,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("has 65 bytes; exactly 64 are expected (it ends in a newline");
});

test("an access key with a newline, which no header can have, is named with its line and key", async () => {
  using folder = new ConfigFolder({
    "c.toml": S3_USE,
    id: "AKIA\n",
    key: "secret",
  });
  const document = await loadArchiveConfig(folder.file("c.toml"));
  const errors = await errorsOf(resolveSecrets(document, ["archive"]));
  expect(errors).toContain(
    `c.toml:4: archive.access_key_id: secret "id" has a character that no access key or token has (it ends in a newline`,
  );
});

test("a secret file that others can change is refused", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "key"${FILE}` });
  folder.write("key", KEY, 0o622);
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain("lets other users change it");
});

test("a secret file that others can read is accepted", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "key"${FILE}` });
  folder.write("key", KEY, 0o644);
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test("a directory as a secret is refused", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "."${FILE}` });
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain("it is a directory");
});

test("an empty secret is refused, /dev/null included", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "/dev/null"` });
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain("the secret is empty");
});

test("an inline plaintext secret without the flag is refused, naming KEK and flag", async () => {
  using folder = new ConfigFolder({
    "c.toml": `${USE}encoding = "base64"\nsource.inline = "${base64(KEY)}"`,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("an inline secret needs encrypted_by (a KEK)");
  expect(errors).toContain("danger_zone.allow_inline_plaintext_secrets");
});

test("invalid base64 is refused without a byte of it", async () => {
  using folder = new ConfigFolder({
    "c.toml": `${USE}encoding = "base64"\nsource.inline = "not-valid-base64!!!"${INLINE}`,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("secrets.k.source: invalid base64: character 3 is not a base64 digit");
  expect(errors).not.toContain("valid-base64");
});

test("base64 that is wrapped in lines is accepted", async () => {
  const wrapped = base64(KEY).replace(/.{20}/g, "$&\n");
  using folder = new ConfigFolder({
    "c.toml": `${USE}encoding = "base64"\nsource.file = "key"${FILE}`,
    key: ` ${wrapped}\n`,
  });
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test.each([
  ["plaintext", "x".repeat(8193)],
  ["base64", base64(new Uint8Array(8193))],
  ["base64", "\n".repeat(20_000)],
])("a %s secret above the limit is refused as too large", async (encoding, content) => {
  using folder = new ConfigFolder({
    "c.toml": `${USE}encoding = "${encoding}"\nsource.file = "key"${FILE}`,
    key: content,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("too large: a secret has at most 8192 bytes");
});

test("a secret of exactly the limit is read", async () => {
  using folder = new ConfigFolder({
    "c.toml": `${USE}encoding = "base64"\nsource.file = "key"${FILE}`,
    key: base64(new Uint8Array(8192)),
  });
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain("has 8192 bytes");
});

test("a KEK from a pipe unwraps an inline secret without any danger flag", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encoding = "base64"\nencrypted_by.ref = "kek"\nsource.inline = "${base64(envelope("k"))}"\n` +
      '[secrets.kek]\nsource.file = "kek.pipe"\n',
    "kek.bytes": KEK,
  });
  Bun.spawnSync(["mkfifo", "-m", "600", folder.file("kek.pipe")]);
  await using _writer = Bun.spawn(["cp", folder.file("kek.bytes"), folder.file("kek.pipe")]);
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test("a KEK file in base64 and an envelope with trailing blanks are read", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encoding = "base64"\nencrypted_by.ref = "kek"\nsource.inline = "${base64(envelope("k"))}\\r\\n "\n` +
      `[secrets.kek]\nencoding = "base64"\nsource.file = "kek"\n${FILE}`,
    kek: `${base64(KEK)}\n`,
  });
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test("a chain of three KEKs is unwrapped whatever the order of the file", async () => {
  const top = new Uint8Array(32).fill(7);
  const middle = sealEnvelope(KEK, { kek: top, context: new TextEncoder().encode("mid") });
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encoding = "base64"\nencrypted_by.ref = "mid"\nsource.inline = "${base64(envelope("k"))}"\n` +
      `[secrets.mid]\nencoding = "base64"\nencrypted_by.ref = "top"\nsource.inline = "${base64(middle)}"\n` +
      `[secrets.top]\nencoding = "base64"\nsource.inline = "${base64(top)}"\n${INLINE}`,
  });
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test("an envelope made for another name is refused with a hint at the name", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encoding = "base64"\nencrypted_by.ref = "kek"\nsource.inline = "${base64(envelope("xts-key"))}"\n` +
      `[secrets.kek]\nencoding = "base64"\nsource.inline = "${base64(KEK)}"\n${INLINE}`,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain('secrets.k.encrypted_by: cannot unwrap with KEK "kek"');
  expect(errors).toContain("the name is authenticated");
});

test("a KEK of the wrong size is refused with its name and both sizes", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encoding = "base64"\nencrypted_by.ref = "kek"\nsource.inline = "${base64(envelope("k"))}"\n` +
      `[secrets.kek]\nsource.inline = "too short"\n${INLINE}`,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain('KEK "kek" has 9 bytes; a KEK has exactly 32');
});

test("an envelope that is too short is refused with its secret", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encoding = "base64"\nencrypted_by.ref = "kek"\nsource.inline = "AAAA"\n` +
      `[secrets.kek]\nencoding = "base64"\nsource.inline = "${base64(KEK)}"\n${INLINE}`,
  });
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("secrets.k.encrypted_by: ");
  expect(errors).toContain("too short: 3 bytes");
});

test("a pipe without a writer is given up after its time-out", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "p"\npipe_timeout_ms = 60\n` });
  Bun.spawnSync(["mkfifo", "-m", "600", folder.file("p")]);
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("no data within 60 ms; start its writer, or raise pipe_timeout_ms");
});

test("a writer that falls silent is given up after the time-out too", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "p"\npipe_timeout_ms = 200\n` });
  Bun.spawnSync(["mkfifo", "-m", "600", folder.file("p")]);
  const script = 'exec 3>"$0"; printf x >&3; sleep 5';
  await using _writer = Bun.spawn(["sh", "-c", script, folder.file("p")]);
  expect(await errorsOf(keyOf(folder.file("c.toml")))).toContain("no data within 200 ms");
});

test("a mistake in one secret is found before the pipe of another is emptied", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encrypted_by.ref = "kek"\nsource.file = "absent"\n` +
      '[secrets.kek]\nsource.file = "p"\npipe_timeout_ms = 1000\n',
  });
  Bun.spawnSync(["mkfifo", "-m", "600", folder.file("p")]);
  const errors = await errorsOf(keyOf(folder.file("c.toml")));
  expect(errors).toContain("secrets.k.source: cannot read");
  expect(errors).not.toContain("no data");
});

test("every secret that cannot be had is reported, each once", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${USE}encrypted_by.ref = "kek"\nsource.file = "absent-1"\n` +
      '[secrets.kek]\nsource.file = "absent-2"\n',
  });
  const errors = (await errorsOf(keyOf(folder.file("c.toml")))).split("\n");
  expect(errors).toHaveLength(2);
});

test("secrets that a program does not ask for are not read", async () => {
  process.env.UBIBLK_TEST_SECRET = "x".repeat(64);
  using folder = new ConfigFolder({
    "c.toml":
      '[device]\ndata_path = "d"\nmetadata_path = "m"\n' +
      `${USE}source.env = "UBIBLK_TEST_SECRET"\n[secrets.psk]\nsource.file = "absent"\n` +
      '[stripe_source]\ntype = "remote"\naddress = "127.0.0.1:1"\n' +
      `psk = { identity = "i", secret.ref = "psk" }\n${ENV}`,
  });
  const config = await loadDeviceConfig(folder.file("c.toml"));
  using secrets = await resolveSecrets(config, ["encryption"]);
  expect(secrets.get({ ref: "k" }).length).toBe(64);
  expect(await errorsOf(resolveSecrets(config, ["stripe_source"]))).toContain("secrets.psk.source");
});

test("disposing of resolved secrets wipes their bytes", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "key"${FILE}`, key: KEY });
  const secrets = await resolveSecrets(await loadKeyConfig(folder.file("c.toml")), ["encryption"]);
  const { bytes } = secrets.get({ ref: "k" });
  secrets[Symbol.dispose]();
  expect(bytes).toEqual(new Uint8Array(64));
});

test("the known envelope of a document opens under the name of its secret", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      '[encryption]\nxts_key.ref = "xts-key"\n[secrets.xts-key]\nencoding = "base64"\n' +
      'encrypted_by.ref = "kek"\nsource.inline = "oKGio6Slpqeoqaqr5hl+LkHOBLhqbI3YC3fO0WC9SwOGolR7' +
      'hBc8nWO2ax7yV2Xciwd1Gne1LuMlV63Wdyp0e1blLEl5ZzFlmE27j73vsD/ytpC9yU9+OJVsYUg="\n' +
      '[secrets.kek]\nencoding = "base64"\n' +
      `source.inline = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="\n${INLINE}`,
  });
  expect(await keyOf(folder.file("c.toml"))).toBe(HEX);
});

test("secrets are read again from where they came from, with what they are encrypted by", async () => {
  const wrap = (key: Uint8Array, kek: Uint8Array) =>
    sealEnvelope(key, { kek, context: new TextEncoder().encode("k") });
  const keks = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)] as const;
  const files = {
    "c.toml":
      `${USE}source.file = "sealed"\nencrypted_by.ref = "kek"\npipe_timeout_ms = 70\n` +
      '[secrets.kek]\nsource.file = "kek"\npipe_timeout_ms = 30\n' +
      "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n",
  };
  using folder = new ConfigFolder(files);
  const write = (key: Uint8Array, kek: Uint8Array) => {
    writeFileSync(folder.file("sealed"), wrap(key, kek), { mode: 0o600 });
    writeFileSync(folder.file("kek"), kek, { mode: 0o600 });
  };
  write(new Uint8Array(64).fill(7), keks[0]);
  const reference = { ref: "k" };
  const config = await loadKeyConfig(folder.file("c.toml"));
  const secrets = await resolveSecrets(config, ["encryption"]);
  const origin = secrets.originOf([reference]);
  secrets[Symbol.dispose]();
  write(new Uint8Array(64).fill(8), keks[1]);
  using again = await origin?.read(new AbortController().signal);
  expect(again?.get(reference).bytes).toEqual(new Uint8Array(64).fill(8));
  expect(origin).toMatchObject({ canChange: true, waitMsMax: 100 });
});

test("a signal ends the wait for the writer of a pipe", async () => {
  using folder = new ConfigFolder({ "c.toml": `${USE}source.file = "pipe"\n` });
  expect(Bun.spawnSync(["mkfifo", "-m", "600", folder.file("pipe")]).exitCode).toBe(0);
  const config = await loadKeyConfig(folder.file("c.toml"));
  const writer = Bun.spawn(["sh", "-c", `printf %064d 0 > ${folder.file("pipe")}`]);
  using secrets = await resolveSecrets(config, ["encryption"]);
  await writer.exited;
  const controller = new AbortController();
  const reading = secrets.originOf([{ ref: "k" }])?.read(controller.signal);
  const reason = new UbiError("E_INTERRUPTED", "over");
  controller.abort(reason);
  await expect(reading).rejects.toBe(reason);
});
