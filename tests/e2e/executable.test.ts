/**
 * The compiled executable as a thing on a disk: what it needs, what it reads, what it leaves behind, how
 * it ends. `scripts/build.ts` says which flags of the build these tests hold.
 */
import { expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { type CommandResult, outputOf, runCommand } from "../../scripts/command.ts";
import { foreignLibraries } from "../../scripts/elf.ts";
import {
  type BackendCommand,
  type DiskFiles,
  EXECUTABLE,
  startBackend,
  writeDiskConfig,
} from "../support/backend.ts";
import { isInstalled, skipUnless } from "../support/requires.ts";
import { belowOnce } from "../support/until.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const LIBRARY = join(BUILD_FOLDER, "libubi.so");
const MIB = 1024 * 1024;

test("executable: its NEEDED entries are glibc's own", async () => {
  expect(await foreignLibraries(EXECUTABLE)).toEqual([]);
});

test("--version: the version of package.json, on standard output", async () => {
  const result = await runCommand([EXECUTABLE, "--version"]);
  expect(result.exitCode).toBe(0);
  expect(result.stdout.trim().split(" ").at(-1)).toBe(packageJson.version);
  expect(result.stderr).toBe("");
});

test("--version warm: under 60 ms in the middle of 15 runs", async () => {
  const middleMs = async () => {
    const durationsMs: number[] = [];
    for (let i = 0; i < 15; i++) {
      durationsMs.push((await runCommand([EXECUTABLE, "--version"])).durationMs);
    }
    return durationsMs.sort((a, b) => a - b)[7] ?? Number.NaN;
  };
  expect(await belowOnce(60, middleMs)).toBeLessThan(60);
}, 60_000);

test("--help: on the first level and on that of a command", async () => {
  const first = await runCommand([EXECUTABLE, "--help"]);
  expect(first.exitCode).toBe(0);
  expect(first.stdout).toContain("vhost");
  const second = await runCommand([EXECUTABLE, "vhost", "--help"]);
  expect(second.exitCode).toBe(0);
  expect(second.stdout).toContain("--config");
});

test.each([
  { words: ["no-such-command"], named: "no-such-command" },
  { words: ["vhost"], named: "config" },
  { words: ["vhost", "--config", "x", "--no-such-flag"], named: "no-such-flag" },
  { words: ["--no-such-flag"], named: "no-such-flag" },
])("bad usage $words: exit code 2 and a message that names it", async ({ words, named }) => {
  const result = await runCommand([EXECUTABLE, ...words]);
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toContain(named);
});

test("config that is not there: exit code 1 and a message that names it", async () => {
  const result = await runCommand([EXECUTABLE, "vhost", "--config", "/nonexistent/disk.toml"]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("/nonexistent/disk.toml");
});

test("started in a hostile folder: neither .env nor bunfig.toml is read", async () => {
  using place = makePlace();
  writeHostileFiles(place.folder);
  const result = await runCommand([EXECUTABLE, "--version"], { cwd: place.folder });
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toContain(packageJson.version);
  await using backend = await startBackend({ ...serving(place, EXECUTABLE), cwd: place.folder });
  await backend.stop();
  expect(backend.log()).toContain("INFO"); // .env asks for errors only
  expect(existsSync(join(place.folder, "hostile-code-ran"))).toBe(false);
});

test("BUN_OPTIONS with a preload: the code does not run", async () => {
  using place = makePlace();
  writeHostileFiles(place.folder);
  const env = { ...process.env, BUN_OPTIONS: `--preload ${join(place.folder, "hostile.ts")}` };
  await runCommand([EXECUTABLE, "--version"], { cwd: place.folder, env });
  expect(existsSync(join(place.folder, "hostile-code-ran"))).toBe(false);
});

test.each(["SIGTERM", "SIGKILL"] as const)(
  "after a run with workers, ended by %s: nothing is left in the temporary folders",
  async (signal) => {
    using temporary = makePlace();
    const folder = join(temporary.folder, "temporary");
    mkdirSync(folder);
    const before = new Set(suspectsIn("/tmp"));
    for (const env of [
      { ...process.env, TMPDIR: folder },
      { ...process.env, TMPDIR: folder, BUN_TMPDIR: folder },
      { ...process.env, TMPDIR: undefined, BUN_TMPDIR: undefined },
    ]) {
      using place = makePlace();
      await using backend = await startBackend({ ...serving(place, EXECUTABLE), env });
      process.kill(backend.pid, signal);
      await backend.stop();
    }
    expect(readdirSync(folder)).toEqual([]);
    expect(suspectsIn("/tmp").filter((name) => !before.has(name))).toEqual([]);
  },
);

const canForbidExecution = isInstalled("unshare") && (await withSysctl(["true"])).exitCode === 0;
const testWithSysctl = skipUnless(
  "only root may set vm.memfd_noexec, in a process namespace of its own",
  canForbidExecution,
);

testWithSysctl("vm.memfd_noexec = 2: the library is loaded all the same", async () => {
  using place = makePlace();
  const { command, ...rest } = serving(place, EXECUTABLE);
  await using backend = await startBackend({ command: withSysctlCommand(command), ...rest });
  expect(backend.log()).not.toContain("E_NATIVE_LIBRARY");
  process.kill(backend.pid, "SIGKILL"); // unshare heeds nothing less; its child ends with it
});

test("memory files forbidden: one line says what to do", async () => {
  using place = makePlace();
  const result = await runWithoutMemfd(place, EXECUTABLE);
  expect(result.exitCode).toBe(1);
  expect(result.stderr.trim().split("\n")).toHaveLength(1);
  expect(result.stderr).toContain("/usr/lib/ubiblk");
});

test("memory files forbidden: a library beside the executable is used", async () => {
  using place = makePlace();
  const { command, ...rest } = serving(place, install(place, 0o644));
  await using backend = await startBackend({
    command: [await withoutMemfd(), ...command],
    ...rest,
  });
  expect(await backend.stop()).toBe(0);
});

test("installed library that others may write: it is refused by name", async () => {
  using place = makePlace();
  const result = await runWithoutMemfd(place, install(place, 0o666));
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(join(place.folder, "libubi.so"));
});

const testAsRoot = skipUnless("only root may give files away", process.getuid?.() === 0);

testAsRoot("installed library of another user: it is refused by name", async () => {
  using place = makePlace();
  const installed = install(place, 0o644);
  chownSync(join(place.folder, "libubi.so"), 65_534, 65_534);
  const result = await runWithoutMemfd(place, installed);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(join(place.folder, "libubi.so"));
});

// --- internal ---

interface Place extends Disposable {
  readonly folder: string;
  readonly disk: DiskFiles;
}

/** A folder of its own with a small encrypted disk. */
function makePlace(): Place {
  const folder = mkdtempSync(join(BUILD_FOLDER, "executable-"));
  const disk = writeDiskConfig({ folder: join(folder, "disk"), isEncrypted: true });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 4 * MIB);
  return {
    folder,
    disk,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function writeHostileFiles(folder: string): void {
  const mark = join(folder, "hostile-code-ran");
  const code = `require("node:fs").writeFileSync(${JSON.stringify(mark)}, "");\n`;
  writeFileSync(join(folder, "hostile.ts"), code);
  writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./hostile.ts"]\n');
  writeFileSync(join(folder, ".env"), "UBIBLK_LOG=error\n");
}

/** What Bun or the native library could leave in a folder for temporary files. */
function suspectsIn(folder: string): readonly string[] {
  return readdirSync(folder).filter((name) => name.startsWith(".bun-") || name.includes("libubi"));
}

function serving(place: Place, executable: string): BackendCommand {
  return {
    command: [executable, "vhost", "--config", place.disk.configPath],
    socketPath: place.disk.socketPath,
    logPath: join(place.folder, "log"),
  };
}

/** Runs a command in a process namespace of its own where memory files are not executable. */
function withSysctl(command: readonly string[]): Promise<CommandResult> {
  return runCommand(withSysctlCommand(command), { timeoutMs: 20_000 });
}

/** The shell stays, as the namespace's first process, and hands on the request to end. */
function withSysctlCommand(command: readonly string[]): readonly string[] {
  const script = `echo 2 >/proc/sys/vm/memfd_noexec || exit 1; exec "$@"`;
  return [
    "unshare",
    "--fork",
    "--pid",
    "--kill-child=SIGKILL",
    "sh",
    "-c",
    script,
    "sh",
    ...command,
  ];
}

/** The executable and its library side by side. Returns the executable. */
function install(place: Place, libraryMode: number): string {
  const executable = join(place.folder, "ubiblk");
  linkSync(EXECUTABLE, executable);
  copyFileSync(LIBRARY, join(place.folder, "libubi.so"));
  chmodSync(join(place.folder, "libubi.so"), libraryMode);
  return executable;
}

async function runWithoutMemfd(place: Place, executable: string): Promise<CommandResult> {
  const command = [await withoutMemfd(), ...serving(place, executable).command];
  return await runCommand(command, { timeoutMs: 20_000 });
}

/** Builds the program that takes memfd_create away. Returns its path. */
async function withoutMemfd(): Promise<string> {
  const path = join(BUILD_FOLDER, "without-memfd");
  const source = resolve(import.meta.dir, "..", "support", "without-memfd.c");
  await outputOf(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, source]);
  return path;
}
