import { afterEach, expect, test } from "bun:test";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { sealEnvelope } from "../config/envelope.ts";
import { loadDeviceConfig } from "../config/index.ts";
import { DiskSecrets } from "./disk-secrets.ts";

const KEK = "0123456789abcdef0123456789abcdef";
const VARIABLE = "UBIBLK_TEST_KEK";
const XTS_KEY = Uint8Array.from({ length: 64 }, (_, i) => i);

afterEach(() => {
  delete process.env[VARIABLE];
});

test("a secret that can be read only once serves the disk's key and the archive's", async () => {
  process.env[VARIABLE] = KEK;
  const config = await load({ hasKey: true });
  using secrets = await DiskSecrets.read(config);
  using cipher = secrets.cipher;
  expect(cipher).toBeDefined();
  const ofSource = await secrets.ofSource();
  expect(new TextDecoder().decode(ofSource.get({ ref: "kek" }).bytes)).toBe(KEK);
});

test("what only the source needs is not read before it is asked for", async () => {
  const variable = `${VARIABLE}_LATER`;
  const config = await load({ hasKey: false, variable });
  using secrets = await DiskSecrets.read(config);
  expect(secrets.cipher).toBeUndefined();
  await expect(secrets.ofSource()).rejects.toThrow(variable);
  process.env[variable] = KEK;
  const ofSource = await secrets.ofSource();
  expect(ofSource.get({ ref: "kek" }).length).toBe(32);
});

test("secrets are wiped with their owner, the cipher is not", async () => {
  process.env[VARIABLE] = KEK;
  const secrets = await DiskSecrets.read(await load({ hasKey: true }));
  const ofSource = await secrets.ofSource();
  secrets[Symbol.dispose]();
  expect(() => ofSource.get({ ref: "kek" }).bytes).toThrow("wiped");
  using cipher = secrets.cipher;
  expect(cipher?.contextAddress).toBeGreaterThan(0);
});

// --- internal ---

async function load({
  hasKey,
  variable = VARIABLE,
}: {
  readonly hasKey: boolean;
  readonly variable?: string;
}) {
  const envelope = sealEnvelope(XTS_KEY, {
    kek: new TextEncoder().encode(KEK),
    context: new TextEncoder().encode("key"),
  }).toBase64();
  const key = `[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.inline = "${envelope}"
encoding = "base64"\nencrypted_by.ref = "kek"\n`;
  using folder = new ConfigFolder({
    "disk.toml": `[device]\ndata_path = "d"\nmetadata_path = "m"
[stripe_source]\ntype = "archive"\nstorage = "filesystem"\npath = "a"\narchive_kek.ref = "kek"
[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\nallow_env_secrets = true
[secrets.kek]\nsource.env = "${variable}"\n${hasKey ? key : ""}`,
  });
  return await loadDeviceConfig(folder.file("disk.toml"));
}
