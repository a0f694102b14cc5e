/**
 * Peers that say anything to the running executable: lines at the RPC socket, bytes at a stripe server. Every line is
 * answered, every session ends or goes on, the next peer is served, and nothing is kept. A failure prints the seed;
 * `UBIBLK_FUZZ_SEED=N` runs it again.
 */
import { expect, test } from "bun:test";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { changedBytes } from "../support/changed-bytes.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { MetadataDisk } from "../support/metadata-disk.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import { ask, converse } from "../support/rpc-client.ts";
import { RawClient, readRequest, startStripeServer } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const MEMORY_BYTES_MAX = 300 * 2 ** 20;
const DANGER = "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n";

/** All that do not end or exchange the process, with what they take. */
const LINES = [
  '{"command":"version"}',
  '{"command":"status"}',
  '{"command":"queues"}',
  '{"command":"stats"}',
  '["statistics"]',
  '{"command":"histograms"}',
  '{"command":"requests"}',
  '{"command":"overdue"}',
  '{"command":"limits"}',
  '{"command":"set_limits","iops":1000000,"read_bytes_per_second":null}',
  '{"command":"set_limits","write_iops_burst":5}',
  '{"command":"resize","size":67108864}',
  '{"command":"pause_fetch"}',
  '{"command":"retry_failed"}',
  '{"command":"set_fetch_rate","bytes_per_second":1048576}',
  '{"command":"log_level"}',
  '{"command":"set_log_level","level":"error"}',
];

test(`lines at the RPC socket, from seed ${FUZZ_SEED}: one answer each, and the socket stays`, async () => {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-peers-"));
  const rpcPath = join(folder, "rpc.sock");
  const files = writeDiskConfig({
    folder,
    isEncrypted: false,
    moreConfig: `rpc_socket = "rpc.sock"`,
  });
  writeFileSync(files.dataPath, "");
  truncateSync(files.dataPath, 64 * 2 ** 20);
  await using backend = await startUbiblk(files);
  await ask(rpcPath, "version");
  const held = openFiles(backend.pid);
  for (let round = 0; round < rounds(150, 5000); round++) {
    const random = new SeededRandom(FUZZ_SEED + round);
    const lines = Array.from({ length: random.between(1, 12) }, () => lineOf(random));
    const answer = await converse(rpcPath, lines.join("\n"));
    const answers = answer.split("\n").slice(0, -1);
    const wrong = answers.filter((line) => !isObject(line));
    expect({ seed: FUZZ_SEED + round, lines, wrong }).toMatchObject({ wrong: [] });
    const asked = lines.filter((line) => line.trim() !== "").length;
    expect({ seed: FUZZ_SEED + round, asked, answered: answers.length }).toMatchObject({
      answered: asked,
    });
  }
  expect(backend.isRunning()).toBe(true);
  await until("connections are closed", () => openFiles(backend.pid) <= held);
  expect(peakMemory(backend.pid)).toBeLessThan(MEMORY_BYTES_MAX);
  expect(await backend.stop()).toBe(0);
  rmSync(folder, { recursive: true });
}, 1_200_000);

test(`bytes at a stripe server, from seed ${FUZZ_SEED}: the next client is served`, async () => {
  using disk = new MetadataDisk({ diskBytes: 4 * 2 ** 20, metadataPath: null });
  disk.write("listen.toml", `[server]\naddress = "127.0.0.1:0"\nidle_timeout_ms = 2000\n${DANGER}`);
  const flags = ["-f", "disk.toml", "--listen-config", "listen.toml"];
  await using server = await startStripeServer(disk.folder, flags);
  await expectServed(server.port);
  const held = openFiles(server.pid);
  for (let round = 0; round < rounds(150, 5000); round++) {
    const random = new SeededRandom(FUZZ_SEED + round);
    using client = await RawClient.connect(server.port);
    for (let i = random.between(1, 6); i > 0; i--) {
      client.send(streamOf(random));
    }
    if (random.oneIn(4)) {
      client.endSending();
      await client.rest();
    }
    if (round % 10 === 9) {
      await expectServed(server.port);
    }
  }
  expect(server.isRunning()).toBe(true);
  await until("connections are closed", () => openFiles(server.pid) <= held);
  expect(peakMemory(server.pid)).toBeLessThan(MEMORY_BYTES_MAX);
  expect(await server.stop()).toBe(0);
}, 1_200_000);

// --- internal ---

/**
 * A line of text: a request, one with something wrong in it, or neither. What is no UTF-8, or begins like a message of a front
 * end, would end the connection.
 */
function lineOf(random: SeededRandom): string {
  const line = LINES[random.below(LINES.length)] ?? "";
  if (random.oneIn(3)) {
    return line;
  }
  const bytes = changedBytes(Buffer.from(line), random);
  const text = new TextDecoder().decode(bytes).replaceAll(/[\n\r]/g, " ");
  const isLeftOut = /stop|upgrade/.test(text) || text.startsWith("\0\0\0", 1);
  return isLeftOut ? line : text;
}

function isObject(line: string): boolean {
  const value: unknown = JSON.parse(line);
  return typeof value === "object" && value !== null;
}

/** Greetings, reads of stripes that are there and others, and anything. */
function streamOf(random: SeededRandom): Uint8Array {
  const parts = Array.from({ length: random.between(1, 8) }, () => {
    const request = random.oneIn(3)
      ? Uint8Array.of(random.below(256))
      : readRequest(random.below(6));
    return random.oneIn(4) ? changedBytes(request, random) : request;
  });
  return Buffer.concat([Uint8Array.of(0x02), ...parts].slice(random.below(2)));
}

async function expectServed(port: number): Promise<void> {
  using client = await RawClient.connect(port);
  client.send(0x02);
  expect(await client.take(5)).toHaveLength(5);
  client.send(readRequest(1));
  expect((await client.take(9))[0]).toBe(0);
}

function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function peakMemory(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
