/**
 * The stripe protocol on one connection: requests go out together, answers come in their order. The data of an
 * answer is read straight to the memory that it is for; only heads of answers pass through a buffer here. A head
 * of an answer is read no further than it can be long, so what follows a short one belongs to the next.
 *
 * A stripe costs three reads (two more where TLS has not got all of it) and no allocation.
 */
import { assert } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { type ByteStream, WANT_READ, WANT_WRITE } from "../ffi/byte-stream.ts";
import { POLLIN, POLLOUT } from "../ffi/socket.ts";
import { u8 } from "../ffi/view.ts";
import {
  answerHeadBytes,
  decodeSize,
  encodeRead,
  encodeRequest,
  OPCODE,
  REQUEST_BYTES_MAX,
  STATUS,
} from "../formats/stripe-protocol.ts";
import { PendingRequests } from "./pending-requests.ts";

export interface AnswerHandler {
  /**
   * Where the data of an answer goes, `sizeBytes` of it. The request is still the oldest of `pending`.
   * @throws UbiError when there is no such answer; the connection is of no use any more
   */
  place(opcode: number, sizeBytes: number): number;
  /**
   * An answer is whole: its data at its place, a fixed one in `head`. The request is still the oldest of `pending`.
   * @throws UbiError as `place`
   */
  answered(opcode: number, status: number, head: Uint8Array): void;
}

/** Requests without an answer at a time. */
const ASKED_MAX = 8;
const HEAD_BYTES_MAX = 64;
/** Read at a time from one connection before others have their turn. */
const TURN_BYTES_MAX = 4 * 2 ** 20;
/** The stream has nothing more to read, or its turn is over. */
export const WIRE_WAITS = WANT_READ;

export class StripeWire implements Disposable {
  readonly pending = new PendingRequests(ASKED_MAX);
  readonly #stream: ByteStream;
  readonly #handler: AnswerHandler;
  readonly #arena = new Arena(4096);
  readonly #out: ArenaView<Uint8Array>;
  readonly #head: ArenaView<Uint8Array>;
  #outBytes = 0;
  #isBlocked = false;
  #headBytes = 0;
  /** Of the data of the oldest answer. */
  #dataAddress = 0;
  #dataLeft = 0;
  #isReading = false;
  #movedBytes = 0;
  #hasMore = false;

  /** @param stream connected; the wire closes it */
  constructor(stream: ByteStream, handler: AnswerHandler) {
    this.#stream = stream;
    this.#handler = handler;
    this.#out = this.#arena.bytes(ASKED_MAX * REQUEST_BYTES_MAX);
    this.#head = this.#arena.bytes(HEAD_BYTES_MAX);
  }

  /** Bytes moved so far in both directions. */
  get movedBytes(): number {
    return this.#movedBytes;
  }

  /** The last `receive` stopped while there was something to read. */
  get hasMore(): boolean {
    return this.#hasMore;
  }

  /** What to poll the descriptor for. */
  get events(): number {
    return this.#isBlocked ? POLLIN | POLLOUT : POLLIN;
  }

  /** Puts a request into the next `send`. @param id of a read, and -1 for all else */
  ask(opcode: number, id = -1, stripe = 0, address = 0): void {
    const target = this.#out.view;
    const offset = this.#outBytes;
    assert(offset + REQUEST_BYTES_MAX <= target.length, "requests are few, and short");
    this.#outBytes +=
      opcode === OPCODE.READ || opcode === OPCODE.READ_SPARSE
        ? encodeRead({ target, offset, opcode, stripe })
        : encodeRequest(target, offset, opcode);
    this.pending.add(opcode, id, stripe, address);
  }

  /** Hands over what was asked. WIRE_WAITS, or how the stream ended: 0 or a code of ByteStream. */
  send(): number {
    this.#isBlocked = false;
    while (this.#outBytes > 0) {
      const moved = this.#stream.write(this.#out.address, this.#outBytes);
      if (moved <= 0) {
        this.#isBlocked = moved === WANT_WRITE;
        return moved === WANT_WRITE ? WIRE_WAITS : moved;
      }
      this.#movedBytes += moved;
      this.#out.view.copyWithin(0, moved, this.#outBytes);
      this.#outBytes -= moved;
    }
    return WIRE_WAITS;
  }

  /** Takes in what has come, at most some megabytes. As `send`. @throws UbiError what the handler throws */
  receive(): number {
    const end = this.#movedBytes + TURN_BYTES_MAX;
    this.#hasMore = false;
    while (this.#movedBytes < end) {
      const moved = this.#isReading ? this.#readData() : this.#readHead();
      if (moved <= 0) {
        return moved === WANT_WRITE ? WIRE_WAITS : moved;
      }
      this.#movedBytes += moved;
      this.#takeAnswers();
    }
    this.#hasMore = true;
    return WIRE_WAITS;
  }

  /** What a result of `send` or `receive` means, in words. */
  problem(result: number): string {
    return this.#stream.problem(result);
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #readData(): number {
    const wanted = Math.min(this.#dataLeft, TURN_BYTES_MAX);
    const moved = this.#stream.read(this.#dataAddress, wanted);
    if (moved > 0) {
      this.#dataAddress += moved;
      this.#dataLeft -= moved;
    }
    return moved;
  }

  /** A byte that nobody asked for is read as well: the peer closed, or does not keep to the protocol. */
  #readHead(): number {
    const whole = this.pending.count > 0 ? answerHeadBytes(this.pending.opcode) : 1;
    assert(this.#headBytes < whole, "a whole head was taken");
    const moved = this.#stream.read(this.#head.address + this.#headBytes, whole - this.#headBytes);
    this.#headBytes += Math.max(0, moved);
    return moved;
  }

  #takeAnswers(): void {
    if (this.#isReading && this.#dataLeft === 0) {
      this.#isReading = false;
      this.#answer(STATUS.OK, 0);
    }
    while (!this.#isReading && this.#headBytes > 0) {
      if (this.pending.count === 0) {
        this.#handler.answered(-1, u8(this.#head.view, 0), this.#head.view);
        return;
      }
      const { opcode } = this.pending;
      const status = u8(this.#head.view, 0);
      const headBytes = answerHeadBytes(opcode);
      if (status !== STATUS.OK) {
        this.#answer(status, 1);
      } else if (this.#headBytes < headBytes) {
        return;
      } else if (isSized(opcode)) {
        this.#dataLeft = decodeSize(this.#head.view, 0);
        this.#dataAddress = this.#handler.place(opcode, this.#dataLeft);
        this.#isReading = true;
        this.#consume(headBytes);
        assert(this.#headBytes === 0, "data is never read into the head");
      } else {
        this.#answer(STATUS.OK, headBytes);
      }
    }
  }

  #answer(status: number, headBytes: number): void {
    this.#handler.answered(this.pending.opcode, status, this.#head.view);
    this.pending.drop();
    this.#consume(headBytes);
  }

  #consume(bytes: number): void {
    this.#head.view.copyWithin(0, bytes, this.#headBytes);
    this.#headBytes -= bytes;
  }
}

// --- internal ---

function isSized(opcode: number): boolean {
  return opcode === OPCODE.READ || opcode === OPCODE.READ_SPARSE || opcode === OPCODE.METADATA;
}
