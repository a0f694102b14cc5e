import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync } from "node:fs";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { UbiError } from "../errors.ts";
import { joinPath, readSourceDocument } from "./source-files.ts";

test("includes are merged into the root, absent optional ones left out", async () => {
  using folder = new ConfigFolder({
    "root.toml":
      'include = ["secrets.toml", "stripe_source.toml?", "more.toml?"]\n' +
      '[device]\ndata_path = "d"\n[tuning]\nnum_queues = 4\n',
    "secrets.toml": '[secrets.a]\nsource.env = "A"\n[secrets.b]\nsource.env = "B"\n',
    "more.toml": "[tuning]\nqueue_size = 4\nwrite_through = true\n",
  });
  const { table } = await readSourceDocument(folder.file("root.toml"));
  expect(table).toEqual({
    device: { data_path: "d" },
    tuning: { num_queues: 4, queue_size: 4, write_through: true },
    secrets: { a: { source: { env: "A" } }, b: { source: { env: "B" } } },
  });
});

test("two files may add to one table, inline or not, down to single keys", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml"]\n[secrets.x]\nsource.env = "A"\n',
    "a.toml": 'secrets = { x = { encoding = "base64" } }\n',
  });
  const { table } = await readSourceDocument(folder.file("root.toml"));
  expect(table).toEqual({ secrets: { x: { source: { env: "A" }, encoding: "base64" } } });
});

test("an included duplicate is refused with key, both files and lines", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml"]\n[device]\ndevice_id = "x"\n',
    "a.toml": '\n\n[device]\ndevice_id = "y"\n',
  });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain(`E_CONFIG_INCLUDE ${folder.file("a.toml")}:4: device.device_id:`);
  expect(errors).toContain(`duplicate: already given in ${folder.file("root.toml")}:3`);
});

test("arrays of two files are not joined", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml"]\n[tuning]\ncpus = [1]\n',
    "a.toml": "[tuning]\ncpus = [2]\n",
  });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain("tuning.cpus: duplicate");
});

test("a file that is included twice is a duplicate of itself", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml", "./a.toml"]\n',
    "a.toml": 'device.device_id = "y"\n',
  });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain("device.device_id: duplicate");
});

test("a table in one file and a value in the other are a type mismatch", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml"]\n[device]\ndevice_id = "x"\n',
    "a.toml": '[device]\ndevice_id = { env = "Y" }\n',
  });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain("device.device_id: type mismatch");
});

test("an include inside an included file is refused", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml"]\n',
    "a.toml": '# first line\ninclude = ["b.toml"]\n',
  });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain(`${folder.file("a.toml")}:2: include: an included file cannot`);
});

test.each([
  ['"?"', "an entry is empty"],
  ['"  "', "an entry is empty"],
  ['"/etc/passwd"', "must be relative"],
  ['"../secret.toml"', 'must not contain ".."'],
  ['"a/../b.toml?"', 'must not contain ".."'],
  ["1", "every entry is a file name"],
])("the include entry %s is refused before any file is opened", async (entry, reason) => {
  using folder = new ConfigFolder({ "root.toml": `include = ["absent.toml", ${entry}]\n` });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain(reason);
  expect(errors).not.toContain("ENOENT");
});

test.each(['"a.toml"', "true", "{ a = 1 }"])("an include of %s is no list", async (value) => {
  using folder = new ConfigFolder({ "root.toml": `include = ${value}\n` });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain(`${folder.file("root.toml")}:1: include: an array of at most 64`);
});

test("only one question mark is taken from an optional include", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["a.toml??"]\n',
    "a.toml?": "x = 1\n",
  });
  expect((await readSourceDocument(folder.file("root.toml"))).table).toEqual({ x: 1 });
});

test("an empty list of includes is fine", async () => {
  using folder = new ConfigFolder({ "root.toml": "include = []\n" });
  expect((await readSourceDocument(folder.file("root.toml"))).table).toEqual({});
});

test("an absent include that is not optional names its path", async () => {
  using folder = new ConfigFolder({ "root.toml": 'include = ["sub/a.toml"]\n' });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain(`E_CONFIG_READ cannot read config ${folder.file("sub/a.toml")}: ENOENT`);
});

