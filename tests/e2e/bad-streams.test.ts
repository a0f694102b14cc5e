/**
 * Every command with standard streams that are closed, broken or full, with outputs on a full disk, and with a peer at
 * its socket that is gone, silent or talks nonsense.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { type CommandRow, ROWS } from "../support/bad-input-rows.ts";
import { missingMounts } from "../support/loop-device.ts";
import { skipUnless } from "../support/requires.ts";
import {
  type Ending,
  giveAway,
  listing,
  runIn,
  SpoilableFolder,
} from "../support/spoiled-folder.ts";
import { until } from "../support/until.ts";

const LIMIT_MS = 120_000;
const NO_SPACE = /ENOSPC|no space|full/i;

let folders: SpoilableFolder;
beforeAll(async () => {
  folders = await SpoilableFolder.make();
});
afterAll(() => folders[Symbol.dispose]());

const rows = Object.entries(ROWS).flatMap(([command, list]) =>
  list.map((row) => ({ name: `${command} ${row.argv.join(" ")}`, command, row })),
);
/** Those that end by themselves, and not as the machine decides. */
const ending = rows.filter(({ row }) => row.serves === undefined && row.exitCode !== undefined);

describe.each(ending)("$name", ({ command, row }) => {
  test(
    "closed standard input, output and error: it ends as always, and what it reads stays",
    async () => {
      const usual = await runUsually(command, row);
      for (const closing of ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]) {
        const folder = folders.copy();
        const inputs = listing(folder);
        const script = `exec "$@" ${closing}`;
        const isFed = row.stdin !== undefined && closing.includes("<");
        const { exitCode, isTimedOut } = await runIn(
          ["sh", "-c", script, "sh", ...wordsOf(command, row.argv)],
          { folder, stdin: row.stdin },
        );
        const after = listing(folder);
        rmSync(folder, { recursive: true });
        expect({ closing, isTimedOut }).toEqual({ closing, isTimedOut: false });
        expect({ closing, exitCode: [exitCode] }).toEqual({
          closing,
          exitCode: isFed ? [1] : [usual.exitCode],
        });
        const lost = inputs.filter((line) => !after.includes(line) && !row.changes?.test(line));
        expect({ closing, lost }).toEqual({ closing, lost: [] });
      }
    },
    LIMIT_MS,
  );

  test(
    "a reader of standard output that has gone is no failure",
    async () => {
      const usual = await runUsually(command, row);
      const folder = folders.copy();
      const script = `"$@" | true; exit \${PIPESTATUS[0]}`;
      const words = ["bash", "-c", script, "bash", ...wordsOf(command, row.argv)];
      const { exitCode, stderr } = await runIn(words, { folder, stdin: row.stdin });
      rmSync(folder, { recursive: true });
      // `top` looks no further when its reader has gone.
      expect([usual.exitCode, 0]).toContain(exitCode);
      expect(errorsIn(stderr).length).toBeLessThanOrEqual(errorsIn(usual.stderr).length);
    },
    LIMIT_MS,
  );

  test(
    "a full disk behind standard output is a failure of what writes there",
    async () => {
      const usual = await runUsually(command, row);
      const folder = folders.copy();
      const script = `exec "$@" > /dev/full`;
      const words = ["sh", "-c", script, "sh", ...wordsOf(command, row.argv)];
      const { exitCode, stderr } = await runIn(words, { folder, stdin: row.stdin });
      rmSync(folder, { recursive: true });
      const isWriter = usual.stdout !== "";
      expect(exitCode).toBe(isWriter ? 1 : (row.exitCode ?? 0));
      expect(errorsIn(stderr).length).toBeLessThanOrEqual(1);
      if (isWriter) {
        expect(stderr).toMatch(NO_SPACE);
      }
    },
    LIMIT_MS,
  );
});

describe.each(rows.filter(({ row }) => row.serves !== undefined))("$name", ({ command, row }) => {
  test(
    "all standard streams closed: it serves, and none of its lines gets into a file",
    async () => {
      const folder = folders.copy();
      const inputs = listing(folder);
      const script = 'exec "$@" <&- >&- 2>&-';
      const child = Bun.spawn(["sh", "-c", script, "sh", ...wordsOf(command, row.argv)], {
        cwd: folder,
      });
      const socket = join(folder, row.serves ?? "");
      await until(`${command} serves`, () => existsSync(socket) || child.exitCode !== null);
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      expect(listing(folder)).toEqual([...inputs]);
      rmSync(folder, { recursive: true });
    },
    LIMIT_MS,
  );
});

/** Of one page, which is taken. */
const testOnFullDisk = skipUnless(missingMounts() ?? "", missingMounts() === undefined);

