import { expect, test } from "bun:test";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { loadDeviceConfig } from "./load-config.ts";
import { resolveSecrets } from "./resolve-secrets.ts";

const ZONE =
  "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n" +
  "allow_inline_plaintext_secrets = true\n";
const SECRETS =
  '[secrets.id]\nsource.inline = "id"\n[secrets.key]\nsource.inline = "key"\n' +
  '[secrets.token]\nsource.inline = "token"\n' +
  '[secrets.psk]\nsource.inline = "0123456789abcdef"\n' +
  '[secrets.kek]\nsource.inline = "0123456789abcdef0123456789abcdef"\n';
const DEVICE = '[device]\ndata_path = "d"\nmetadata_path = "m"\n';

const load = async (source: string, rest = ZONE + SECRETS) => {
  using folder = new ConfigFolder({ "c.toml": `${DEVICE}[stripe_source]\n${source}\n${rest}` });
  return await loadDeviceConfig(folder.file("c.toml"));
};

const S3 =
  'type = "archive"\nstorage = "s3"\nbucket = "b"\naccess_key_id.ref = "id"\n' +
  'secret_access_key.ref = "key"\n';
const REMOTE = 'type = "remote"\naddress = "127.0.0.1:9"\n';
const PSK = 'psk = { identity = "client", secret.ref = "psk" }\n';

test("a raw source has defaults for its optional keys", async () => {
  const { stripeSource } = await load('type = "raw"\nimage_path = "/i"');
  expect(stripeSource).toEqual({
    type: "raw",
    imagePath: "/i",
    autofetch: false,
    copyOnRead: false,
  });
});

test("a raw source keeps its optional keys", async () => {
  const { stripeSource } = await load(
    'type = "raw"\nimage_path = "/i"\nautofetch = true\ncopy_on_read = true',
  );
  expect(stripeSource).toMatchObject({ autofetch: true, copyOnRead: true });
});

test("a filesystem archive keeps its key reference, its path starts from the document", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      `${DEVICE}[stripe_source]\ntype = "archive"\nstorage = "filesystem"\npath = "archives"\n` +
      `archive_kek.ref = "kek"\n${ZONE}${SECRETS}`,
  });
  const { stripeSource } = await loadDeviceConfig(folder.file("c.toml"));
  expect(stripeSource).toEqual({
    type: "archive",
    storage: "filesystem",
    path: folder.file("archives"),
    archiveKek: { ref: "kek" },
    autofetch: false,
  });
});

test("an s3 archive has the documented defaults", async () => {
  const { stripeSource } = await load(S3);
  expect(stripeSource).toEqual({
    type: "archive",
    storage: "s3",
    bucket: "b",
    accessKeyId: { ref: "id" },
    secretAccessKey: { ref: "key" },
    forcePathStyle: false,
    checksums: "always",
    connections: 16,
    connectTimeoutMs: 5000,
    operationAttemptTimeoutMs: 20000,
    maxAttempts: 3,
    rateLimitedRetry: { enabled: false, minDelayMs: 0, jitterMs: 0 },
    autofetch: false,
  });
});

test.each([
  ["archive in a folder", 'type = "archive"\nstorage = "filesystem"\npath = "/a"\n'],
  ["archive in a bucket", S3],
  ["stripe server", REMOTE + PSK],
])("an %s is fetched as a raw image is: rate limit, prefetch, record", async (_, source) => {
  const fetchKeys = 'background_bytes_per_second = 5\nprefetch = "/p"\nrecord = "/r"';
  const { stripeSource } = await load(source + fetchKeys);
  expect(stripeSource).toMatchObject({
    backgroundBytesPerSecond: 5,
    prefetch: "/p",
    record: "/r",
  });
});

test("an s3 archive keeps everything that is given", async () => {
  const { stripeSource } = await load(
    `${S3}prefix = "a/b"\nregion = "r"\nsession_token.ref = "token"\nendpoint = "http://[::1]:9000"\n` +
      "connect_timeout_ms = 120\noperation_attempt_timeout_ms = 45000\nmax_attempts = 7\n" +
      "rate_limited_retry = { enabled = true, min_delay_ms = 1500, jitter_ms = 1000 }",
  );
  expect(stripeSource).toMatchObject({
    prefix: "a/b",
    region: "r",
    sessionToken: { ref: "token" },
    endpoint: "http://[::1]:9000",
    connectTimeoutMs: 120,
    operationAttemptTimeoutMs: 45000,
    maxAttempts: 7,
    rateLimitedRetry: { enabled: true, minDelayMs: 1500, jitterMs: 1000 },
  });
});

test.each(["http://localhost:9", "http://127.1.2.3:9", "http://[::1]", "https://example.org/s3"])(
  "the endpoint %s needs no danger flag",
  async (endpoint) => {
    expect(await errorsOf(load(`${S3}endpoint = "${endpoint}"`))).toBe("");
  },
);

