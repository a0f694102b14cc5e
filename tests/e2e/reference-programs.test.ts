/**
 * The programs of the reference implementation, as links to the executable: each flag in each form, the exit codes
 * of wrong usage, and a disk that goes through all of them. `docs/migration.md` tells what differs.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { LINKS } from "../../src/commands/command-tree.ts";
import { type Backend, EXECUTABLE, startBackend } from "../support/backend.ts";
import { until } from "../support/until.ts";

const ROOT = resolve(import.meta.dir, "..", "..");
const MIB = 1024 * 1024;
const TIMEOUT_MS = 60_000;

let folder: string;
const place = (name: string) => join(folder, name);
const run = (program: string, ...argv: readonly string[]) =>
  runCommand([place(`bin/${program}`), ...argv], { cwd: folder });

beforeAll(() => {
  mkdirSync(join(ROOT, "build"), { recursive: true });
  folder = mkdtempSync(join(ROOT, "build", "reference-programs-"));
  mkdirSync(place("bin"));
  for (const name of Object.keys(LINKS)) {
    symlinkSync(EXECUTABLE, place(`bin/${name}`));
  }
  writeDisk();
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A flag that names a document, and what the program needs besides to get as far as reading it. */
const DOCUMENT_FLAGS: readonly {
  readonly program: string;
  readonly short?: string;
  readonly long: string;
  readonly others?: readonly string[];
}[] = [
  { program: "vhost-backend", short: "-f", long: "--config" },
  { program: "ublk-backend", short: "-f", long: "--config", others: ["--device-symlink", "x"] },
  { program: "init-metadata", short: "-f", long: "--config", others: ["-s", "11"] },
  { program: "dump-metadata", short: "-f", long: "--config" },
  { program: "xts", short: "-f", long: "--config", others: ["in", "out"] },
  {
    program: "archive",
    short: "-f",
    long: "--config",
    others: ["--target-config", "target.toml"],
  },
  { program: "archive", long: "--target-config", others: ["-f", "disk.toml"] },
  { program: "export-archive", long: "--source", others: ["--target", "out"] },
  {
    program: "remote-stripe-server",
    short: "-f",
    long: "--config",
    others: ["--listen-config", "server.toml"],
  },
  { program: "remote-stripe-server", long: "--listen-config", others: ["-f", "disk.toml"] },
  {
    program: "remote-stripe-server",
    short: "-f",
    long: "--config",
    others: ["--legacy", "--listen-config", "server.toml"],
  },
  {
    program: "remote-stripe-server",
    long: "--legacy-kek",
    others: ["--legacy", "-f", "legacy.yaml", "--listen-config", "server.toml"],
  },
  { program: "remote-stripe-shell", long: "--server-config" },
];

test.each(DOCUMENT_FLAGS)(
  "$program $long: every form of the flag leads to the file",
  async ({ program, short, long, others = [] }) => {
    const absent = "absent.toml";
    const forms = [[long, absent], [`${long}=${absent}`]];
    if (short !== undefined) {
      forms.push([short, absent], [`${short}${absent}`], [`${short}=${absent}`]);
    }
    const results = await Promise.all(forms.map((form) => run(program, ...others, ...form)));
    for (const result of results) {
      expect(result.stderr).toMatch(/error E_[A-Z_]+: .*absent\.toml/);
      expect(result.exitCode).toBe(1);
    }
  },
  TIMEOUT_MS,
);

