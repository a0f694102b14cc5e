import { afterEach, expect, test } from "bun:test";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { type InspectionOptions, inspectDocument } from "./inspect-document.ts";

const ZONE = "[danger_zone]\nenabled = true\n";
const DEVICE = `[device]
data_path = "disk.raw"
vhost_socket = "/run/vhost.sock"
[encryption]
xts_key.ref = "k"
[secrets.k]
source.env = "UBIBLK_TEST_INSPECTED"
${ZONE}allow_env_secrets = true
`;

afterEach(() => {
  delete process.env.UBIBLK_TEST_INSPECTED;
  delete process.env.CREDENTIALS_DIRECTORY;
});

const inspectAt = (path: string, options: Partial<InspectionOptions> = {}) =>
  inspectDocument(path, {
    kind: undefined,
    backend: undefined,
    mayReadSecrets: true,
    isForReference: false,
    signal: new AbortController().signal,
    ...options,
  });

const inspect = async (text: string, options: Partial<InspectionOptions> = {}) => {
  using folder = new ConfigFolder({ "c.toml": text });
  return await inspectAt(folder.file("c.toml"), options);
};

const codesOf = (report: Awaited<ReturnType<typeof inspect>>) =>
  report.errors.map((error) => error.code);

test("values have their origins: the line that they stand in, or the default", async () => {
  process.env.UBIBLK_TEST_INSPECTED = "x".repeat(64);
  const { values } = await inspect(DEVICE);
  const found = (key: string) => values.find((value) => value.key === key);
  expect(found("device.data_path")?.origin?.line).toBe(2);
  expect(found("device.data_path")?.value).toEndWith("/disk.raw");
  expect(found("device.device_id")).toEqual({
    key: "device.device_id",
    value: "ubiblk",
    origin: undefined,
  });
  expect(found("encryption.xts_key.ref")?.origin?.line).toBe(5);
});

test("a value of an included file has that file as its origin", async () => {
  using folder = new ConfigFolder({
    "c.toml": `include = ["more.toml"]\n${DEVICE}`,
    "more.toml": "\n[tuning]\nnum_queues = 2\n",
  });
  const report = await inspectAt(folder.file("c.toml"), { mayReadSecrets: false });
  const queues = report.values.find(({ key }) => key === "tuning.num_queues");
  expect(queues).toMatchObject({ value: 2, origin: { file: folder.file("more.toml"), line: 3 } });
  expect(report.files).toEqual([folder.file("c.toml"), folder.file("more.toml")]);
});

test("a secret is told by its source, its length and its users, never by its bytes", async () => {
  process.env.UBIBLK_TEST_INSPECTED = "secret-bytes-".padEnd(64, "x");
  const report = await inspect(DEVICE);
  expect(report.secrets).toEqual([
    {
      name: "k",
      source: "env",
      place: "UBIBLK_TEST_INSPECTED",
      fileKind: undefined,
      encoding: "plaintext",
      encryptedBy: [],
      bytes: 64,
      usedBy: ["encryption.xts_key"],
    },
  ]);
  expect(JSON.stringify(report)).not.toContain("secret-bytes-");
});

test("without reading, a secret that cannot be had is no mistake", async () => {
  const report = await inspect(DEVICE, { mayReadSecrets: false });
  expect(codesOf(report)).toEqual([]);
  expect(report.secrets[0]?.bytes).toBeUndefined();
});

test("without reading, a regular file that no flag allows is a mistake all the same", async () => {
  using folder = new ConfigFolder({
    "c.toml": DEVICE.replace('env = "UBIBLK_TEST_INSPECTED"', 'file = "key"'),
    key: "x".repeat(64),
  });
  const report = await inspectAt(folder.file("c.toml"), { mayReadSecrets: false });
  expect(codesOf(report)).toEqual(["E_CONFIG_DANGER"]);
});

test("without reading, a file that is not there is a warning", async () => {
  const text = DEVICE.replace('env = "UBIBLK_TEST_INSPECTED"', 'file = "key"');
  const report = await inspect(text, { mayReadSecrets: false });
  expect(codesOf(report)).toEqual([]);
  expect(report.warnings.join("\n")).toContain("secrets.k.source: is not there now: cannot read");
});