test("an http endpoint on another machine is accepted when the danger zone allows it", async () => {
  const zone = `${ZONE}allow_unencrypted_connection = true\n${SECRETS}`;
  expect(await errorsOf(load(`${S3}endpoint = "http://example.org"`, zone))).toBe("");
});

test("a remote source has the documented defaults", async () => {
  const { stripeSource } = await load(REMOTE + PSK);
  expect(stripeSource).toEqual({
    type: "remote",
    address: "127.0.0.1:9",
    psk: { identity: "client", secret: { ref: "psk" } },
    autofetch: false,
    connectTimeoutMs: 5000,
    operationAttemptTimeoutMs: 20000,
    connections: 16,
  });
});

test.each([
  [
    'type = "invalid_type"',
    'stripe_source.type: "invalid_type": one of "raw", "archive", "remote"',
  ],
  ['type = "ftp"', '"ftp"'],
  ['image_path = "x"', "stripe_source.type: missing"],
  ['type = "archive"\npath = "x"', "stripe_source.storage: missing"],
  ['type = "archive"\nstorage = "gcs"', 'stripe_source.storage: "gcs"'],
  ['type = "archive"\nstorage = "S3"', 'stripe_source.storage: "S3"'],
  ['type = "raw"', "stripe_source.image_path: missing"],
  ['type = "raw"\nimage_path = "x"\nstorage = "s3"', "stripe_source.storage: unknown key"],
  ['type = "raw"\nimage_path = "x"\nextra = 1', "stripe_source.extra: unknown key"],
  ['type = "archive"\nstorage = "filesystem"\npath = "x"\ncopy_on_read = true', "unknown key"],
  [`${REMOTE}${PSK}copy_on_read = true`, "stripe_source.copy_on_read: unknown key"],
  [`type = "remote"\n${PSK}`, "stripe_source.address: missing"],
  [`${REMOTE}psk = { identity = "i" }`, "stripe_source.psk.secret: missing"],
  [`${REMOTE}psk = { identity = "", secret.ref = "psk" }`, "psk.identity: must not be empty"],
  [`${REMOTE}psk = { identity = "a\\u0000", secret.ref = "psk" }`, "NUL"],
  [`${REMOTE}psk = { identity = "${"x".repeat(256)}", secret.ref = "psk" }`, "256 bytes"],
  [`${REMOTE}${PSK}connect_timeout_ms = 0`, "connect_timeout_ms: 0 is out of range"],
  [`${REMOTE}${PSK}operation_attempt_timeout_ms = 0`, "operation_attempt_timeout_ms: 0"],
  [`${REMOTE}${PSK}connections = 0`, "connections: 0 is out of range"],
  [S3.replace('secret_access_key.ref = "key"\n', ""), "secret_access_key: missing"],
  [S3.replace('"b"', '""'), "stripe_source.bucket: must not be empty"],
  [`${S3}connections = 0`, "connections: 0 is out of range"],
  [`${S3}connections = 129`, "connections: 129 is out of range; 1 to 128 is accepted (more"],
  [`${S3}storage_class = "A\\nB"`, "storage_class: must have letters"],
  [`${S3}region = "auto"`, "region: AWS has no such region"],
  [`${S3}endpoint = "example.org"`, "endpoint: not a URL"],
  [`${S3}endpoint = "ftp://example.org"`, "endpoint: not a URL"],
  [`${S3}endpoint = "https://user@example.org"`, "endpoint: must not have a user"],
  [`${S3}endpoint = "https://example.org/?a"`, "endpoint: must not have a user"],
  [`${S3}endpoint = "http://example.org"`, "endpoint: http to another machine"],
  [`${S3}endpoint = "http://127.0.0.1.example.org"`, "endpoint: http to another machine"],
  [`${S3}connect_timeout_ms = 0`, "connect_timeout_ms: 0 is out of range"],
  [`${S3}operation_attempt_timeout_ms = 0`, "operation_attempt_timeout_ms: 0 is out of range"],
  [`${S3}max_attempts = 0`, "max_attempts: 0 is out of range"],
  [
    `${S3}rate_limited_retry = { enabled = true }`,
    "rate_limited_retry.min_delay_ms: must be above 0",
  ],
  [`${S3}session_token.ref = "none"`, 'no secret is named "none"'],
])("the source %j is refused with the reason", async (source, reason) => {
  expect(await errorsOf(load(source))).toContain(reason);
});

test.each(["valid/../invalid/.", "..", ".", "./a", "a/./b", "a/."])(
  "the prefix %s is refused",
  async (prefix) => {
    expect(await errorsOf(load(`${S3}prefix = "${prefix}"`))).toContain("stripe_source.prefix:");
  },
);

test.each(["", "a", "/a/b/", "a..b", ".hidden/x"])("the prefix %j is accepted", async (prefix) => {
  expect(await errorsOf(load(`${S3}prefix = "${prefix}"`))).toBe("");
});