/** Wrong usage: exit code 2, and the flag and its value in the message. */
const WRONG: readonly (readonly [program: string, argv: readonly string[], named: string])[] = [
  ...Object.keys(LINKS).flatMap((program) => [
    [program, ["--no-such-flag"], "--no-such-flag"] as const,
    [program, ["-Z"], "-Z"] as const,
  ]),
  ["vhost-backend", [], "--config"],
  ["vhost-backend", ["-f"], "-f"],
  ["vhost-backend", ["-f", "a", "--config", "b"], "--config"],
  ["vhost-backend", ["-f", "a", "b"], '"b"'],
  ["vhost-backend", ["--conf", "a"], "--conf"],
  ["ublk-backend", [], "--config"],
  ["ublk-backend", ["-f", "a", "--device-symlink"], "--device-symlink"],
  ["init-metadata", ["-s", "11"], "--config"],
  ["init-metadata", ["-f", "a", "-s", "256"], "0 to 255"],
  ["init-metadata", ["-f", "a", "-s", "-1"], "-s"],
  ["init-metadata", ["-f", "a", "--stripe-sector-count-shift=x"], '"x"'],
  ["dump-metadata", [], "--config"],
  ["xts", ["-f", "a", "in"], "OUTPUT"],
  ["xts", ["-f", "a", "in", "out", "more"], '"more"'],
  ["xts", ["-f", "a", "--action", "crypt", "in", "out"], "encode, decode"],
  ["xts", ["-f", "a", "--start", "-1", "in", "out"], "--start"],
  ["xts", ["-f", "a", "--len=1K", "in", "out"], '"1K"'],
  ["archive", ["-f", "a"], "--target-config"],
  ["archive", ["--target-config", "a"], "--config"],
  ["archive", ["-f", "a", "--target-config", "b", "--compression", "lz4"], "none, zstd"],
  ["archive", ["-f", "a", "--target-config", "b", "--zstd-level", "0"], "1 to 22"],
  ["archive", ["-f", "a", "--target-config", "b", "--zstd-level", "23"], "1 to 22"],
  ["archive", ["-f", "a", "--target-config", "b", "--encrypt=yes"], "--encrypt"],
  ["export-archive", ["--source", "a"], "--target"],
  ["export-archive", ["--target", "a"], "--source"],
  ["export-archive", ["-f", "a"], "-f"],
  ["remote-stripe-server", ["-f", "a"], "--listen-config"],
  ["remote-stripe-server", ["--listen-config", "a"], "--config"],
  ["remote-stripe-shell", [], "--server-config"],
  ["remote-stripe-shell", ["-f", "a"], "-f"],
  ["ubiblk-init", [], "--size"],
  ["ubiblk-init", ["--size", "0"], "--size"],
  ["ubiblk-init", ["--size", "1M", "--io-engine", "aio"], "io_uring, sync"],
  ["ubiblk-init", ["--size", "1M", "--stripe-size", "100K"], "--stripe-size"],
  ["ubiblk-init", ["--size", "1M", "--num-queues", "0"], "1 to 63"],
  ["ubitop", [], "--socket"],
  ["ubitop", ["--socket", "a", "--interval", "0"], "--interval"],
  ["ubitop", ["--socket", "a", "--interval", "soon"], '"soon"'],
];

test("wrong usage has exit code 2, says nothing on standard output, and is named", async () => {
  const outcomes = await Promise.all(
    WRONG.map(async ([program, argv, named]) => {
      const { exitCode, stdout, stderr } = await run(program, ...argv);
      const isAsExpected = exitCode === 2 && stdout === "" && stderr.includes(named);
      return isAsExpected ? undefined : { program, argv, exitCode, stdout, stderr };
    }),
  );
  expect(outcomes.filter((outcome) => outcome !== undefined)).toEqual([]);
}, 120_000);

describe.each(Object.keys(LINKS))("%s", (program) => {
  test("tells help and version on standard output", async () => {
    const [help, h, version, v] = await Promise.all(
      ["--help", "-h", "--version", "-V"].map((flag) => run(program, flag)),
    );
    expect(help).toMatchObject({ exitCode: 0, stderr: "" });
    expect(help?.stdout).toContain(`Usage: ubiblk ${LINKS[program]} `);
    expect(h).toMatchObject({ exitCode: 0, stderr: "", stdout: help?.stdout ?? "" });
    expect(version).toMatchObject({ exitCode: 0, stderr: "" });
    expect(version?.stdout).toMatch(/^ubiblk \d+\.\d+\.\d+\n$/);
    expect(v).toMatchObject({ exitCode: 0, stdout: version?.stdout ?? "" });
  });
});

test("--legacy-kek goes with --legacy only", async () => {
  const flags = ["-f", "disk.toml", "--listen-config", "server.toml", "--legacy-kek", "kek.yaml"];
  const result = await run("remote-stripe-server", ...flags);
  expect(result.stderr).toContain("--legacy-kek requires --legacy");
  expect(result.exitCode).toBe(2); // the reference: 1
});

test(
  "a disk goes through all programs by their old names and flags",
  async () => {
    expect((await run("init-metadata", "-f=disk.toml", "-s12")).exitCode).toBe(0);
    await using backend = await serve(
      "vhost-backend",
      [`--config=${place("disk.toml")}`],
      "vhost.sock",
    );
    const top = await run("ubitop", "--socket=rpc.sock", "--interval", "0.1", "--once");
    expect(top).toMatchObject({ exitCode: 0, stderr: "" });
    const bench = [EXECUTABLE, "bench", "--socket", "vhost.sock", "--workload", "verify"];
    expect((await runCommand(bench, { cwd: folder })).exitCode).toBe(0);
    expect(await backend.stop()).toBe(0);

    const dump = await run("dump-metadata", "-fdisk.toml");
    expect(dump.stdout.split("\n").map((line) => line.split(":")[0])).toEqual([
      "data file",
      "source",
      "metadata version",
      "stripe size",
      "fetched stripes",
      "written stripes",
      "has-source stripes",
      "",
    ]);
    expect(dump.stdout).toContain("stripe size: 2097152 bytes");

    const flags = ["-f", "disk.toml", "--target-config=target.toml", "-e", "--compression=zstd"];
    const archive = await run("archive", ...flags, "--zstd-level", "1", "--stats", "stats.json");
    expect(archive).toMatchObject({ exitCode: 0 });
    expect(Object.keys(JSON.parse(readFileSync(place("stats.json"), "utf8")))).toEqual([
      "physical_size_bytes",
      "logical_size_bytes",
    ]);
    const exported = await run("export-archive", "--source=archive.toml", "--target=copy.raw");
    expect(exported.exitCode).toBe(0);
    expect((await run("xts", "-f", "disk.toml", "disk.raw", "plain.raw")).exitCode).toBe(0);
    expect(readFileSync(place("copy.raw")).equals(readFileSync(place("plain.raw")))).toBe(true);
  },
  TIMEOUT_MS,
);