test("without reading, a credential is no mistake where there are none, and one that others can read is", async () => {
  const text = DEVICE.replace('env = "UBIBLK_TEST_INSPECTED"', 'credential = "key"');
  expect(codesOf(await inspect(text, { mayReadSecrets: false }))).toEqual([]);
  using folder = new ConfigFolder({ "c.toml": text });
  folder.write("key", "x".repeat(64), 0o404);
  process.env.CREDENTIALS_DIRECTORY = folder.path;
  const report = await inspectAt(folder.file("c.toml"), { mayReadSecrets: false });
  expect(codesOf(report)).toEqual(["E_CONFIG_DANGER"]);
});

test("a secret that cannot be had is a mistake, and the rest is told nevertheless", async () => {
  const report = await inspect(DEVICE.replace("TEST_INSPECTED", "TEST_NEVER_SET"));
  expect(codesOf(report)).toEqual(["E_SECRET_READ"]);
  expect(report.values.length).toBeGreaterThan(10);
  expect(report.dangers).toEqual([{ flag: "allow_env_secrets", users: ["secrets.k"] }]);
});

test("all mistakes are told, with warnings", async () => {
  const report = await inspect(`${DEVICE}[tuning]\nnum_queues = 0\nqueue_size = 3\n`);
  expect(codesOf(report)).toEqual(["E_CONFIG_VALUE", "E_CONFIG_VALUE"]);
  expect(report.values).toEqual([]);
  expect(report.warnings.join("\n")).toContain("in force: allow_env_secrets");
});

test("the kind is found by the main section", async () => {
  const store = 'storage = "filesystem"\npath = "/a"\n';
  const connection = `${ZONE}allow_unencrypted_connection = true\n`;
  const texts = [
    `[target]\n${store}`,
    `[archive]\n${store}`,
    `[server]\naddress = "localhost:1"\n${connection}`,
    '[encryption]\nxts_key.ref = "k"\n[secrets.k]\nsource.file = "absent"\n',
  ];
  const kinds = await Promise.all(
    texts.map(async (text) => {
      const { kind, errors } = await inspect(text, { mayReadSecrets: false });
      return [kind, errors.map(String)];
    }),
  );
  expect(kinds).toEqual([
    ["target", []],
    ["archive", []],
    ["server", []],
    ["key", []],
  ]);
});

test("a document without a main section is refused", async () => {
  const report = await inspect("[tuning]\nnum_queues = 1\n");
  expect(report.errors.map(String).join("\n")).toContain("no section tells what it is for");
});

test("a document of another kind than the one given is refused", async () => {
  const report = await inspect(DEVICE, { kind: "server" });
  expect(codesOf(report)).toEqual(["E_CONFIG_KEY"]);
});

test("a socket says that a disk is for vhost, and a front end that is given counts", async () => {
  process.env.UBIBLK_TEST_INSPECTED = "x".repeat(64);
  const ublk = await inspect(DEVICE, { backend: "ublk", mayReadSecrets: false });
  expect((await inspect(DEVICE, { mayReadSecrets: false })).backend).toBe("vhost");
  expect(ublk.warnings.join("\n")).toContain("device.vhost_socket: has no effect here");
});

test("for other programs, each key that they do not know is named with its line", async () => {
  const text = `${DEVICE}[tuning]\ndisable_discard = true\n`.replace(
    "[secrets.k]",
    "[secrets.k]\npipe_timeout_ms = 1",
  );
  const report = await inspect(text, { isForReference: true, mayReadSecrets: false });
  expect(codesOf(report)).toEqual(["E_CONFIG_REFERENCE", "E_CONFIG_REFERENCE"]);
  expect(report.errors.map((error) => error.message.replace(/^.*c\.toml/, ""))).toEqual([
    expect.stringContaining(":13: tuning.disable_discard: other programs"),
    expect.stringContaining(":7: secrets.k.pipe_timeout_ms: other programs"),
  ]);
});

test("for other programs, a section that they do not know is named, although it has no keys", async () => {
  const options = { isForReference: true, mayReadSecrets: false };
  const report = await inspect(`${DEVICE}[limits]\n`, options);
  expect(report.errors.map((error) => error.message.replace(/^.*c\.toml/, ""))).toEqual([
    expect.stringContaining(":11: limits: other programs"),
  ]);
});

test("for other programs, defaults of keys that they do not know are no matter", async () => {
  const report = await inspect(DEVICE, { isForReference: true, mayReadSecrets: false });
  expect(codesOf(report)).toEqual([]);
});
