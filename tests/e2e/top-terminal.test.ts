/** `ubiblk top` in a real terminal: two sizes and between them, its keys, a restart, and what it leaves. */
import { afterAll, beforeAll, expect } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { isInstalled, skipUnlessInstalled } from "../support/requires.ts";
import { TmuxTerminal } from "../support/tmux.ts";

const ROOT = resolve(import.meta.dir, "..", "..");
const MIB = 1024 * 1024;
const KEYS_LINE = "q quit  p pause  s sort  h help";
const test = skipUnlessInstalled("tmux");

let folder: string;
let disk: DiskFiles;
let backend: Backend;
let topCommand: string;

beforeAll(async () => {
  if (!isInstalled("tmux")) {
    return;
  }
  folder = mkdtempSync(join(ROOT, "build", "top-terminal-"));
  disk = writeDiskConfig({
    folder,
    isEncrypted: true,
    moreConfig: 'rpc_socket = "rpc.sock"\n[tuning]\nnum_queues = 2\n',
  });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 16 * MIB);
  backend = await startUbiblk(disk);
  topCommand = `${EXECUTABLE} top --interval 0.3 ${join(folder, "rpc.sock")}`;
});

afterAll(async () => {
  if (isInstalled("tmux")) {
    await backend.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("80x24 under load, then 160x50: each filled to its edges, and numbers of the load", async () => {
  using _load = startLoad("randwrite");
  await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 24 });
  await terminal.type(topCommand);
  const small = linesOf(await terminal.until(/^ {4}0 +[\d.]+k .*MiB .*[um]s +\d+$/m));
  expect(small[0]).toMatch(/^ubiblk top {2}1 disk, 2 queues {2}every 0.3s {2}\d\d:\d\d:\d\d$/);
  expect(small[1]).toBe("queue   iops   read/s  write/s rd p50 rd p99 wr p50 wr p99 inflight");
  expect(small[2]).toMatch(/rpc\.sock {2}\d+\.\d+\.\d+$/);
  expect([small[3]?.slice(0, 5), small[4]?.slice(0, 5), small[5]?.slice(0, 5)]).toEqual([
    "    0",
    "    1",
    "  all",
  ]);
  expect(small[23]).toBe(KEYS_LINE);

  await terminal.resize(160, 50);
  const large = linesOf(await terminal.until(/failed\/s(.*\n){45,}q quit.*\n$/));
  expect(large[1]).toEndWith("inflight oldest failed/s = read  # write");
  expect(large[5]).toMatch(/ 0 #+$/);
  expect(large[49]).toBe(KEYS_LINE);

  await terminal.resize(60, 8);
  await terminal.until(/^ubiblk top.*\n(.*\n){6}q quit.*\n$/);
});

test("keys: pause stands still, sort and help say so, q gives the terminal back", async () => {
  await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 24 });
  await terminal.type(
    `echo before; ${topCommand}; echo "ended with $?"; stty -a | grep -o ' echo '`,
  );
  await terminal.until(/1 disk, 2 queues/);
  expect(await terminal.fact("#{alternate_on} #{cursor_flag} #{wrap_flag}")).toBe("1 0 0");

  await terminal.press("p");
  await terminal.until(/paused/);
  await Bun.sleep(300); // all of that picture has come
  const paused = await terminal.screen();
  await Bun.sleep(1_200);
  expect(await terminal.screen()).toBe(paused);
  await terminal.press("Space");
  await terminal.until(/^(?!.*paused)ubiblk top/);

  await terminal.press("s");
  await terminal.until(/every 0.3s {2}by iops/);
  await terminal.press("s", "s", "s", "s");
  await terminal.until(/every 0.3s {2}\d/);
  await terminal.press("h");
  await terminal.until(/scroll by a page/);
  await terminal.press("x");
  await terminal.until(/^queue {3}iops/m);

  await terminal.press("q");
  const after = await terminal.until(/ended with 0/);
  expect(after).toContain("before");
  expect(after).toContain("echo");
  expect(after).not.toContain(KEYS_LINE);
  expect(await terminal.fact("#{alternate_on} #{cursor_flag} #{wrap_flag}")).toBe("0 1 1");
});

