/**
 * Hostile stripe servers: whatever a server answers, the client ends in time with an answer or an error, writes only
 * where it was asked to, and keeps nothing. A failure prints the seed; `UBIBLK_FUZZ_SEED=N` runs it again.
 */
import { expect, test } from "bun:test";
import { UbiError } from "../../src/errors.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { RemoteClient } from "../../src/remote/remote-client.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { openDescriptors } from "../support/open-descriptors.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import {
  ScriptedServer,
  type ServerScript,
  STRIPE_BYTES,
  stripeData,
  usualAnswer,
} from "../support/scripted-server.ts";

const ROUNDS = rounds(300, 5000);
const FLAGS = [0x05, 0x02, 0x00, 0x04];
const TIMEOUT_MS = 60;
const GUARD = 0xdb;
const arena = new Arena(3 * STRIPE_BYTES);
const memory = arena.bytes(3 * STRIPE_BYTES);

test(`answers made of random changes, from seed ${FUZZ_SEED}: an answer or an error, in time`, async () => {
  const before = openDescriptors();
  for (let round = 0; round < ROUNDS; round++) {
    await attack(FUZZ_SEED + round);
  }
  for (let i = 0; i < 1000 && openDescriptors() > before; i++) {
    await Bun.sleep(20); // the servers' own sockets close a little later
  }
  expect(openDescriptors()).toBeLessThanOrEqual(before);
}, 240_000);

async function attack(seed: number): Promise<void> {
  const random = new SeededRandom(seed);
  memory.view.fill(GUARD);
  using server = new ScriptedServer(hostileScript((count) => random.below(count)));
  const beginMs = performance.now();
  const ends = await converse(server.port);
  const guards = [memory.view.subarray(0, STRIPE_BYTES), memory.view.subarray(2 * STRIPE_BYTES)];
  expect({
    seed,
    ends: ends.filter((end) => !/^(0|1|2|3|E_REMOTE)$/.test(end)),
    isInTime: performance.now() - beginMs < 20 * TIMEOUT_MS + 4000,
    isGuarded: guards.every((guard) => guard.every((byte) => byte === GUARD)),
  }).toEqual({ seed, ends: [], isInTime: true, isGuarded: true });
}

/** What each step ended with: a status, or the code of an error. */
async function converse(port: number): Promise<readonly string[]> {
  const ends: string[] = [];
  try {
    using client = await RemoteClient.connect({
      address: { kind: "tcp", host: "127.0.0.1", port },
      tls: undefined,
      connectTimeoutMs: 1000,
      operationTimeoutMs: TIMEOUT_MS,
    });
    for (const stripe of [1, 9, 0, 3]) {
      ends.push(String(await client.read(stripe, memory.address + STRIPE_BYTES)));
    }
  } catch (error) {
    ends.push(error instanceof UbiError ? error.code : String(error));
  }
  return ends;
}

function hostileScript(below: (count: number) => number): ServerScript {
  const isNew = below(2) === 0;
  const patience = below(6);
  let answers = 0;
  return {
    flags: FLAGS,
    isNew,
    answer: (request) => {
      answers += 1;
      if (answers <= patience) {
        return undefined;
      }
      const usual = usualAnswer(request, { flags: FLAGS, isNew });
      return changed(usual, below);
    },
  };
}

function changed(bytes: Uint8Array, below: (count: number) => number): Uint8Array | "close" {
  const copy = Uint8Array.from(bytes);
  const at = below(Math.min(copy.length, 64));
  switch (below(9)) {
    case 0:
      return copy; // as it should be
    case 1:
      copy[at] = below(256);
      return copy;
    case 2:
      return copy.subarray(0, at);
    case 3:
      return Buffer.concat([copy, stripeData(5).subarray(0, below(40))]);
    case 4:
      return Uint8Array.of([0x01, 0x02, 0x03, 0x10, 0xfe, 0xff, 0x15, below(256)][below(8)] ?? 0);
    case 5:
      // A size of any magnitude.
      for (let i = 1; i < Math.min(9, copy.length); i++) {
        copy[i] = below(3) === 0 ? below(256) : (copy[i] ?? 0);
      }
      return copy;
    case 6:
      return Uint8Array.from({ length: 1 + below(100) }, () => below(256));
    case 7:
      return Buffer.concat([copy, copy]);
    default:
      return "close";
  }
}
