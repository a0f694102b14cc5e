/** A session of the stripe server without a network, a disk or a clock: the test says what comes, goes and ends. */

import { Arena } from "../../src/ffi/arena.ts";
import { type ByteStream, STREAM_READY, WANT_READ, WANT_WRITE } from "../../src/ffi/byte-stream.ts";
import { viewOf } from "../../src/ffi/memory.ts";
import { POLLIN, POLLOUT } from "../../src/ffi/socket.ts";
import { STRIPE_FLAG } from "../../src/formats/metadata.ts";
import { FixedAnswers } from "../../src/serve/fixed-answers.ts";
import { ServerStatistics } from "../../src/serve/server-statistics.ts";
import { Session } from "../../src/serve/session.ts";
import { INPUT_BYTES } from "../../src/serve/session-limits.ts";
import { StripeReads } from "../../src/serve/stripe-reads.ts";
import { FakeSource } from "../../src/sources/fake-source.ts";

export const STRIPE_BYTES = 1024;
export const LIMITS = { handshakeMs: 100, answerMs: 1000, idleMs: 5000 };
/** Written, in the source, a hole, all zeros. */
const FLAGS = Uint8Array.of(STRIPE_FLAG.WRITTEN, STRIPE_FLAG.HAS_SOURCE, 0, 2);
const REQUESTS_MAX = 256;
const DIGEST = new Uint8Array(32).fill(0xd1);

/** What comes in is given by the test, and how much can go out. */
class ScriptedStream implements ByteStream {
  readonly fd = 99;
  handshakeResult = STREAM_READY;
  /** Not read yet. */
  incoming: number[] = [];
  isOver = false;
  room = Number.POSITIVE_INFINITY;
  readonly sent: number[] = [];
  isDisposed = false;

  handshake(): number {
    return this.handshakeResult;
  }

  read(address: number, lengthBytes: number): number {
    const bytes = this.incoming.splice(0, lengthBytes);
    if (bytes.length === 0) {
      return this.isOver ? 0 : WANT_READ;
    }
    new Uint8Array(viewOf(address, bytes.length)).set(bytes);
    return bytes.length;
  }

  write(address: number, lengthBytes: number): number {
    const count = Math.min(this.room, lengthBytes);
    if (count === 0) {
      return WANT_WRITE;
    }
    this.room -= count;
    this.sent.push(...new Uint8Array(viewOf(address, count)));
    return count;
  }

  problem(result: number): string {
    return `problem ${result}`;
  }

  [Symbol.dispose](): void {
    this.isDisposed = true;
  }
}

export class SessionWorld implements Disposable {
  readonly stream = new ScriptedStream();
  readonly statistics = ServerStatistics.create(1);
  readonly disk = newSource(1);
  readonly source = newSource(2);
  readonly reads: StripeReads;
  readonly session: Session;
  readonly #arena = new Arena(2 * INPUT_BYTES);
  readonly #answers: FixedAnswers;

  constructor() {
    const metadata = this.#arena.bytes(21);
    metadata.view.fill(0x4d);
    this.#answers = new FixedAnswers({
      ...metadata,
      status: 0,
      lengthBytes: 21,
      digest: DIGEST,
    });
    this.reads = new StripeReads({
      disk: this.disk,
      source: this.source,
      cipher: undefined,
      diskSectors: 8,
      stripeSectors: 2,
      flags: FLAGS,
    });
    const input = this.#arena.bytes(INPUT_BYTES);
    const { stream, reads } = this;
    const counts = this.statistics.open(0, "client", 0);
    this.session = new Session(
      { stream, name: "client", reads, answers: this.#answers, limits: LIMITS, counts, input },
      0,
    );
  }

  /** As a turn of the server's loop, with whatever the session polls for. */
  turn(nowMs: number): void {
    this.session.advance(nowMs, this.session.events & (POLLIN | POLLOUT));
    while (this.session.wantsBuffer && this.session.takeBuffer()) {
      // One at a time, as the server gives them.
    }
    this.reads.advance();
    this.session.advance(nowMs, 0);
  }

  [Symbol.dispose](): void {
    this.session[Symbol.dispose]();
    this.reads[Symbol.dispose]();
    this.#answers[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
  }
}

/** The answer to a whole request, as the protocol has it. */
export function expectedAnswer(request: readonly number[]): readonly number[] {
  const [opcode = -1, stripe = 0] = request;
  switch (opcode) {
    case 0x00:
      return new Array<number>(21).fill(0x4d);
    case 0x02:
      return [0, 1, 0, 0, 0];
    case 0x10:
      return [0, 3, 0, 0, 0];
    case 0x12:
      return [0, ...DIGEST];
    case 0x01:
    case 0x11:
      break;
    default:
      return [0xfe];
  }
  const isBeyond = request.slice(2).some((byte) => byte !== 0) || stripe >= FLAGS.length;
  if (isBeyond || stripe === 2) {
    return [isBeyond ? 0x01 : 0x02];
  }
  if (stripe === 3 && opcode === 0x11) {
    return [0x10];
  }
  const data = Array.from({ length: STRIPE_BYTES }, (_, i) =>
    byteAt(stripe === 1 ? 2 : 1, stripe * STRIPE_BYTES + i),
  );
  return [0, 0, 4, 0, 0, 0, 0, 0, 0, ...data];
}

// --- internal ---

function newSource(seed: number): FakeSource {
  return new FakeSource({
    sectors: 8,
    stripeBytes: STRIPE_BYTES,
    requestsMax: REQUESTS_MAX,
    byteAt: (offset) => byteAt(seed, offset),
  });
}

function byteAt(seed: number, offset: number): number {
  return offset >= 3 * STRIPE_BYTES ? 0 : (offset * 7 + seed * 91 + 1) & 0xff;
}
