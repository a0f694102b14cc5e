/** The questions of `ubiblk init` in a real terminal: answered, interrupted, ended; and secrets that no terminal shows. */
import { expect } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXECUTABLE } from "../support/backend.ts";
import { NewDisk } from "../support/new-disk.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import { TmuxTerminal } from "../support/tmux.ts";

const INTERRUPTED =
  /E_INTERRUPTED: the question was interrupted by SIGINT; nothing was made\nended with 130/;

const test = skipUnlessInstalled("tmux");

test("Enter makes a disk that can be served; what it asks is what flags leave open", async () => {
  using disk = new NewDisk();
  await using terminal = await start(disk);
  await terminal.type(`${EXECUTABLE} init --num-queues 2 --track-written; echo "ended with $?"`);
  await terminal.until(/Folder to make it in \[\.\]:$/m);
  await terminal.type("vm");
  await terminal.until(/Size \[1G\]:$/m);
  await terminal.type("1.5x");
  await terminal.until(/"1.5x" is no size/);
  await terminal.type("64M");
  await terminal.until(/5 {2}the disk of a stripe server on another host\nNumber \[1\]:$/m);
  await terminal.type("");
  await terminal.until(/4 {2}none: who has the disk's file can read it\nNumber \[1\]:$/m);
  await terminal.type("2");
  const plan = await terminal.until(/Make it\? \[Y\/n\]$/m);
  expect(plan).toMatch(/encryption +a new key, encrypted with a new KEK in the file kek/);
  expect(plan).toMatch(/queues +2/);
  expect(plan).not.toContain("Queues [1]");
  await terminal.type("");
  await terminal.until(/ended with 0/);
  expect(disk.names()).toEqual(["config.toml", "disk.raw", "kek", "metadata"]);
  expect(disk.textOf("config.toml")).toContain("track_written = true");
  await using backend = await disk.serve();
  expect(await backend.stop()).toBe(0);
});

test("a folder and an image with names of any language", async () => {
  using disk = new NewDisk();
  writeFileSync(join(disk.folder, "образ.raw"), "x".repeat(4096));
  await using terminal = await start(disk);
  await terminal.type(`${EXECUTABLE} init; echo "ended with $?"`);
  await terminal.until(/Folder to make it in/);
  await terminal.type("磁盘");
  await terminal.until(/Size \[1G\]/);
  await terminal.type("8M");
  await terminal.until(/Number \[1\]:$/m);
  await terminal.type("2");
  await terminal.until(/Image \[base.raw\]:$/m);
  await terminal.type("образ.raw");
  await terminal.until(/Encryption/);
  await terminal.type("");
  await terminal.until(/Queues \[1\]:$/m);
  await terminal.type("");
  await terminal.until(/Make it\?/);
  await terminal.type("y");
  await terminal.until(/ended with 0/);
  expect(readdirSync(join(disk.folder, "磁盘")).sort()).toContain("config.toml");
});

test("Ctrl-C and Ctrl-D at a question, and n at the last one, make nothing", async () => {
  using disk = new NewDisk();
  await using terminal = await start(disk);
  await terminal.type(`clear; ${EXECUTABLE} init; echo "ended with $?"`);
  await terminal.until(/Folder to make it in \[\.\]:$/m);
  await terminal.press("C-c");
  await terminal.until(INTERRUPTED);
  await terminal.type(`clear; ${EXECUTABLE} init --base /dev/null; echo "ended with $?"`);
  for (const question of [/Folder to make it in \[\.\]:$/m, /Size \[1G\]:$/m, /Number \[1\]:$/m]) {
    await terminal.until(question);
    await terminal.type("");
  }
  await terminal.until(/Queues \[1\]:$/m);
  await terminal.press("1", "C-c");
  await terminal.until(INTERRUPTED);
  await terminal.type(`clear; ${EXECUTABLE} init; echo "ended with $?"`);
  await terminal.until(/Folder to make it in \[\.\]:$/m);
  await terminal.press("C-d");
  await terminal.until(/E_INTERRUPTED: the input ended; nothing was made\nended with 130/);
  const flags = "--dir vm --base /dev/null --unencrypted --num-queues 1";
  await terminal.type(`clear; ${EXECUTABLE} init ${flags}; echo "ended with $?"`);
  await terminal.until(/Size \[1G\]:$/m);
  await terminal.type("");
  await terminal.until(/Make it\? \[Y\/n\]$/m);
  await terminal.type("n");
  await terminal.until(/E_INTERRUPTED: nothing was made\nended with 130/);
  expect(readdirSync(disk.folder).filter((name) => !name.startsWith("tmux"))).toEqual([]);
  await terminal.type("clear; stty -a | grep -o ' echo '");
  await terminal.until(/^ echo/m);
});

test("a disk that is there is replaced only when that is said", async () => {
  using disk = new NewDisk();
  await disk.init("--size", "8M");
  const before = disk.textOf("xts_key");
  await using terminal = await start(disk);
  const flags = "--dir vm --base /dev/null --kek --num-queues 1";
  await terminal.type(`clear; ${EXECUTABLE} init ${flags}; echo "ended with $?"`);
  await terminal.until(/Size \[1G\]:$/m);
  await terminal.type("16M");
  await terminal.until(/Replace them.* \[y\/N\]$/m);
  await terminal.type("");
  await terminal.until(/nothing was made\nended with 130/);
  expect(disk.textOf("xts_key")).toBe(before);
});

test("a secret is not written to a terminal, unless it is asked for, and then as text", async () => {
  using disk = new NewDisk();
  await using terminal = await start(disk);
  await terminal.type(`${EXECUTABLE} secret gen --kind kek; echo "ended with $?"`);
  await terminal.until(/E_USAGE: the secret would stand on the terminal.*\n?.*\nended with 2/);
  await terminal.type(`clear; ${EXECUTABLE} secret gen --kind kek --show; echo "ended with $?"`);
  await terminal.until(/^[A-Za-z0-9+/]{43}=\nended with 0/m);
  await terminal.type(
    `clear; ${EXECUTABLE} secret wrap --name k --kek /dev/null; echo "ended with $?"`,
  );
  await terminal.until(/ended with 1/);
});

// --- internal ---

/** A shell in the folder of the disk. */
async function start(disk: NewDisk): Promise<TmuxTerminal> {
  const terminal = await TmuxTerminal.start({ folder: disk.folder, columns: 110, rows: 50 });
  await terminal.type(`cd ${disk.folder}; export UBIBLK_LOG=error; clear`);
  return terminal;
}
