/** `ubiblk xts` as a user runs it: the command line, the key-only configuration, signals, block devices. */
import { afterAll, expect, test } from "bun:test";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type CommandResult, outputOf, runCommand } from "../../scripts/command.ts";
import { lockFile } from "../../src/ffi/file.ts";
import { isInstalled, skipUnless } from "../support/requires.ts";
import { endWhileItWaits } from "../support/waiting-command.ts";

const MAIN = fileURLToPath(import.meta.resolve("../../src/main.ts"));
const folder = mkdtempSync(join(tmpdir(), "ubiblk-xts-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The second secret is not needed here, and cannot be read. */
const CONFIG = `
[encryption]
xts_key.ref = "key"
[secrets.key]
source.file = "key.bin"
[secrets.other]
source.env = "UBIBLK_NO_SUCH_VARIABLE"
[danger_zone]
enabled = true
allow_secret_over_regular_file = true
allow_env_secrets = true
`;
writeFileSync(file("config.toml"), CONFIG, { mode: 0o600 });
writeFileSync(
  file("key.bin"),
  Uint8Array.from({ length: 64 }, (_, i) => i),
  { mode: 0o600 },
);
const plaintext = Buffer.from(Uint8Array.from({ length: 5 * 512 }, (_, i) => 7 * i + 3));
writeFileSync(file("plain"), plaintext);

test("an input that a backend has in use is read, with a warning that names who", async () => {
  writeFileSync(file("used"), plaintext);
  const fd = openSync(file("used"), "r");
  try {
    expect(lockFile(fd, "exclusive")).toBe(0);
    const result = await xts("--action", "encode", file("used"), file("copy"));
    expect(result.exitCode).toBe(0);
    expect(result.stderr).toContain(`used is in use by process ${process.pid}: what is written`);
  } finally {
    closeSync(fd);
  }
  expect((await xts("--action", "encode", file("used"), file("copy"))).stderr).not.toContain(
    "in use",
  );
});

test("a config with a key only is enough, and only the key is read", async () => {
  const encoded = await xts("--action", "encode", file("plain"), file("cipher"));
  expect(encoded).toMatchObject({ exitCode: 0, stdout: "" });
  const first = readFileSync(file("cipher")).subarray(0, 16).toString("hex");
  expect(first).toBe("3f1f187c64e5cc3f3ee91069219b1238");
  const decoded = await xts("--provider=portable", file("cipher"), file("again"));
  expect(decoded.exitCode).toBe(0);
  expect(readFileSync(file("again")).equals(plaintext)).toBe(true);
  expect(statSync(file("again")).mode & 0o777).toBe(0o600);
});

test("the configuration as output is refused and stays whole", async () => {
  const result = await xts("--action=encode", file("plain"), file("config.toml"));
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("E_XTS_OUTPUT");
  expect(readFileSync(file("config.toml"), "utf8")).toBe(CONFIG);
});

test("input as output is refused and stays whole", async () => {
  const result = await xts("--action=encode", file("plain"), file("plain"));
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("E_XTS_OUTPUT");
  expect(readFileSync(file("plain")).equals(plaintext)).toBe(true);
});

test("a range beyond the input fails with 1, a wrong flag with 2", async () => {
  const range = await xts("--start", "5", file("plain"), file("out"));
  expect(range.exitCode).toBe(1);
  expect(range.stderr).toContain("E_XTS_RANGE");
  for (const flags of [
    ["--provider", "rot13"],
    ["--start", "-1"],
    ["--len=x"],
    ["--action=wash"],
  ]) {
    const usage = await xts(...flags, file("plain"), file("out"));
    expect(usage.exitCode).toBe(2);
  }
});

test("a signal during the work ends it and leaves nothing", async () => {
  const own = mkdtempSync(join(folder, "signal-"));
  writeFileSync(join(own, "large"), "");
  truncateSync(join(own, "large"), 64 * 2 ** 30); // all hole; far more than can be done meanwhile
  const command = [process.execPath, MAIN, "xts", "-f", file("config.toml")];
  const child = Bun.spawn([...command, join(own, "large"), join(own, "out")], { stderr: "ignore" });
  const deadlineMs = performance.now() + 10_000;
  while (
    !readdirSync(own).some((name) => name.endsWith(".tmp")) &&
    performance.now() < deadlineMs
  ) {
    await Bun.sleep(5);
  }
  expect(readdirSync(own)).not.toContain("out");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(1);
  expect(readdirSync(own)).toEqual(["large"]);
}, 60_000);

test("a signal while the key's pipe has no writer ends it and leaves nothing", async () => {
  const own = mkdtempSync(join(folder, "pipe-"));
  writeFileSync(join(own, "plain"), Buffer.alloc(512));
  writeFileSync(join(own, "c.toml"), CONFIG.replace("key.bin", "pipe"));
  await outputOf(["mkfifo", "-m", "600", join(own, "pipe")]);
  const words = ["xts", "-f", "c.toml", "plain", "out"];
  const { exitCode, told } = await endWhileItWaits(words, "SIGINT", own);
  expect(exitCode).toBe(1);
  expect(told).toContain("E_XTS_OUTPUT: interrupted; the output was not written");
  expect(readdirSync(own).sort()).toEqual(["c.toml", "pipe", "plain"]);
});

const canAttach = process.getuid?.() === 0 && isInstalled("losetup") && (await isLoopUsable());

skipUnless("needs root and a loop device", canAttach)(
  "block devices are read and written as they are",
  async () => {
    writeFileSync(file("backing"), Buffer.alloc(8 * 512));
    const device = (await outputOf(["losetup", "--find", "--show", file("backing")])).trim();
    try {
      const written = await xts("--action", "encode", file("plain"), device);
      expect(written.exitCode).toBe(0);
      const tooLarge = await xts("--action=encode", "--output-offset=4", file("plain"), device);
      expect(tooLarge.stderr).toContain("4096 bytes");
      const read = await xts("--len", "5", device, file("from-device"));
      expect(read.exitCode).toBe(0);
      expect(readFileSync(file("from-device")).equals(plaintext)).toBe(true);
    } finally {
      await outputOf(["losetup", "--detach", device]);
    }
  },
  60_000,
);

function xts(...flags: string[]): Promise<CommandResult> {
  const command = [process.execPath, MAIN, "xts", "-f", file("config.toml"), ...flags];
  return runCommand(command, { cwd: folder, timeoutMs: 30_000 });
}

async function isLoopUsable(): Promise<boolean> {
  const { exitCode } = await runCommand(["losetup", "--find"]);
  return exitCode === 0;
}

function file(name: string): string {
  return join(folder, name);
}