test("xts: --action, --start and --len as before", async () => {
  writeFileSync(place("some.raw"), new Uint8Array(8 * 512).fill(0x5a));
  const encode = await run("xts", "-f", "disk.toml", "--action=encode", "some.raw", "some.xts");
  expect(encode.exitCode).toBe(0);
  const decode = ["--action", "decode", "--start", "2", "--len=3", "some.xts", "part.raw"];
  expect((await run("xts", "--config", "disk.toml", ...decode)).exitCode).toBe(0);
  expect(readFileSync(place("part.raw"))).toEqual(Buffer.alloc(3 * 512, 0x5a));
});

test("init-metadata: a stripe size that there is not is refused when the document was read", async () => {
  const result = await run("init-metadata", "-f", "disk.toml", "--stripe-sector-count-shift=5");
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("5");
});

test("the stripe server and its shell by their old names", async () => {
  const server = Bun.spawn(
    [place("bin/remote-stripe-server"), "-fplain.toml", "--listen-config=server.toml"],
    { cwd: folder, stdin: "ignore", stdout: "ignore", stderr: "ignore" },
  );
  try {
    await until("the server listens", () => existsSync(place("stripes.sock")));
    const shell = Bun.spawn([place("bin/remote-stripe-shell"), "--server-config=server.toml"], {
      cwd: folder,
      stdin: new Blob(["stripe_header 0\nfetch_stripe 0\ndump_stripe 0 0 4\nbye\nquit\n"]),
      stdout: "pipe",
      stderr: "ignore",
    });
    const lines = (await shell.stdout.text()).split("\n");
    expect(lines.slice(0, 3)).toEqual(["0x07 WRITTEN", "FETCHED", "00000000"]);
    expect(lines[3]).toStartWith("UNKNOWN_COMMAND: bye");
    expect(await shell.exited).toBe(0);
  } finally {
    server.kill();
    expect(await server.exited).toBe(0);
  }
});

// --- internal ---

function serve(program: string, flags: readonly string[], socketName: string): Promise<Backend> {
  return startBackend({
    command: [place(`bin/${program}`), ...flags],
    socketPath: place(socketName),
    logPath: place("backend.log"),
    cwd: folder,
  });
}

function writeDisk(): void {
  const danger = "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n";
  const secret = (name: string) => `[secrets.${name}]\nsource.file = "${name}"\n`;
  const store = `storage = "filesystem"\npath = "${place("archive-folder")}"\narchive_kek.ref = "kek"\n`;
  const documents: Readonly<Record<string, string>> = {
    "disk.toml":
      '[device]\ndata_path = "disk.raw"\nmetadata_path = "disk.meta"\nvhost_socket = "vhost.sock"\n' +
      `rpc_socket = "rpc.sock"\n[encryption]\nxts_key.ref = "key"\n${secret("key")}${danger}`,
    "plain.toml":
      '[device]\ndata_path = "plain-disk.raw"\n[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n',
    "target.toml": `[target]\n${store}${secret("kek")}${danger}`,
    "archive.toml": `[archive]\n${store}${secret("kek")}${danger}`,
    "server.toml": '[server]\nunix_socket = "stripes.sock"\n',
    "legacy.yaml": `path: ${place("plain-disk.raw")}\n`,
  };
  for (const [name, text] of Object.entries(documents)) {
    writeFileSync(place(name), text, { mode: 0o600 });
  }
  writeFileSync(place("key"), crypto.getRandomValues(new Uint8Array(64)), { mode: 0o600 });
  writeFileSync(place("kek"), crypto.getRandomValues(new Uint8Array(32)), { mode: 0o600 });
  for (const name of ["disk.raw", "plain-disk.raw"]) {
    writeFileSync(place(name), "", { mode: 0o600 });
    truncateSync(place(name), 16 * MIB);
  }
}
