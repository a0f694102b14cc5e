/** `ubiblk stripe-shell` against a running stripe server: what it prints, word for word. */
import { expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { freePort } from "../support/free-port.ts";
import { MetadataDisk, metadataFile } from "../support/metadata-disk.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import { type RunningServer, startStripeServer } from "../support/stripe-server.ts";
import { TmuxTerminal } from "../support/tmux.ts";
import { until } from "../support/until.ts";

/** Stripes of 2^6 sectors. */
const STRIPE = 64 * 512;
const FETCHED = 1;
const WRITTEN = 2;
const HAS_SOURCE = 4;
const DANGER = "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n";

const HELP = `Commands:
  help
      Lists the commands.
  exit | quit
      Ends the shell.
  stripe_header <stripe_index>
      Shows the flags of a stripe, and whether it was written.
  fetch_stripe <stripe_index>
      Gets a stripe from the server and keeps it.
  dump_stripe <stripe_index> <offset> <length>
      Shows bytes of a stripe that was fetched, in hexadecimal.
  save <stripe_index> <file>
      Writes a stripe to a file, getting it first if need be.
  list
      Lists the stripes that the server has data for.
  status
      Shows the server, the connection and the disk.
`;

test("lines of standard input: answers without a prompt, to the end of input", async () => {
  using disk = servedDisk();
  await using _server = await serve(disk);
  const lines = [
    ["help", HELP],
    ["", ""],
    ["stripe_header 0", "0x02 WRITTEN\n"],
    ["  stripe_header   +1 and more", "0x05 NOT_WRITTEN\n"],
    ["stripe_header 3", "0x00 NOT_WRITTEN\n"],
    ["stripe_header 4", "INVALID_STRIPE\n"],
    ["stripe_header 18446744073709551615", "INVALID_STRIPE\n"],
    ["dump_stripe 0 0 4", "NOT_FETCHED_FROM_REMOTE\n"],
    ["fetch_stripe 0", "FETCHED\n"],
    ["dump_stripe 0 0 4", `${hexOf(disk, "disk.raw", 0, 4)}\n`],
    ["dump_stripe 0 32760 8", `${hexOf(disk, "disk.raw", 32760, 8)}\n`],
    ["dump_stripe 0 32760 9", "INVALID_RANGE\n"],
    ["dump_stripe 0 18446744073709551615 1", "INVALID_RANGE\n"],
    ["dump_stripe 3 0 3", "000000\n"],
    ["dump_stripe 3 32768 1", "INVALID_RANGE\n"],
    ["dump_stripe 9 0 x", "Invalid parameter error: INVALID_NUMBER: x\n"],
    ["dump_stripe 9 0 0", "INVALID_STRIPE\n"],
    ["fetch_stripe 7", "INVALID_STRIPE\n"],
    ["fetch_stripe", "Invalid parameter error: MISSING_ARGUMENT\n"],
    ["fetch_stripe 0x1", "Invalid parameter error: INVALID_NUMBER: 0x1\n"],
    ["fetch_stripe -1", "Invalid parameter error: INVALID_NUMBER: -1\n"],
    [
      "stripe_header 18446744073709551616",
      "Invalid parameter error: INVALID_NUMBER: 18446744073709551616\n",
    ],
    ["frob 1", "UNKNOWN_COMMAND: frob\nType help for the commands.\n"],
    ["list", "0 0x02\n1 0x05\n2 0x04\n"],
  ] as const;
  const result = await shell(disk, lines.map(([line]) => `${line}\n`).join(""), []);
  expect(result.stdout).toBe(lines.map(([, answer]) => answer).join(""));
  expect(result.exitCode).toBe(0);
});

test("stripes that only the source has are shown as they are, not as zeros", async () => {
  using disk = servedDisk();
  await using _server = await serve(disk);
  const commands = "fetch_stripe 2; dump_stripe 2 16 8; fetch_stripe 1; dump_stripe 1 0 8; quit; x";
  const result = await shell(disk, "", ["-c", commands]);
  const source = hexOf(disk, "image.raw", 2 * STRIPE + 16, 8);
  const fetched = hexOf(disk, "disk.raw", STRIPE, 8);
  expect(result.stdout).toBe(`FETCHED\n${source}\nFETCHED\n${fetched}\n`);
  expect(result.exitCode).toBe(0);
});

test("commands of -c: all are run, and one that fails makes the exit code 1", async () => {
  using disk = servedDisk();
  await using _server = await serve(disk);
  const result = await shell(disk, "", ["-c", "fetch_stripe 3; stripe_header 0; save 0 out"]);
  expect(result.stdout).toContain("Stripe 3 is unavailable");
  expect(result.stdout).toEndWith("0x02 WRITTEN\nSAVED\n");
  expect(result.exitCode).toBe(1);
  expect(disk.bytesOf("out").equals(disk.bytesOf("disk.raw").subarray(0, STRIPE))).toBe(true);
});

test("--json: one object a command", async () => {
  using disk = servedDisk();
  await using server = await serve(disk);
  const commands = "stripe_header 0;dump_stripe 3 0 2;fetch_stripe 8;list;status";
  const result = await shell(disk, "", ["--json", "-c", commands]);
  const objects = result.stdout
    .trim()
    .split("\n")
    .map((line): unknown => JSON.parse(line));
  expect(objects).toEqual([
    { command: "stripe_header", stripe: 0, header: "0x02", written: true },
    { command: "dump_stripe", stripe: 3, offset: 0, length: 2, hex: "0000" },
    { command: "fetch_stripe", error: "INVALID_STRIPE" },
    {
      command: "list",
      runs: [
        { first: 0, last: 0, header: "0x02" },
        { first: 1, last: 1, header: "0x05" },
        { first: 2, last: 2, header: "0x04" },
      ],
    },
    {
      command: "status",
      server: `stripe server 127.0.0.1:${server.port}`,
      connected: true,
      stripe_bytes: STRIPE,
      stripe_count: 4,
      fetched: 1,
      written: 1,
      has_source: 2,
      unfetched: 1,
      cached: 0,
    },
  ]);
});

test("a connection that the server has closed is made again, unless the disk is another one", async () => {
  using disk = servedDisk();
  await using server = await serve(disk, "idle_timeout_ms = 200\n", freePort());
  const child = Bun.spawn([EXECUTABLE, "stripe-shell", "--server-config", "client.toml"], {
    cwd: disk.folder,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "ignore",
  });
  const parts: string[] = [];
  const reading = child.stdout.pipeTo(
    new WritableStream({ write: (bytes) => void parts.push(Buffer.from(bytes).toString()) }),
  );
  const fetch = async (answers: number) => {
    child.stdin.write("fetch_stripe 0\n");
    await child.stdin.flush();
    await until("an answer", () => parts.join("").split("\n").length > answers);
  };
  await fetch(1);
  await until("it is closed", () => server.log().includes('why="it was idle"'));
  await fetch(2);
  await server.stop();
  disk.write("meta", metadata([0, HAS_SOURCE, HAS_SOURCE, WRITTEN]));
  disk.write("listen.toml", `[server]\naddress = "127.0.0.1:${server.port}"\n${DANGER}`);
  await using _other = await startStripeServer(disk.folder, FLAGS);
  child.stdin.write("fetch_stripe 0\n");
  await child.stdin.end();
  expect(await child.exited).toBe(0);
  await reading;
  const [first, second, third] = parts.join("").trim().split("\n");
  expect([first, second]).toEqual(["FETCHED", "FETCHED"]);
  expect(third).toContain("its disk changed across reconnect: other stripes hold data");
});

skipUnlessInstalled("tmux")(
  "on a terminal: a prompt, Ctrl-C goes on, the end of input ends",
  async () => {
    using disk = servedDisk();
    await using _server = await serve(disk);
    await using terminal = await TmuxTerminal.start({
      folder: disk.folder,
      columns: 80,
      rows: 24,
    });
    await terminal.type(
      `cd ${disk.folder} && ${EXECUTABLE} stripe-shell --server-config client.toml 2>/dev/null`,
    );
    await terminal.until(/^> ?$/m);
    await terminal.type("stripe_header 0");
    await terminal.until(/^> stripe_header 0\n0x02 WRITTEN\n> ?$/m);
    await terminal.press("a", "C-c");
    await terminal.until(/\^C\n> ?$/m);
    await terminal.type("stripe_header 3");
    await terminal.until(/^0x00 NOT_WRITTEN$/m);
    await terminal.press("C-d");
    await terminal.until(/^.*\$ ?$/m);
    await terminal.type("echo code=$?");
    await terminal.until(/^code=0$/m);
  },
);

test("by its old name, and with nobody listening: it says what to do", async () => {
  using disk = servedDisk();
  disk.write("client.toml", `[server]\naddress = "127.0.0.1:1"\n${DANGER}`);
  symlinkSync(EXECUTABLE, disk.file("remote-stripe-shell"));
  const result = await runCommand(
    [disk.file("remote-stripe-shell"), "--server-config", "client.toml"],
    { cwd: disk.folder, timeoutMs: 20_000 },
  );
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("Failed to connect to stripe server 127.0.0.1:1");
});

// --- internal ---

const FLAGS = ["-f", "disk.toml", "--listen-config", "listen.toml"];

/** Written, fetched from the source, still to be fetched, and a hole. */
function servedDisk(): MetadataDisk {
  const disk = new MetadataDisk({ diskBytes: 0 });
  for (const [index, file] of ["disk.raw", "image.raw"].entries()) {
    const bytes = Buffer.alloc(4 * STRIPE);
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = (i * 13 + (i >>> 8) + index * 77) & 0xff;
    }
    disk.write(file, bytes);
  }
  disk.write("meta", metadata([WRITTEN, HAS_SOURCE | FETCHED, HAS_SOURCE, 0]));
  disk.write(
    "disk.toml",
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\ntrack_written = true\n' +
      '[stripe_source]\ntype = "raw"\nimage_path = "image.raw"\n' +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n",
  );
  return disk;
}

