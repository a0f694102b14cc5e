/** `ubiblk config` as an operator runs it: schema and sample against other software, checks of real documents. */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { outputOf, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { ConfigFolder } from "../support/config-folder.ts";
import { skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";
import { endWhileItWaits } from "../support/waiting-command.ts";

const KINDS = ["device", "target", "archive", "server"];
const KEY = "0123456789abcdef".repeat(4);
const DEVICE = `[device]
data_path = "disk.raw"
vhost_socket = "vhost.sock"
[encryption]
xts_key.ref = "key"
[secrets.key]
source.file = "key.pipe"
`;

const config = (words: readonly string[], options: Parameters<typeof runCommand>[1] = {}) =>
  runCommand([EXECUTABLE, "config", ...words], options);

/** The one object of `--json`. */
const reportOf = ({ stdout }: { readonly stdout: string }) => JSON.parse(stdout).documents[0];

const PYTHON = "/usr/bin/python3";
const VALIDATOR = `
import json, sys, jsonschema
schema, document = json.load(sys.stdin)
for draft in (jsonschema.Draft4Validator, jsonschema.Draft7Validator):
    draft.check_schema(schema)
print(json.dumps(sorted(e.json_path for e in jsonschema.Draft7Validator(schema).iter_errors(document))))
`;

/** Where a document does not fit a schema, by the library of Python. */
async function mistakesBy(schema: string, document: unknown): Promise<unknown> {
  const child = Bun.spawn([PYTHON, "-c", VALIDATOR], {
    stdin: new Blob([JSON.stringify([JSON.parse(schema), document])]),
    stdout: "pipe",
    stderr: "inherit",
  });
  return JSON.parse(await child.stdout.text());
}

const testWithPython = skipUnless(
  "python3-jsonschema is not installed",
  existsSync("/usr/lib/python3/dist-packages/jsonschema"),
);

for (const kind of KINDS) {
  testWithPython(`the sample of kind ${kind} fits its schema by another validator`, async () => {
    const schema = await outputOf([EXECUTABLE, "config", "schema", "--kind", kind]);
    const sample = await outputOf([EXECUTABLE, "config", "example", "--kind", kind]);
    expect(await mistakesBy(schema, Bun.TOML.parse(sample))).toEqual([]);
  });

  test(`the sample of kind ${kind} is valid`, async () => {
    const sample = await outputOf([EXECUTABLE, "config", "example", "--kind", kind]);
    using folder = new ConfigFolder({ "c.toml": sample });
    const result = await config(["check", "--no-secrets", "--json", folder.file("c.toml")]);
    expect(reportOf(result)).toMatchObject({ valid: true, kind, errors: [] });
    expect(result.exitCode).toBe(0);
  });
}

testWithPython(
  "a schema finds what a check finds: a wrong type, range, choice and name",
  async () => {
    const schema = await outputOf([EXECUTABLE, "config", "schema"]);
    const document = {
      device: { data_path: "disk.raw", vhost_sock: "x", track_written: "yes" },
      tuning: { num_queues: 0, io_engine: "aio" },
      secrets: { key: { source: { file: "a", env: "b" } } },
    };
    expect(await mistakesBy(schema, document)).toEqual([
      "$.device",
      "$.device.track_written",
      "$.secrets.key.source",
      "$.tuning.io_engine",
      "$.tuning.num_queues",
    ]);
  },
);

test("a pipe is read, its secret measured, and the check says that it is empty now", async () => {
  using folder = new ConfigFolder({ "c.toml": DEVICE });
  await outputOf(["mkfifo", folder.file("key.pipe")]);
  const checked = config(["check", "--json", folder.file("c.toml")]);
  await outputOf(["sh", "-c", `printf %s ${KEY} > ${folder.file("key.pipe")}`]);
  const result = await checked;
  expect(reportOf(result).secrets).toMatchObject([
    { name: "key", source: "file", file_kind: "named pipe", bytes: 64 },
  ]);
  expect(reportOf(result).warnings.join("\n")).toContain("its writer has to write again");
  expect(result.stdout + result.stderr).not.toContain(KEY);
  expect(result.exitCode).toBe(0);
});

test("with --no-secrets a pipe stays full for the one that it is meant for", async () => {
  using folder = new ConfigFolder({ "c.toml": DEVICE });
  await outputOf(["mkfifo", folder.file("key.pipe")]);
  const writer = Bun.spawn(["sh", "-c", `printf %s ${KEY} > ${folder.file("key.pipe")}`]);
  const result = await config(["check", "--no-secrets", folder.file("c.toml")]);
  expect(result.stdout).toContain("named pipe");
  expect(result.stdout).toContain("not read");
  expect(result.exitCode).toBe(0);
  expect(await Bun.file(folder.file("key.pipe")).text()).toBe(KEY);
  expect(await writer.exited).toBe(0);
});

test("a check that waits for a pipe ends with Ctrl-C", async () => {
  using folder = new ConfigFolder({ "c.toml": DEVICE });
  await outputOf(["mkfifo", folder.file("key.pipe")]);
  const words = ["config", "check", folder.file("c.toml")];
  const { exitCode, told } = await endWhileItWaits(words, "SIGINT", ".");
  expect(exitCode).toBe(130);
  expect(told).toContain("E_INTERRUPTED");
});

test("the document of a disk that is served is checked, and nothing is made or locked", async () => {
  using folder = new ConfigFolder({
    "c.toml": DEVICE.replace("key.pipe", "key").concat(
      "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n",
    ),
    key: KEY,
    "disk.raw": new Uint8Array(2 ** 20),
  });
  const backend = Bun.spawn([EXECUTABLE, "vhost", "-f", folder.file("c.toml")], {
    stdout: "ignore",
    stderr: "ignore",
  });
  try {
    await until("the backend listens", () => existsSync(folder.file("vhost.sock")));
    const before = readdirSync(folder.path).sort();
    const result = await config(["check", folder.file("c.toml")]);
    expect(result.exitCode).toBe(0);
    expect(result.stdout).toContain("valid, device for vhost");
    expect(result.stdout).toContain("key: regular file");
    expect(result.stdout).toContain("allow_secret_over_regular_file: used by secrets.key");
    expect(readdirSync(folder.path).sort()).toEqual(before);
  } finally {
    backend.kill();
    await backend.exited;
  }
});

test("a service's credential is read in its folder", async () => {
  using folder = new ConfigFolder({
    "c.toml": DEVICE.replace('source.file = "key.pipe"', 'source.credential = "xts"'),
  });
  mkdirSync(folder.file("credentials"), { mode: 0o700 });
  folder.write("credentials/xts", KEY, 0o400);
  const env = { ...process.env, CREDENTIALS_DIRECTORY: folder.file("credentials") };
  const result = await config(["check", "--json", folder.file("c.toml")], { env });
  expect(reportOf(result).secrets).toMatchObject([{ source: "credential", bytes: 64 }]);
  expect(result.exitCode).toBe(0);
});

test("the memory of a disk grows with its queues, and its parts add up", async () => {
  using folder = new ConfigFolder({ "c.toml": `${DEVICE}[tuning]\nnum_queues = 2\n` });
  const result = await config(["check", "--no-secrets", "--json", folder.file("c.toml")]);
  const { total, ...parts } = reportOf(result).memory;
  expect(parts.bounce_buffers).toBe(2 * 8 * 2 ** 20);
  expect(Object.values<number>(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(total);
});

test("the memory of a ublk device is that of its requests' data above all", async () => {
  using folder = new ConfigFolder({ "c.toml": DEVICE });
  const flags = ["--no-secrets", "--backend", "ublk", "--json"];
  const result = await config(["check", ...flags, folder.file("c.toml")]);
  expect(reportOf(result).memory.request_data).toBe(64 * 2 ** 20);
});

test("mistakes of several documents are told with file, line, key and code; the exit code is 1", async () => {
  using folder = new ConfigFolder({
    "a.toml": DEVICE.replace("vhost_socket", "vhost_sock"),
    "b.toml": "[server]\naddress = 7\n",
  });
  const paths = [folder.file("a.toml"), folder.file("b.toml")];
  const result = await config(["check", "--no-secrets", ...paths]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(
    `error E_CONFIG_KEY: ${paths[0]}:3: device.vhost_sock: unknown key; did you mean vhost_socket?`,
  );
  expect(result.stderr).toContain(
    `error E_CONFIG_VALUE: ${paths[1]}:2: server.address: a string is expected, not an integer`,
  );
});

test("as JSON mistakes stand in the object, which is all that is printed", async () => {
  using folder = new ConfigFolder({ "c.toml": "[device]\ndata_path = 1\n" });
  const result = await config(["check", "--json", folder.file("c.toml")]);
  expect(result).toMatchObject({ exitCode: 1, stderr: "" });
  expect(reportOf(result)).toMatchObject({ valid: false, memory: null });
  expect(reportOf(result).errors).toContainEqual({
    code: "E_CONFIG_VALUE",
    file: folder.file("c.toml"),
    line: 2,
    key: "device.data_path",
    message: `${folder.file("c.toml")}:2: device.data_path: a string is expected, not an integer`,
  });
});

test("a key that other programs refuse ends a check for them with 1", async () => {
  using folder = new ConfigFolder({ "c.toml": `${DEVICE}pipe_timeout_ms = 5\n` });
  const path = folder.file("c.toml");
  const result = await config(["check", "--no-secrets", "--reference", path]);
  expect(result.exitCode).toBe(1);
  expect(result.stdout).toContain("valid, but not for other programs, device for vhost");
  expect(result.stderr).toContain(`E_CONFIG_REFERENCE: ${path}:8: secrets.key.pipe_timeout_ms:`);
});

test("a hostile name of a file gives a terminal no commands", async () => {
  const result = await config(["check", "/no/\u001b[31mred\u009b31m\nubiblk: fine"]);
  const told = result.stdout + result.stderr;
  expect(told.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  expect(result.stdout.split("\n")).toHaveLength(3);
});

test("a reader that goes away and a full disk are no crash", async () => {
  const piped = await runCommand([
    "bash",
    "-c",
    `set -o pipefail; ${EXECUTABLE} config example | head -1`,
  ]);
  expect(piped).toMatchObject({ exitCode: 0, stderr: "" });
  const full = await runCommand(["bash", "-c", `${EXECUTABLE} config schema > /dev/full`]);
  expect(full.exitCode).toBe(1);
  expect(full.stderr).toContain("E_DISK_IO");
});

test.each([[[]], [["chekc"]], [["check"]], [["check", "--kind", "disk", "x"]], [["schema", "x"]]])(
  "config %j is wrong usage",
  async (words) => {
    const result = await config(words);
    expect(result.exitCode).toBe(2);
    expect(result.stderr).toContain("E_USAGE");
  },
);
