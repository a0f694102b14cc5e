/**
 * Front ends that say anything, against the running executable: messages of all kinds, whole and cut off, several in one
 * piece and one in several, with descriptors of all kinds. Each costs its sender the connection at most: the next front
 * end is served, and nothing is kept. A failure prints the seed; `UBIBLK_FUZZ_SEED=N` runs it again.
 */
import { dlopen } from "bun:ffi";
import { expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { decodeU64, REQUEST } from "../../src/formats/vhost-user.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import type { HostileClient } from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { type MadeMessage, MessageMaker } from "../support/message-maker.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import { until } from "../support/until.ts";

const SESSIONS = rounds(400, 10_000);
const MESSAGES_MAX = 40;
const DESCRIPTORS_MAX = 60;
const MEMORY_BYTES_MAX = 300 * 2 ** 20;

test(`sessions of any messages, from seed ${FUZZ_SEED}: the next front end is served, and nothing is kept`, async () => {
  const disk = await serveHostileDisk({ isEncrypted: false, tuning: "num_queues = 2" });
  expect(disk.isServing()).toBe(true);
  const held = heldBy(disk.backend.pid);
  for (let session = 0; session < SESSIONS; session++) {
    const random = new SeededRandom(FUZZ_SEED + session);
    attack(disk, random);
    if (session % 10 === 9) {
      expect({ session, isServing: disk.isServing() }).toEqual({ session, isServing: true });
    }
  }
  expect(disk.backend.isRunning()).toBe(true);
  await until("all that was passed is closed", () => heldBy(disk.backend.pid) <= held);
  expect(disk.peakMemoryBytes()).toBeLessThan(MEMORY_BYTES_MAX);
  expect(await disk.close()).toBe(0);
}, 1_200_000);

// --- internal ---

const SHUT_WR = 1;
const { shutdown } = dlopen("libc.so.6", {
  shutdown: { args: ["i32", "i32"], returns: "i32" },
}).symbols;

function attack(disk: HostileDisk, random: SeededRandom): void {
  using client = disk.connect();
  const features = decodeU64(client.ask(REQUEST.GET_FEATURES));
  const protocolFeatures = decodeU64(client.ask(REQUEST.GET_PROTOCOL_FEATURES));
  using maker = new MessageMaker(random, { features, protocolFeatures });
  maker.scribble();
  const messages = random.oneIn(5) ? [] : [...maker.opening()];
  for (let i = random.below(MESSAGES_MAX); i >= 0; i--) {
    messages.push(maker.any());
  }
  for (let i = 0; i < messages.length; i++) {
    i += send(client, messages.slice(i, i + 4), random) - 1;
  }
  if (random.oneIn(2)) {
    shutdown(client.socket, SHUT_WR); // what was said is heard to its end
    client.isClosed();
  }
}

/** Sends the first message, or several as one piece. Returns how many. */
function send(client: HostileClient, next: readonly MadeMessage[], random: SeededRandom): number {
  const [first] = next;
  if (first === undefined) {
    return 1;
  }
  const isMixed = next.slice(1).some(({ descriptors }) => descriptors.length > 0);
  if (random.oneIn(isMixed ? 200 : 6)) {
    const bytes = Buffer.concat(next.map((message) => message.bytes));
    const descriptors = next.flatMap((message) => message.descriptors);
    client.sendBytes(bytes, descriptors.slice(0, DESCRIPTORS_MAX));
    return next.length;
  }
  if (random.oneIn(6)) {
    const cut = random.between(1, first.bytes.length - 1);
    const isLate = random.oneIn(8); // the descriptors come with the last byte
    client.sendBytes(first.bytes.subarray(0, cut), isLate ? [] : first.descriptors);
    client.sendBytes(first.bytes.subarray(cut), isLate ? first.descriptors : []);
    return 1;
  }
  client.sendBytes(first.bytes, first.descriptors);
  return 1;
}

/** Sockets, events, shared memory and mapped files that a process has open. */
function heldBy(pid: number): number {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return ""; // closed meanwhile
    }
  });
  return links.filter((link) => /^socket:|^anon_inode:|^\/memfd:|^\/dev\/(null|zero)/.test(link))
    .length;
}
