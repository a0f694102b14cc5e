import { expect, test } from "bun:test";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { loadDeviceConfig } from "./load-config.ts";

const ZONE =
  "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n" +
  "allow_inline_plaintext_secrets = true\nallow_env_secrets = true\n";

const load = async (secrets: string, zone = ZONE) => {
  using folder = new ConfigFolder({ "c.toml": `[device]\ndata_path = "d"\n${secrets}\n${zone}` });
  return await loadDeviceConfig(folder.file("c.toml"));
};

test("a document without secrets declares none", async () => {
  expect((await load("")).secrets.names).toEqual([]);
});

test("sources, encodings and KEKs are taken as written", async () => {
  const { secrets } = await load(
    '[secrets.kek]\nsource.inline = "AA=="\nencoding = "base64"\n' +
      '[secrets.api]\nsource.env = "API"\nencrypted_by.ref = "kek"\n',
  );
  expect(secrets.declaration("kek")).toMatchObject({
    source: { inline: "AA==" },
    encoding: "base64",
  });
  expect(secrets.declaration("api")).toMatchObject({
    source: { env: "API" },
    encoding: "plaintext",
    encrypted_by: { ref: "kek" },
  });
});

test("any key is a name of a secret, the empty one and those of every object too", async () => {
  const { secrets } = await load(
    '[secrets.""]\nsource.env = "A"\n[secrets."a/b ~"]\nsource.env = "B"\n' +
      '[secrets.__proto__]\nsource.env = "C"',
  );
  expect(secrets.names).toEqual(["", "a/b ~", "__proto__"]);
});

test.each([
  ['source.inline = "x"\nextra = 1', "secrets.k.extra: unknown key"],
  ['encoding = "plaintext"', "secrets.k.source: missing"],
  ["source = {}", "secrets.k.source: exactly one of file, inline, env"],
  ['source = { file = "a", env = "b" }', "secrets.k.source: exactly one of"],
  ['source.http = "x"', "secrets.k.source.http: unknown key"],
  ['source = "x"', "secrets.k.source: a table is expected, not a string"],
  ['source.file = ""', "secrets.k.source.file: must not be empty"],
  ['source.inline = "x"\nencoding = "Base64"', "secrets.k.encoding:"],
  ['source.inline = "x"\nencrypted_by = "kek"', "a reference to a secret is expected"],
  ['source.inline = "x"\nencrypted_by = { reff = "kek" }', 'has only the key "ref"'],
  ['source.inline = "x"\nencrypted_by = { ref = "k2", x = 1 }', 'has only the key "ref"'],
  ['source.inline = "x"\npipe_timeout_ms = 0', "0 is out of range"],
])("a secret with %j is refused", async (secret, reason) => {
  expect(await errorsOf(load(`[secrets.k]\n${secret}\n`))).toContain(reason);
});

test("a value of a secret is in no message, whatever is wrong around it", async () => {
  const errors = await errorsOf(
    load(
      '[secrets.k]\nsource = "hunter2"\n[secrets.l]\nsource.inline = "hunter2"\nencoding = "hunter2"\n' +
        '[secrets.m]\nsource.inline = ["hunter2"]\nencrypted_by = "hunter2"\n[encryption]\nxts_key = "hunter2"',
    ),
  );
  expect(errors).not.toContain("hunter2");
});

test("a KEK that is not declared is named with its secret", async () => {
  const errors = await errorsOf(
    load('[secrets.api]\nsource.inline = "x"\nencrypted_by.ref = "missing"'),
  );
  expect(errors).toContain('secrets.api.encrypted_by.ref: no secret is named "missing"');
});

test("a circle of KEKs is refused with all its members, once", async () => {
  const errors = await errorsOf(
    load(
      '[secrets.x]\nsource.inline = "x"\nencrypted_by.ref = "a"\n' +
        '[secrets.a]\nsource.inline = "x"\nencrypted_by.ref = "b"\n' +
        '[secrets.b]\nsource.inline = "x"\nencrypted_by.ref = "a"',
    ),
  );
  expect(errors).toContain('circular references: "a" -> "b" -> "a"');
  expect(errors.split("\n")).toHaveLength(1);
});

test("a secret that is its own KEK is a circle", async () => {
  const errors = await errorsOf(load('[secrets.a]\nsource.inline = "x"\nencrypted_by.ref = "a"'));
  expect(errors).toContain('circular references: "a" -> "a"');
});

test("a secret that nothing uses is warned about and not read", async () => {
  const { warnings } = await load('[secrets.a]\nsource.env = "UBIBLK_TEST_NOT_SET"');
  expect(warnings.join("\n")).toContain("secrets.a: nothing in this document uses this secret");
});
