/** `ubiblk doctor`: the machine, a disk, and what the examination leaves alone. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, chownSync, readdirSync, readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { outputOf, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE, listenersAt, startBackend } from "../support/backend.ts";
import {
  checkOf,
  checksOf,
  DoctorPlace,
  faultsOf,
  retarget,
  s3At,
  source,
} from "../support/doctor-place.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";

const NOBODY = 65_534;
/** On x86-64, as on all newer architectures. */
const SYS_IO_URING_SETUP = "425";
const testAsRoot = skipUnless("only root may give files away", process.getuid?.() === 0);

describe("machine", () => {
  test("nothing fails; each line is under its subject, and the last one counts", async () => {
    const { exitCode, stdout, stderr } = await runCommand([EXECUTABLE, "doctor"]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toContain(`\n  ok    native library        loaded`);
    expect(stdout).toMatch(/\nio_uring\n {2}(ok|warn) {2,4}set-up/);
    expect(stdout).toMatch(/\ncipher\n/);
    expect(stdout).toMatch(/GB\/s a CPU, which disks use/);
    expect(stdout).toMatch(/\n\n\d+ ok, \d+ warnings?, 0 failed, \d+ not checked\n$/);
  });

  test("--json: one line, with the version, counts that add up, and every member", async () => {
    const { exitCode, stdout } = await runCommand([EXECUTABLE, "doctor", "--json"]);
    expect(exitCode).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    const report = JSON.parse(stdout);
    expect(Object.keys(report)).toEqual(["version", "counts", "checks"]);
    expect(report.version).toBe(packageJson.version);
    const { ok, warn, fail, skip } = report.counts;
    expect(ok + warn + fail + skip).toBe(report.checks.length);
    expect(Object.keys(report.checks[0])).toEqual([
      "subject",
      "check",
      "verdict",
      "found",
      "advice",
    ]);
  });

  test("variables of the runtime are warnings, which --strict makes a failure", async () => {
    const env = { ...process.env, BUN_CONFIG_VERBOSE_FETCH: "0", UBIBLK_XTS_HIDE: "vaes512" };
    const lenient = await runCommand([EXECUTABLE, "doctor"], { env });
    expect(lenient.exitCode).toBe(0);
    expect(lenient.stdout).toMatch(/warn {2}environment +BUN_CONFIG_VERBOSE_FETCH/);
    const strict = await runCommand([EXECUTABLE, "doctor", "--strict"], { env });
    expect(strict.exitCode).toBe(1);
    expect(strict.stderr).toMatch(/^ubiblk: error E_DOCTOR: warnings, with --strict: .*\n$/);
  });

  test("an unknown cipher provider in the environment fails", async () => {
    const env = { ...process.env, UBIBLK_XTS_PROVIDER: "rot13" };
    const result = await runCommand([EXECUTABLE, "doctor", "--json"], { env });
    expect(result.exitCode).toBe(1);
    expect(checkOf(result, "cipher", "chosen")).toMatchObject({ verdict: "fail" });
  });

  test("io_uring refused by a filter of system calls: a warning that says what to allow", async () => {
    using place = new DoctorPlace();
    const refuse = place.file("refuse-syscall");
    const source = resolve(import.meta.dir, "..", "support", "refuse-syscall.c");
    await outputOf(["gcc", "-O1", "-o", refuse, source]);
    const command = [refuse, SYS_IO_URING_SETUP, EXECUTABLE, "doctor", "--json"];
    const result = await runCommand(command);
    expect(result.exitCode).toBe(0);
    const check = checkOf(result, "io_uring", "set-up");
    expect(check).toMatchObject({ verdict: "warn", found: expect.stringContaining("EPERM") });
    expect(check?.advice).toContain("io_uring");
  });
});

describe("disk", () => {
  test("one that nothing is wrong with", async () => {
    using place = new DoctorPlace();
    const result = await place.examine();
    expect(faultsOf(result)).toEqual([]);
    expect(result.exitCode).toBe(0);
    for (const [subject, check] of [
      ["configuration", "file"],
      ["secrets", "[encryption]"],
      ["data_path", "size"],
      ["data_path", "lock"],
      ["vhost_socket", "socket"],
      ["rpc_socket", "socket"],
      ["resources", "queues"],
    ] as const) {
      expect(checkOf(result, subject, check)?.verdict).toBe("ok");
    }
  });

  test("examined while it is served: everything is told, and the backend does not notice", async () => {
    using place = new DoctorPlace();
    place.configure('metrics_socket = "metrics.sock"');
    await using backend = await startBackend({
      command: [EXECUTABLE, "vhost", "-f", place.config],
      socketPath: place.file("vhost.sock"),
      logPath: place.file("log"),
    });
    await until("the backend is ready", () => backend.log().includes("ready"));
    const logBefore = backend.log();
    const result = await place.examine();
    expect(result.exitCode).toBe(0);
    expect(checkOf(result, "data_path", "lock")?.found).toBe(
      `locked by process ${backend.pid} (ubiblk)`,
    );
    expect(checkOf(result, "vhost_socket", "socket")?.found).toContain("a program listens at");
    expect(checkOf(result, "metrics_socket", "socket")?.found).toContain("a program listens at");
    expect(checkOf(result, "rpc_socket", "answer")?.found).toBe(
      `version ${packageJson.version} answers`,
    );
    expect(backend.log()).toBe(logBefore);
    expect(await backend.stop()).toBe(0);
  });

  test("nothing in its folder is made, removed or changed", async () => {
    using place = new DoctorPlace();
    const look = () =>
      readdirSync(place.folder).map((name) => {
        const { mtimeNs, size, blocks } = statSync(place.file(name), { bigint: true });
        return { name, mtimeNs, size, blocks };
      });
    const before = look();
    expect((await place.examine()).exitCode).toBe(0);
    expect(look()).toEqual(before);
  });
});

describe("trouble", () => {
  test("a socket that a dead process left is a warning: the next start replaces it", async () => {
    using place = new DoctorPlace();
    const backend = await startBackend({
      command: [EXECUTABLE, "vhost", "-f", place.config],
      socketPath: place.file("vhost.sock"),
      logPath: place.file("log"),
    });
    process.kill(backend.pid, "SIGKILL");
    await backend.stop();
    const sockets = ["vhost.sock", "rpc.sock"].map((name) => place.file(name));
    await until("the kernel has closed them", () => sockets.flatMap(listenersAt).length === 0);
    const result = await place.examine();
    expect(result.exitCode).toBe(0);
    for (const subject of ["vhost_socket", "rpc_socket"]) {
      expect(checkOf(result, subject, "socket")).toMatchObject({
        verdict: "warn",
        found: expect.stringContaining("left from a process that died"),
      });
    }
  });

  test("a lock of another program is named with its process", async () => {
    using place = new DoctorPlace();
    const holder = Bun.spawn(["flock", place.file("disk.raw"), "sleep", "60"]);
    try {
      const disk = place.file("disk.raw");
      const isFree = async () => (await runCommand(["flock", "-n", disk, "true"])).exitCode === 0;
      await until("the lock is taken", async () => !(await isFree()));
      const result = await place.examine();
      expect(result.exitCode).toBe(0);
      expect(checkOf(result, "data_path", "lock")).toMatchObject({ verdict: "warn" });
      expect(checkOf(result, "data_path", "lock")?.found).toMatch(/locked by process \d+ \(/);
    } finally {
      holder.kill("SIGKILL");
      await holder.exited;
    }
  });

  testAsRoot("a disk for another user: what this one may not do is told", async () => {
    using place = new DoctorPlace();
    chmodSync(place.folder, 0o755);
    for (const name of ["disk.toml", "key"]) {
      chownSync(place.file(name), NOBODY, NOBODY);
    }
    const user = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
    const executable = place.file("ubiblk"); // where everybody may run it
    await outputOf(["cp", EXECUTABLE, executable]);
    const result = await runCommand([...user, executable, "doctor", "-f", place.config, "--json"]);
    expect(result.exitCode).toBe(1);
    expect(checkOf(result, "data_path", "access")).toMatchObject({
      verdict: "fail",
      found: expect.stringContaining("EACCES"),
    });
    expect(checkOf(result, "vhost_socket", "folder")?.verdict).toBe("fail");
    expect(checkOf(result, "limits", "user")?.found).toContain(`user ${NOBODY}`);
  });

  test("--offline: services and servers are not asked", async () => {
    using place = new DoctorPlace();
    source(place, s3At("http://127.0.0.1:1"));
    const result = await place.examine("--offline");
    expect(checkOf(result, "stripe_source", "reach")).toMatchObject({ verdict: "skip" });
  });
});

describe("secrets", () => {
  test("a pipe keeps its key; with --secrets it is read, and its size is told", async () => {
    using place = new DoctorPlace();
    const pipe = place.file("pipe");
    await outputOf(["mkfifo", "-m", "600", pipe]);
    place.configure("", "", "pipe");
    const writer = Bun.spawn(["sh", "-c", `cat "$0" > "$1"`, place.file("key"), pipe]);
    const result = await place.examine();
    expect(result.exitCode).toBe(0);
    expect(checkOf(result, "secrets", "[encryption]")).toMatchObject({ verdict: "skip" });
    expect(writer.exitCode).toBeNull();
    const spending = await place.examine("--secrets");
    expect(spending.exitCode).toBe(0);
    expect(checkOf(spending, "secrets", "[encryption]")).toMatchObject({ verdict: "ok" });
    expect(await writer.exited).toBe(0);
  });

  test("a credential is skipped outside of its service; with others there it is missing", async () => {
    using place = new DoctorPlace();
    retarget(place, 'source.file = "key"', 'source.credential = "xts"');
    const { CREDENTIALS_DIRECTORY: _, ...env } = process.env;
    const command = [EXECUTABLE, "doctor", "-f", place.config, "--json"];
    const outside = await runCommand(command, { env });
    expect(outside.exitCode).toBe(0);
    expect(checkOf(outside, "secrets", "key")?.verdict).toBe("skip");
    expect(checkOf(outside, "secrets", "[encryption]")?.verdict).toBe("skip");
    const inside = await runCommand(command, {
      env: { ...env, CREDENTIALS_DIRECTORY: place.folder },
    });
    expect(inside.exitCode).toBe(1);
    expect(faultsOf(inside).map(({ check }) => check)).toEqual(["key", "[encryption]"]);
  });

  test("a pipe without a writer ends in time with --secrets", async () => {
    using place = new DoctorPlace();
    await outputOf(["mkfifo", "-m", "600", place.file("pipe")]);
    place.configure("", "", "pipe");
    const result = await place.examine("--secrets");
    expect(result.exitCode).toBe(1);
    expect(checkOf(result, "secrets", "[encryption]")?.found).toContain("has no writer");
  }, 60_000);

  test("no byte of a key is in the report", async () => {
    using place = new DoctorPlace();
    const key = "correct-horse-battery-staple-correct-horse-battery-staple-4242424";
    place.write("key", key);
    const { stdout, stderr } = await place.examine();
    expect(stdout + stderr).not.toContain("battery");
    expect(stdout).toContain("has 65 bytes");
  });
});

describe("time", () => {
  let place: DoctorPlace;
  beforeAll(() => {
    place = new DoctorPlace();
  });
  afterAll(() => place[Symbol.dispose]());

  skipUnless(missingFuse() ?? "", missingFuse() === undefined)(
    "a file system that does not answer costs one check, not the report",
    async () => {
      await using image = new FuseImage(place.file("disk.raw"), place.file("hung.raw"));
      const config = readFileSync(place.config, "utf8").replace("disk.raw", "hung.raw");
      place.write("hung.toml", config);
      image.halt();
      const command = [EXECUTABLE, "doctor", "--json", "--timeout", "1", "-f"];
      const result = await runCommand([...command, place.file("hung.toml")], { timeoutMs: 30_000 });
      image.goOn();
      expect(result.isTimedOut).toBe(false);
      expect(result.exitCode).toBe(1);
      const silent = checksOf(result).filter(({ found }) => found === "no answer within 1 s");
      expect(silent.map(({ subject }) => subject)).toContain("data_path");
      expect(checkOf(result, "resources", "queues")?.verdict).toBe("ok");
    },
    60_000,
  );

  test("Ctrl-C ends it with 130", async () => {
    await outputOf(["mkfifo", "-m", "600", place.file("wait")]);
    place.configure("", "", "wait");
    const child = Bun.spawn([EXECUTABLE, "doctor", "--secrets", "-f", place.config], {
      stdout: "pipe",
      stderr: "pipe",
    });
    // Its writer is awaited once the subject before it is told.
    const reader = child.stdout.getReader();
    const decoder = new TextDecoder();
    for (let text = ""; !text.includes("secrets\n"); ) {
      const { value, done } = await reader.read();
      expect(done).toBe(false);
      text += decoder.decode(value, { stream: true });
    }
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    expect(await child.stderr.text()).toContain("E_INTERRUPTED");
  }, 60_000);
});