function metadata(flags: readonly number[]): Uint8Array {
  return metadataFile({ stripeShift: 6, stripeCount: flags.length }, Uint8Array.from(flags), 1024);
}

/** With a document for the shell, which names the port. */
async function serve(disk: MetadataDisk, keys = "", port = 0): Promise<RunningServer> {
  disk.write("listen.toml", `[server]\naddress = "127.0.0.1:${port}"\n${keys}${DANGER}`);
  const server = await startStripeServer(disk.folder, FLAGS);
  disk.write("client.toml", `[server]\naddress = "127.0.0.1:${server.port}"\n${DANGER}`);
  return server;
}

async function shell(
  disk: MetadataDisk,
  input: string,
  flags: readonly string[],
): Promise<Pick<CommandResult, "stdout" | "exitCode">> {
  const command = [EXECUTABLE, "stripe-shell", "--server-config", "client.toml", ...flags];
  const child = Bun.spawn(command, {
    cwd: disk.folder,
    stdin: new TextEncoder().encode(input),
    stdout: "pipe",
    stderr: "ignore",
    timeout: 30_000,
  });
  const [stdout, exitCode] = await Promise.all([child.stdout.text(), child.exited]);
  return { stdout, exitCode };
}

function hexOf(disk: MetadataDisk, file: string, offset: number, length: number): string {
  return disk
    .bytesOf(file)
    .subarray(offset, offset + length)
    .toString("hex");
}