describe.each(rows.filter(({ row }) => row.full !== undefined))("$command", ({ command, row }) => {
  testOnFullDisk(
    "an output on a full disk: one line says so, and nothing is left of it",
    async () => {
      const folder = folders.copy();
      const full = join(folder, "full");
      mkdirSync(full);
      await outputOf(["mount", "-t", "tmpfs", "-o", "size=4k,mode=0755", "tmpfs", full]);
      try {
        writeFileSync(join(full, "filler"), new Uint8Array(4096));
        const before = listing(folder);
        const result = await runIn(wordsOf(command, row.full ?? []), { folder });
        expect(result).toMatchObject({ exitCode: 1, isTimedOut: false });
        expect(errorsIn(result.stderr)).toHaveLength(1);
        expect(result.stderr).toMatch(NO_SPACE);
        expect(listing(folder).filter((line) => !isEmptyFolder(line))).toEqual([...before]);
      } finally {
        await outputOf(["umount", full]);
        rmSync(folder, { recursive: true });
      }
    },
    LIMIT_MS,
  );
});

const FOLDERS: readonly { readonly name: string; readonly make: (path: string) => void }[] = [
  { name: "is missing", make: () => {} },
  { name: "is a file", make: (path) => writeFileSync(path, "mine") },
  { name: "belongs to somebody else", make: (path) => mkdirSync(path, { mode: 0o755 }) },
];
const testAsRoot = skipUnless("only root may give files away", process.getuid?.() === 0);

describe.each(rows.filter(({ row }) => row.full !== undefined))("$command", ({ command, row }) => {
  for (const { name, make } of FOLDERS.filter(
    ({ name }) => !row.makesFolder || name !== "is missing",
  )) {
    testAsRoot(
      `an output in a folder that ${name}: one line says so, and nothing is changed`,
      async () => {
        const folder = folders.copy();
        giveAway(folder);
        make(join(folder, "full"));
        const before = listing(folder);
        const result = await runIn(wordsOf(command, row.full ?? []), { folder, isNobody: true });
        expect(result).toMatchObject({ exitCode: 1, isTimedOut: false });
        const errors = errorsIn(result.stderr);
        expect(errors).toHaveLength(1);
        expect(errors[0]).toMatch(/^ubiblk: error E_[A-Z_]+: .*full/);
        expect(listing(folder)).toEqual([...before]);
        rmSync(folder, { recursive: true });
      },
      LIMIT_MS,
    );
  }
});

const PEERS: readonly { readonly name: string; readonly greet: (socket: Socket) => void }[] = [
  { name: "closes at once", greet: (socket) => socket.destroy() },
  { name: "never answers", greet: () => {} },
  { name: "talks nonsense", greet: (socket) => socket.write("220 mail.example ESMTP\r\n\0\r\n") },
  { name: "never stops talking", greet: (socket) => pour(socket) },
];

describe.each(rows.filter(({ row }) => row.peer !== undefined))("$command", ({ command, row }) => {
  test.each([...PEERS])(
    "a peer that $name: one line, in bounded time",
    async ({ greet }) => {
      const folder = folders.copy();
      const server = createServer((socket) => {
        socket.on("error", () => {}); // it may go at any time
        greet(socket);
      });
      await new Promise<void>((done) => server.listen(join(folder, row.peer ?? ""), done));
      try {
        const result = await runIn(wordsOf(command, row.argv), { folder });
        expect(result).toMatchObject({ exitCode: 1, isTimedOut: false });
        expect(errorsIn(result.stderr)).toHaveLength(1);
      } finally {
        server.close();
        rmSync(folder, { recursive: true });
      }
    },
    LIMIT_MS,
  );
});

// --- internal ---

function wordsOf(command: string, argv: readonly string[]): readonly string[] {
  return [folders.executable, ...command.split(" "), ...argv];
}

async function runUsually(command: string, row: CommandRow): Promise<Ending> {
  const folder = folders.copy();
  const result = await runIn(wordsOf(command, row.argv), { folder, stdin: row.stdin });
  rmSync(folder, { recursive: true });
  return result;
}

/** Of an archive's target: it holds nothing, and the next run uses it. */
function isEmptyFolder(line: string): boolean {
  return line === "full/.incomplete 40700 ";
}

/** Lines that are no log. */
function errorsIn(stderr: string): readonly string[] {
  return stderr
    .split("\n")
    .filter((line) => line !== "" && !/^\[(ERROR|WARN|INFO) *\] /.test(line));
}

function pour(socket: Socket): void {
  const piece = Buffer.alloc(64 * 1024, "x");
  const more = () => {
    while (!socket.destroyed && socket.write(piece)) {
      // until its buffer is full
    }
  };
  socket.on("drain", more);
  more();
}
