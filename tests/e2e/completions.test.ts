/** `ubiblk completions` in the shells themselves. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { outputOf, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import { TmuxTerminal } from "../support/tmux.ts";

const ROOT = resolve(import.meta.dir, "..", "..");

let folder: string;

beforeAll(async () => {
  mkdirSync(join(ROOT, "build"), { recursive: true });
  folder = mkdtempSync(join(ROOT, "build", "completions-"));
  writeFileSync(join(folder, "my disk.toml"), "");
  mkdirSync(join(folder, "bin"));
  mkdirSync(join(folder, "zsh"));
  symlinkSync(EXECUTABLE, join(folder, "bin", "ubiblk"));
  symlinkSync(EXECUTABLE, join(folder, "bin", "remote-stripe-shell"));
  for (const [shell, name] of [
    ["bash", "ubiblk.bash"],
    ["zsh", "zsh/_ubiblk"],
    ["fish", "ubiblk.fish"],
  ] as const) {
    writeFileSync(join(folder, name), await outputOf([EXECUTABLE, "completions", shell]));
  }
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test("an unknown shell is wrong usage, with the nearest one", async () => {
  const result = await runCommand([EXECUTABLE, "completions", "zhs"]);
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toContain("is not one of bash, zsh, fish; did you mean zsh?");
});

test("bash: the script names its function for the program and its other names", async () => {
  const names = ["ubiblk", "vhost-backend", "remote-stripe-shell"];
  const shown = await bash(names.map((name) => `complete -p ${name}`).join("; "));
  expect(shown).toBe(names.map((name) => `complete -F _ubiblk ${name}\n`).join(""));
});

test.each([
  { words: ["ubiblk", "arch"], offered: ["archive"] },
  { words: ["ubiblk", "archive", "ver"], offered: ["verify"] },
  { words: ["ubiblk", "help", "archive", "pru"], offered: ["prune"] },
  { words: ["ubiblk", "vhost", "--co"], offered: ["--config"] },
  { words: ["ubiblk", "export-archive", "--no"], offered: ["--no-clobber"] },
  { words: ["ubiblk", "archive", "--compression", ""], offered: ["none", "zstd"] },
  { words: ["ubiblk", "xts", "--action", "=", "en"], offered: ["encode"] },
  { words: ["ubiblk", "vhost", "-f", "my"], offered: ["my disk.toml"] },
  { words: ["ubiblk", "vhost", "--config", "=", "my"], offered: ["my disk.toml"] },
  { words: ["ubiblk", "xts", "my"], offered: ["my disk.toml"] },
  { words: ["ubiblk", "completions", "f"], offered: ["fish"] },
  { words: ["ubiblk", "init-metadata", "-s", ""], offered: [] },
  { words: ["ubiblk", "rpc", "my"], offered: ["my disk.toml"] },
  { words: ["ubiblk", "rpc", "rpc.sock", "resi"], offered: ["resize"] },
  { words: ["ubiblk", "rpc", "--timeout", "5", "rpc.sock", "resi"], offered: ["resize"] },
  { words: ["ubiblk", "rpc", "--timeout", "=", "5", "rpc.sock", "resi"], offered: ["resize"] },
  { words: ["ubiblk", "rpc", "--timeout", "5", "my"], offered: ["my disk.toml"] },
  { words: ["ubiblk", "rpc", "rpc.sock", "resize", "m"], offered: [] },
  { words: ["ubiblk", "rpc", "rpc.sock", "--ti"], offered: ["--timeout"] },
  { words: ["remote-stripe-shell", "--serv"], offered: ["--server-config"] },
  { words: ["/opt/bin/remote-stripe-shell", "--serv"], offered: ["--server-config"] },
])("bash: $words", async ({ words, offered }) => {
  const shown = await bash(
    `COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ubiblk; printf "%s\\n" "\${COMPREPLY[@]}"`,
    words,
  );
  expect(shown.split("\n").filter((line) => line !== "")).toEqual([...offered]);
});

test("bash: the script has nothing that shell check or another bash would stumble over", async () => {
  const result = await runCommand(["bash", "-n", join(folder, "ubiblk.bash")]);
  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
});

const testFish = skipUnlessInstalled("fish");

testFish("fish: words, tools, flags, choices and files", async () => {
  const asked = [
    "ubiblk arch",
    "ubiblk archive ver",
    "ubiblk archive verify --so",
    "ubiblk archive --compression ",
    "ubiblk vhost -f my",
    "ubiblk rpc rpc.sock resi",
    "remote-stripe-shell --serv",
  ];
  const script = `source ubiblk.fish; for line in $argv; complete -C "$line" | string replace -r '\\t.*' ''; end`;
  const shown = await outputOf(["fish", "--no-config", "-c", script, ...asked], {
    cwd: folder,
    env: { ...process.env, HOME: folder },
  });
  expect(shown.trim().split("\n")).toEqual([
    "archive",
    "verify",
    "--source",
    "none",
    "zstd",
    "my disk.toml",
    "resize",
    "--server-config",
  ]);
});

const testZsh = skipUnlessInstalled("zsh", "tmux");

testZsh(
  "zsh: words, tools, flags, choices and files, at a terminal",
  async () => {
    await using terminal = await TmuxTerminal.start({ folder, columns: 100, rows: 24 });
    const path = `PATH=${join(folder, "bin")}:$PATH`;
    await terminal.type(`cd ${folder}; ${path} PS1='> ' HOME=${folder} zsh -f`);
    await terminal.until(/^> ?$/m);
    await terminal.type(`fpath=(${folder}/zsh $fpath); autoload -U compinit; compinit -u; clear`);
    await terminal.until(/^> ?\n\n/m);
    for (const [typed, completed] of [
      ["ubiblk arch", /^> ubiblk archive ?$/m],
      ["ubiblk archive ver", /^> ubiblk archive verify ?$/m],
      ["ubiblk archive verify --so", /^> ubiblk archive verify --source/m],
      ["ubiblk xts --action enc", /^> ubiblk xts --action encode ?$/m],
      ["ubiblk vhost -f my", /^> ubiblk vhost -f my\\ disk\.toml ?$/m],
      ["ubiblk rpc rpc.sock resi", /^> ubiblk rpc rpc.sock resize ?$/m],
      ["remote-stripe-shell --serv", /^> remote-stripe-shell --server-config/m],
    ] as const) {
      await terminal.press("C-u", ...typed.split(""), "Tab");
      await terminal.until(completed);
    }
  },
  60_000,
);

// --- internal ---

/** Runs `script` where the completion was read, with `words` as its arguments. */
async function bash(script: string, words: readonly string[] = []): Promise<string> {
  const whole = `source ubiblk.bash; ${script}`;
  return await outputOf(["bash", "--norc", "-c", whole, "bash", ...words], { cwd: folder });
}