test.each(["example.org:9", "10.0.0.1:65535", "[::1]:9", "[fe80::1%eth0]:9", "0.0.0.0:0"])(
  "the address %s is accepted",
  async (address) => {
    expect(await errorsOf(load(REMOTE.replace("127.0.0.1:9", address) + PSK))).toBe("");
  },
);

test.each(["example.org", "127.0.0.1:99999", "::1:9", "[::1]", ":9", "a b:9", "http://a:9", "a:"])(
  "the address %s is refused",
  async (address) => {
    const errors = await errorsOf(load(REMOTE.replace("127.0.0.1:9", address) + PSK));
    expect(errors).toContain("stripe_source.address: not an address; HOST:PORT or [IPv6]:PORT");
    expect(errors).toContain("with a PORT up to 65535");
  },
);

test("a remote source without PSK is refused, naming the flag, also beside other mistakes", async () => {
  const errors = await errorsOf(load(REMOTE, ""));
  expect(errors).toContain("E_CONFIG_DANGER");
  expect(errors).toContain("danger_zone.allow_unencrypted_connection");
  expect(errors).toContain("danger_zone.allow_unencrypted_disk");
});

test("a remote source without PSK loads with the flag", async () => {
  const { stripeSource } = await load(REMOTE, `${ZONE}allow_unencrypted_connection = true\n`);
  expect(stripeSource).not.toHaveProperty("psk");
});

test("a session token of no bytes is refused where it is used", async () => {
  const secrets = SECRETS.replace('"token"', '""');
  const config = await load(`${S3}session_token.ref = "token"`, ZONE + secrets);
  const errors = await errorsOf(resolveSecrets(config, ["stripe_source"]));
  expect(errors).toContain("secrets.token.source: the secret is empty");
});

test("a PSK below sixteen bytes is refused", async () => {
  const config = await load(REMOTE + PSK.replace('"psk"', '"id"'));
  const errors = await errorsOf(resolveSecrets(config, ["stripe_source"]));
  expect(errors).toContain('stripe_source.psk.secret: secret "id" has 2 bytes; 16 to 512');
});

test("an archive key that has not 32 bytes is refused with its size", async () => {
  const config = await load(`${S3}archive_kek.ref = "psk"`);
  const errors = await errorsOf(resolveSecrets(config, ["stripe_source"]));
  expect(errors).toContain('stripe_source.archive_kek: secret "psk" has 16 bytes; exactly 32');
});

test("a credential that is no text is refused with its name", async () => {
  const secrets = SECRETS.replace(
    'source.inline = "key"',
    'encoding = "base64"\nsource.inline = "//79"',
  );
  const config = await load(S3, ZONE + secrets);
  const errors = await errorsOf(resolveSecrets(config, ["stripe_source"]));
  expect(errors).toContain('stripe_source.secret_access_key: secret "key" is not valid UTF-8');
});

test("the secrets of a source are resolved together", async () => {
  const config = await load(`${S3}archive_kek.ref = "kek"`);
  using secrets = await resolveSecrets(config, ["stripe_source"]);
  expect(new TextDecoder().decode(secrets.get({ ref: "id" }).bytes)).toBe("id");
  expect(secrets.get({ ref: "kek" }).length).toBe(32);
});

const CHAIN = (...places: readonly string[]) =>
  `type = "archive"\nstorage = "s3"\nbucket = "b"\ncredentials = ${JSON.stringify(places)}\n`;

test("credentials of the machine take the place of secrets", async () => {
  const { stripeSource } = await load(CHAIN("profile", "instance"));
  expect(stripeSource).toMatchObject({ credentials: ["profile", "instance"] });
  expect(stripeSource).not.toHaveProperty("accessKeyId");
});

test("without them access key and secret key are required, both", async () => {
  const errors = await errorsOf(load('type = "archive"\nstorage = "s3"\nbucket = "b"'));
  expect(errors).toContain("stripe_source.access_key_id: missing: this key is required");
  expect(errors).toContain("stripe_source.secret_access_key: missing: this key is required");
  expect(errors).not.toContain("session_token");
});

test("the two are not mixed", async () => {
  const errors = await errorsOf(
    load(`${S3}session_token.ref = "token"\ncredentials = ["instance"]`),
  );
  for (const key of ["access_key_id", "secret_access_key", "session_token"]) {
    expect(errors).toContain(`stripe_source.${key}: must not be given beside`);
  }
});

test("those of the environment need the flag for such secrets", async () => {
  expect(await errorsOf(load(CHAIN("environment")))).toContain("allow_env_secrets");
  const zone = `${ZONE}allow_env_secrets = true\n${SECRETS}`;
  expect(await errorsOf(load(CHAIN("environment"), zone))).toBe("");
});

test.each([
  [[], "must not be empty"],
  [["instance", "instance"], "names something twice"],
  [["sso"], '"sso": one of "environment", "profile", "web_identity", "container", "instance"'],
])("the places %j are refused", async (places, text) => {
  expect(await errorsOf(load(CHAIN(...places)))).toContain(text);
});