test("an optional include that is a directory is not forgiven", async () => {
  using folder = new ConfigFolder({ "root.toml": 'include = ["sub?"]\n' });
  mkdirSync(folder.file("sub"));
  expect(await errorsOf(readSourceDocument(folder.file("root.toml")))).toContain("EISDIR");
});

test("an optional include with broken text is not forgiven", async () => {
  using folder = new ConfigFolder({
    "root.toml": 'include = ["toml?", "utf8?"]\n',
    toml: "a = \n",
    utf8: new Uint8Array([0x61, 0x3d, 0xff]),
  });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain(`E_CONFIG_SYNTAX ${folder.file("toml")}:1:`);
  expect(errors).toContain(`${folder.file("utf8")}: not valid UTF-8`);
});

test("a root file that is absent is named", async () => {
  using folder = new ConfigFolder();
  const errors = await errorsOf(readSourceDocument(folder.file("none.toml")));
  expect(errors).toContain(`E_CONFIG_READ cannot read config ${folder.file("none.toml")}: ENOENT`);
});

test("a root file that is too large is refused", async () => {
  using folder = new ConfigFolder({ "root.toml": "#".repeat((1 << 20) + 1) });
  const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
  expect(errors).toContain("larger than 1048576 bytes");
});

test("includes are looked up beside the link, not beside the file that it points to", async () => {
  using folder = new ConfigFolder({ "a.toml": "x = 1\n" });
  mkdirSync(folder.file("real"));
  folder.write("real/root.toml", 'include = ["a.toml"]\n');
  symlinkSync(folder.file("real/root.toml"), folder.file("root.toml"));
  expect((await readSourceDocument(folder.file("root.toml"))).table).toEqual({ x: 1 });
});

test("a config that comes through a pipe is read once and whole", async () => {
  using folder = new ConfigFolder();
  const fifo = folder.file("root.toml");
  Bun.spawnSync(["mkfifo", fifo]);
  await using _writer = Bun.spawn(["sh", "-c", 'printf "a = 1\\n" > "$0"', fifo]);
  expect((await readSourceDocument(fifo)).table).toEqual({ a: 1 });
});

test("files of mode 0644 load with a warning that names path and mode", async () => {
  using folder = new ConfigFolder();
  folder.write("root.toml", 'include = ["a.toml"]\n', 0o644);
  folder.write("a.toml", "x = 1\n", 0o640);
  const { warnings } = await readSourceDocument(folder.file("root.toml"));
  expect(warnings[0]).toContain(`${folder.file("root.toml")}: mode 0644`);
  expect(warnings[1]).toContain(`${folder.file("a.toml")}: mode 0640`);
});

test("files of mode 0600 load without a warning", async () => {
  using folder = new ConfigFolder({ "root.toml": 'include = ["a.toml"]\n', "a.toml": "x = 1\n" });
  expect((await readSourceDocument(folder.file("root.toml"))).warnings).toEqual([]);
});

test.each([0o620, 0o602, 0o666])(
  "files that others can change (mode %d) are refused",
  async (m) => {
    using folder = new ConfigFolder({ "root.toml": 'include = ["a.toml"]\n' });
    folder.write("a.toml", "x = 1\n", m);
    const errors = await errorsOf(readSourceDocument(folder.file("root.toml")));
    expect(errors).toContain("lets other users change it; use 0600");
  },
);

test.each([
  ["/etc/u", "a", "/etc/u/a"],
  ["/", "a", "/a"],
  ["", "a", "a"],
  [".", "a", "./a"],
  ["/etc/u", "../a", "/etc/u/../a"],
  ["/etc/u", "/a", "/a"],
])("%j and %j are joined to %s", (directory, path, joined) => {
  expect(joinPath(directory, path)).toBe(joined);
});

test("the wait for the writer of a pipe ends with the signal's reason", async () => {
  using folder = new ConfigFolder();
  Bun.spawnSync(["mkfifo", "-m", "600", folder.file("pipe")]);
  const controller = new AbortController();
  const reading = readSourceDocument(folder.file("pipe"), controller.signal);
  controller.abort(new UbiError("E_INTERRUPTED", "enough"));
  expect(await errorsOf(reading)).toBe("E_INTERRUPTED enough");
});
