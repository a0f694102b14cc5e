import { expect, test } from "bun:test";
import { join } from "node:path";

const MAIN = join(import.meta.dir, "..", "main.ts");

/** What a command says that fails, since its file is missing. */
const failing = (argv: readonly string[]) => {
  const env = { ...process.env, UBIBLK_LOG: undefined, RUST_LOG: "off" };
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, MAIN, ...argv], { env });
  return { exitCode, stderr: stderr.toString() };
};
const COMMAND = ["vhost", "-f", "/missing/disk.toml"];

test.each([
  { name: "behind the command", argv: [...COMMAND, "--log-format", "json"] },
  { name: "in front of it", argv: ["--log-format=json", ...COMMAND] },
  {
    name: "in front, with another",
    argv: ["--log-level", "warn", "--log-format=json", ...COMMAND],
  },
])("--log-format json $name: the error that ends the program is an object", ({ argv }) => {
  const { exitCode, stderr } = failing(argv);
  expect(exitCode).toBe(1);
  expect(JSON.parse(stderr)).toMatchObject({
    level: "error",
    message: expect.stringContaining("/missing/disk.toml"),
    thread: "main",
    fields: { code: "E_CONFIG_READ" },
  });
});

test.each([
  [["vhost", "--log-format", "json"], "-f, --config: missing"],
  [["vhost", "--log-format=json", "--confg=x"], "--confg: unknown flag"],
  [["vhots", "--log-format=json"], "vhots: unknown command"],
  [["--log-format=json"], "no command"],
])("%j: wrong usage is an object as well", (argv, message) => {
  const { exitCode, stderr } = failing(argv);
  expect(exitCode).toBe(2);
  expect(JSON.parse(stderr)).toMatchObject({
    level: "error",
    message: expect.stringContaining(message),
    fields: { code: "E_USAGE" },
  });
});

test.each([
  [["vhost", "--log-format", "text"]],
  [["vhost", "--", "--log-format=json"]],
  [["vhost", "--log-format=jsn"]],
])("%j: wrong usage is text", (argv) => {
  expect(failing(argv).stderr).toStartWith("ubiblk: error E_USAGE: ");
});

test("RUST_LOG=off: the error that ends the program is told all the same", () => {
  expect(failing(COMMAND).stderr).toStartWith("ubiblk: error E_CONFIG_READ: ");
});

test.each([
  [["--log-level", "loud", "vhost"], '--log-level: "loud" is not one of error, warn, info, debug'],
  [["vhost", "-f", "x", "--log-format=xml"], '--log-format: "xml" is not one of text, json'],
  [["--log-levl=info", "vhost"], "--log-levl: unknown flag; did you mean --log-level?"],
  [["--log-level"], "--log-level: a value is missing"],
  [["--log-level=info"], "no command; see ubiblk --help"],
])("%j is wrong usage", (argv, hint) => {
  const { exitCode, stderr } = failing(argv);
  expect(stderr).toContain(hint);
  expect(exitCode).toBe(2);
});

test("a word behind -- is no flag", () => {
  const { stderr } = failing(["archive", "inspect", "--", "--log-level=debug"]);
  expect(stderr).toContain("unexpected argument");
});
