import { expect, test } from "bun:test";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { AssertionError, UbiError, UbiErrors } from "../errors.ts";
import { errorLines } from "./command-line.ts";

const MAIN = join(import.meta.dir, "..", "main.ts");

const ubiblk = (...argv: readonly string[]) => {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, MAIN, ...argv]);
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
};

test.each(["--version", "-V"])("%s prints name and version of the package", (flag) => {
  const { exitCode, stdout } = ubiblk(flag);
  expect(stdout).toBe(`ubiblk ${packageJson.version}\n`);
  expect(exitCode).toBe(0);
});

test("help is printed without colours when it goes into a pipe", () => {
  const { exitCode, stdout } = ubiblk("--help");
  expect(stdout).toContain("Usage: ubiblk COMMAND");
  expect(stdout).not.toContain("\u001b");
  expect(exitCode).toBe(0);
});

test.each([
  [["help", "vhost"], "Usage: ubiblk vhost --config FILE"],
  [["--help", "archive", "verify"], "Usage: ubiblk archive verify --source FILE"],
  [["archive", "help", "verify"], "Usage: ubiblk archive verify --source FILE"],
  [["help", "help"], "Usage: ubiblk COMMAND"],
])("%j shows the help of what follows", (argv, usage) => {
  const { exitCode, stdout } = ubiblk(...argv);
  expect(stdout).toContain(usage);
  expect(exitCode).toBe(0);
});

test.each([
  [["archive", "varify"], "did you mean verify?; see ubiblk archive --help"],
  [["archive", "list"], "; the tools here are verify, inspect, prune, rekey; see ubiblk archive"],
  [["vhost", "disk.toml"], "did you mean --config disk.toml?; see ubiblk vhost --help"],
  [["vhost", "--config="], "--config: empty; the name of a file is expected"],
  [["-v"], "-v: unknown flag; did you mean --version?"],
  [["help", "vhsot"], "vhsot: unknown command; did you mean vhost?"],
  [["arch"], "arch: unknown command; did you mean archive?"],
  [["verify"], "verify: unknown command; did you mean archive verify?"],
  [["ubitop"], "ubitop: unknown command; did you mean top?"],
  [["vhost", "--cofnig", "x"], "--cofnig: unknown flag; did you mean --config?"],
  [["xts", "-fx", "--action=enc"], '"enc" is not one of encode, decode; did you mean encode?'],
])("%j is wrong usage with a way out", (argv, hint) => {
  const { exitCode, stderr } = ubiblk(...argv);
  expect(stderr).toContain(hint);
  expect(exitCode).toBe(2);
});

test("no command at all is wrong usage", () => {
  const { exitCode, stdout, stderr } = ubiblk();
  expect(stderr).toBe("ubiblk: error E_USAGE: no command; see ubiblk --help\n");
  expect(stdout).toBe("");
  expect(exitCode).toBe(2);
});

test.each(["frobnicate", "constructor", "__proto__", "toString"])(
  "the unknown command %s is wrong usage",
  (name) => {
    const { exitCode, stderr } = ubiblk(name);
    expect(stderr).toContain(`E_USAGE: ${name}: unknown command`);
    expect(exitCode).toBe(2);
  },
);

test("a mistyped flag in front of a command is named with the right one", () => {
  expect(ubiblk("--hlp").stderr).toContain("--hlp: unknown flag; did you mean --help?");
});

test("every error of a list has a line of its own, without a stack", () => {
  const error = new UbiErrors([
    new UbiError("E_CONFIG_KEY", "a.toml:1: x: unknown key"),
    new UbiError("E_CONFIG_VALUE", "a.toml:2: y: 0 is out of range"),
  ]);
  expect(errorLines(error)).toBe(
    "ubiblk: error E_CONFIG_KEY: a.toml:1: x: unknown key\n" +
      "ubiblk: error E_CONFIG_VALUE: a.toml:2: y: 0 is out of range\n",
  );
});

test("control characters of a hostile name do not reach the terminal", () => {
  const error = new UbiError("E_CONFIG_READ", "cannot read a\u001b[2Jb\nc");
  expect(errorLines(error)).toBe("ubiblk: error E_CONFIG_READ: cannot read a\\u001b[2Jb\\nc\n");
});

test("an error that is our own fault shows where it came from", () => {
  const text = errorLines(new AssertionError("x holds"));
  expect(text).toMatch(/^ubiblk: internal error: .*x holds/);
  expect(text).toContain("command-line.test.ts");
});

test("a reader that goes away early is no failure", async () => {
  const script = 'bun=$1; main=$2; { "$bun" "$main" --help; echo "exit $?" >&2; } | :';
  const { stderr } = Bun.spawnSync(["sh", "-c", script, "sh", process.execPath, MAIN]);
  expect(stderr.toString()).toBe("exit 0\n");
});
