import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { reasonOf } from "../../tests/support/store-contract.ts";
import { loadArchiveConfig } from "../config/load-config.ts";
import { resolveSecrets } from "../config/resolve-secrets.ts";
import { CredentialUser } from "./credentials/shared-credentials.ts";
import type { StoreDescription } from "./object-store.ts";
import { describeStore, openStore } from "./open-store.ts";

const S3 =
  '[archive]\nstorage = "s3"\nbucket = "bkt"\naccess_key_id.ref = "id"\n' +
  'secret_access_key.ref = "key"\n';
const REST =
  '[secrets]\nid.source.inline = "the id"\nkey.source.inline = "the key"\n' +
  'token.source.inline = "the token"\n' +
  "[danger_zone]\nenabled = true\nallow_inline_plaintext_secrets = true\n";

async function described(document: string, folder = new ConfigFolder({}), rest = REST) {
  using place = folder;
  writeFileSync(place.file("c.toml"), document + rest, { mode: 0o600 });
  const config = await loadArchiveConfig(place.file("c.toml"));
  using secrets = await resolveSecrets(config, ["archive"]);
  return (await describeStore(config.archive, secrets, "read")).description;
}

async function credentialsOf(description: StoreDescription) {
  const shared = description.kind === "s3" ? description.credentials : undefined;
  const user = shared === undefined ? undefined : new CredentialUser(shared);
  return (await user?.usable(0, undefined))?.credentials;
}

test("an S3 store is described with its secrets and the defaults", async () => {
  expect(await described(`${S3}region = "r"\n`)).toMatchObject({
    kind: "s3",
    role: "read",
    bucket: "bkt",
    prefix: "",
    region: "r",
    connections: 16,
    attemptsMax: 3,
    rateLimitedRetry: undefined,
    checksums: "always",
  });
});

test("a description can go to another thread, limits and credentials shared", async () => {
  const description = await described(`${S3}prefix = "/a/b/"\nsession_token.ref = "token"\n`);
  const clone = structuredClone(description);
  expect(clone).toMatchObject({ prefix: "a/b/" });
  expect(await credentialsOf(clone)).toEqual({
    accessKeyId: "the id",
    secretAccessKey: "the key",
    sessionToken: "the token",
  });
  expect((await openStore(clone)).name).toBe("s3://bkt/a/b/");
});

test("without a region the environment's is taken, then that of the oldest", async () => {
  const { AWS_REGION, AWS_DEFAULT_REGION } = process.env;
  try {
    process.env.AWS_REGION = "";
    process.env.AWS_DEFAULT_REGION = "env-2";
    expect(await described(S3)).toMatchObject({ region: "env-2" });
    process.env.AWS_REGION = "env-1";
    expect(await described(S3)).toMatchObject({ region: "env-1" });
    process.env.AWS_REGION = "";
    process.env.AWS_DEFAULT_REGION = "";
    expect(await described(S3)).toMatchObject({ region: "us-east-1" });
  } finally {
    Object.assign(process.env, {
      AWS_REGION: AWS_REGION ?? "",
      AWS_DEFAULT_REGION: AWS_DEFAULT_REGION ?? "",
    });
  }
});

test("rate_limited_retry is described when it is enabled", async () => {
  const retry = "rate_limited_retry = { enabled = true, min_delay_ms = 5, jitter_ms = 6 }\n";
  expect(await described(S3 + retry)).toMatchObject({
    rateLimitedRetry: { delayMsMin: 5, jitterMs: 6 },
  });
});

test("ca_file is read when the store is described, from beside the document", async () => {
  const pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const folder = new ConfigFolder({ "ca.pem": pem });
  expect(await described(`${S3}ca_file = "ca.pem"\n`, folder)).toMatchObject({
    caCertificates: pem,
  });
});

test.each([
  [{ "ca.pem": "no certificate" }, "has no certificates in PEM form"],
  [{}, "cannot read ca_file"],
])("a ca_file that is none (%j) is an error", async (files, text) => {
  const folder = new ConfigFolder(files);
  expect(String(await reasonOf(described(`${S3}ca_file = "ca.pem"\n`, folder)))).toContain(text);
});

test.each([
  ["access_key_id", 'id.source.inline = "the id\\n"'],
  ["session_token", 'token.source.inline = "t\\u0007"'],
])(
  "%s with a character that no header can have is an error that names its secret",
  async (_, odd) => {
    const rest = REST.replace(/^(id|token)\.source.*$/gm, (line) =>
      line.startsWith(odd.slice(0, 3)) ? odd : line,
    );
    const reason = String(
      await reasonOf(described(`${S3}session_token.ref = "token"\n`, undefined, rest)),
    );
    expect(reason).toMatch(/c.toml:\d: archive\.[a-z_]+: secret "(id|token)" has a character/);
  },
);