test("more than fits: told, and scrolled to", async () => {
  await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 7 });
  await terminal.type(`${topCommand} ${folder}/none.sock`);
  const before = linesOf(await terminal.until(/more: up, down/));
  expect(before[2]).toContain("rpc.sock");
  await terminal.press("Down", "Down", "Down", "Down", "Down", "Down");
  await terminal.until(/none.sock {2}away/);
  await terminal.press("PgUp", "PgUp");
  await terminal.until(/rpc.sock/);
});

for (const way of ["C-c", "TERM", "HUP"]) {
  test(`${way}: ends, and gives the terminal back`, async () => {
    await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 24 });
    const pidPath = join(folder, `${way}.pid`);
    await terminal.type(`sh -c 'echo $$ > ${pidPath}; exec ${topCommand}'; echo "ended with $?"`);
    await terminal.until(/1 disk, 2 queues/);
    if (way === "C-c") {
      await terminal.press("C-c");
    } else {
      process.kill(Number(await Bun.file(pidPath).text()), `SIG${way}`);
    }
    await terminal.until(/ended with 0/);
    expect(await terminal.fact("#{alternate_on} #{cursor_flag}")).toBe("0 1");
  });
}

test("a programmer error: the terminal comes back, and the error is on it", async () => {
  await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 24 });
  const script = join(folder, "crash.ts");
  writeFileSync(
    script,
    `import { writeSync } from "node:fs";
     import { Terminal } from "${ROOT}/src/top/terminal.ts";
     new Terminal({ write: (text) => writeSync(1, text) > 0, onKey() {}, onResize() {}, onEnd() {} });
     setTimeout(() => { throw new Error("mistake of ours"); }, 100);`,
  );
  await terminal.type(
    `${process.execPath} ${script}; echo "ended with $?"; stty -a | grep -o ' echo '`,
  );
  const screen = await terminal.until(/ended with 1\n echo/);
  expect(screen).toContain("mistake of ours");
  expect(await terminal.fact("#{alternate_on} #{cursor_flag}")).toBe("0 1");
});

test("colour: on a terminal, but not with NO_COLOR", async () => {
  await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 24 });
  await terminal.type(topCommand);
  await terminal.until(/1 disk, 2 queues/);
  expect(await terminal.screen({ hasColours: true })).toContain("\x1b[");
  await terminal.press("q");
  await terminal.until(/^\$ ?$/m);
  await terminal.type(`NO_COLOR=1 ${topCommand}`);
  await terminal.until(/1 disk, 2 queues/);
  expect(await terminal.screen({ hasColours: true })).not.toContain("\x1b[");
});

test("backend ended and started again: said so, and the view goes on", async () => {
  await using terminal = await TmuxTerminal.start({ folder, columns: 80, rows: 24 });
  await terminal.type(topCommand);
  await terminal.until(/rpc.sock {2}\d+\.\d+\.\d+$/m);
  await backend.stop();
  await terminal.until(/away for \d+s: no socket there/);
  backend = await startUbiblk(disk);
  await terminal.until(/restarted \d+s ago/);
  using _load = startLoad("randread");
  const screen = await terminal.until(/^ {4}0 +[\d.]+k/m);
  expect(screen).not.toMatch(/ -\d/);
});

// --- internal ---

/** Loads both queues until it is disposed. */
function startLoad(workload: string): Disposable {
  const load = ["--workload", workload, "--queues", "2", "--time", "30", "--flush-every", "64"];
  const command = [EXECUTABLE, "bench", "--socket", disk.socketPath, ...load];
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  return { [Symbol.dispose]: () => child.kill("SIGKILL") };
}

/** The lines of a screen, without the end of the last. */
function linesOf(screen: string): readonly string[] {
  return screen.replace(/\n$/, "").split("\n");
}
