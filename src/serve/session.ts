/**
 * One client: requests in, answers out in their order. Whatever one does ends its own session only.
 *
 *   handshake -> serving -> (lingering) -> ended
 *
 * A client may send requests before it has the answers, up to ANSWERS_MAX of them; then nothing more is read from
 * it until it takes some. An answer with a stripe waits for a buffer, for the read, and for its turn to be sent.
 */
import { assert, errnoText } from "../errors.ts";
import { type ByteStream, STREAM_READY, WANT_READ, WANT_WRITE } from "../ffi/byte-stream.ts";
import { POLLIN, POLLOUT } from "../ffi/socket.ts";
import { untakenBytes } from "../ffi/stream.ts";
import { OPCODE, STATUS } from "../formats/stripe-protocol.ts";
import { type Answer, AnswerQueue } from "./answer-queue.ts";
import type { AnswerBytes, FixedAnswers } from "./fixed-answers.ts";
import { RequestInput } from "./request-input.ts";
import type { SessionCounts } from "./server-statistics.ts";
import {
  ANSWERS_MAX,
  BYTES_PER_MS_MIN,
  LINGER_MS,
  READ_SHARE,
  type SessionLimits,
  TURN_BYTES,
  TURN_ROUNDS,
} from "./session-limits.ts";
import type { ReadOwner, StripeReads } from "./stripe-reads.ts";

export interface SessionOptions {
  readonly stream: ByteStream;
  /** As the log names the client. */
  readonly name: string;
  readonly reads: StripeReads;
  readonly answers: FixedAnswers;
  readonly limits: SessionLimits;
  readonly counts: SessionCounts;
  readonly input: { readonly view: Uint8Array; readonly address: number };
}

/** Why a session ended; without a reason the client just left. */
export interface SessionEnd {
  readonly isFailure: boolean;
  readonly reason: string;
}

const NEVER = Number.POSITIVE_INFINITY;

export class Session implements ReadOwner {
  readonly #options: SessionOptions;
  readonly #input: RequestInput;
  readonly #answers: AnswerQueue;
  #state: "handshake" | "serving" | "lingering" | "ended" = "handshake";
  #hasBegun = false;
  #end: SessionEnd | undefined;
  /** What the stream waits for before it can be read or written; 0 while it can be tried. */
  #readWait = 0;
  #writeWait = 0;
  #isInputOver = false;
  #isStopping = false;
  /** Times, in ms of the caller's clock. */
  #nowMs: number;
  #sinceMs: number;
  #headSinceMs = 0;
  #headReadyMs = 0;
  #progressMs = 0;
  /** What the client had still to take of all that was sent, when that was looked at last. */
  #untakenBytes = 0;
  /** Sent of the first answer. */
  #sentBytes = 0;
  /** A read of its has ended. */
  #isChanged = false;
  /** Whether the first answer has been seen ready. */
  #isHeadReady = false;
  /** Answered, for the log. */
  #served = 0;
  #failure: string | undefined;

  constructor(options: SessionOptions, nowMs: number) {
    this.#options = options;
    this.#input = new RequestInput(options.input);
    this.#answers = new AnswerQueue(options.reads, this);
    this.#nowMs = nowMs;
    this.#sinceMs = nowMs;
  }

  get name(): string {
    return this.#options.name;
  }

  get fd(): number {
    return this.#options.stream.fd;
  }

  /** Set once the session is over; then it only waits to be disposed of. */
  get end(): SessionEnd | undefined {
    return this.#end;
  }

  get servedCount(): number {
    return this.#served;
  }

  /** The handshake was done. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  /** A read has ended: `advance` has something to do. */
  get isChanged(): boolean {
    return this.#isChanged;
  }

  /** What to poll the descriptor for. */
  get events(): number {
    const read = this.#mayRead() ? this.#readWait || POLLIN : 0;
    const write = this.#hasToSend() ? this.#writeWait || POLLOUT : 0;
    return read | write;
  }

  /** When `advance` is to be called at the latest. */
  get dueMs(): number {
    const { handshakeMs, answerMs, idleMs } = this.#options.limits;
    switch (this.#state) {
      case "handshake":
        return this.#sinceMs + handshakeMs;
      case "lingering":
        return this.#sinceMs + LINGER_MS;
      case "ended":
        return NEVER;
    }
    const head = this.#answers.head;
    if (head === undefined) {
      return this.#sinceMs + (this.#input.isEmpty ? idleMs : answerMs);
    }
    if (head.bytes === undefined) {
      return this.#headSinceMs + answerMs * READ_SHARE;
    }
    return Math.min(this.#progressMs + answerMs, this.#wholeDueMs(head.bytes));
  }

  /** The first answer that needs a buffer. */
  get wantsBuffer(): boolean {
    return this.#answers.unread !== undefined;
  }

  get buffersHeld(): number {
    return this.#answers.buffersHeld;
  }

  /** Begins the read of that answer, if there is a buffer for it. */
  takeBuffer(): boolean {
    const answer = this.#answers.unread;
    assert(answer !== undefined, "a buffer is given to who wants one");
    answer.buffer = this.#options.reads.begin(answer.stripe, answer.place, this);
    return answer.buffer >= 0;
  }

  /** Since when the client has taken nothing of an answer that is there; Infinity when there is none. */
  get stalledSinceMs(): number {
    const head = this.#answers.head;
    return this.buffersHeld > 0 && head?.bytes !== undefined ? this.#progressMs : NEVER;
  }

  /** Whether the client took something of what the system keeps for it, which is no reason yet to send it more. */
  notesProgress(nowMs: number): boolean {
    const untaken = untakenBytes(this.fd);
    const isLess = untaken < this.#untakenBytes;
    this.#untakenBytes = untaken;
    if (isLess) {
      this.#progressMs = nowMs;
    }
    return isLess;
  }

  /** Does all that can be done without waiting. True when there is more to do at once, in the next turn. */
  advance(nowMs: number, readyEvents: number): boolean {
    this.#nowMs = nowMs;
    this.#isChanged = false;
    if ((readyEvents & this.#readWait) !== 0 || readyEvents > (POLLIN | POLLOUT)) {
      this.#readWait = 0;
    }
    if ((readyEvents & this.#writeWait) !== 0 || readyEvents > (POLLIN | POLLOUT)) {
      this.#writeWait = 0;
    }
    if (this.#state === "handshake") {
      this.#shakeHands();
    }
    const hasMore = this.#converse();
    if (this.#end === undefined && nowMs >= this.dueMs) {
      this.#timeOut();
    }
    const isGone = readyEvents > (POLLIN | POLLOUT);
    if (this.#end === undefined && isGone && !this.#mayRead()) {
      this.#finish(false, "the client left before its answers");
    }
    this.#options.counts.setInFlight(this.#answers.count);
    return hasMore && this.#end === undefined;
  }

  readEnded(buffer: number, result: number): void {
    const answer = this.#answers.waitingFor(buffer);
    if (answer === undefined) {
      return; // dropped behind another answer that failed with the same read
    }
    this.#isChanged = true;
    const { reads, answers } = this.#options;
    if (result < 0) {
      this.#fail(
        this.#answers.indexOf(answer),
        `stripe ${answer.stripe} cannot be read: ${errnoText(result)}`,
      );
    } else if (answer.isSparse && reads.isZero(buffer)) {
      this.#answers.freeBuffer(answer);
      answer.bytes = answers.status(STATUS.ZERO);
    } else {
      const address = reads.answerAt(buffer);
      answer.bytes = { status: STATUS.OK, address, lengthBytes: reads.answerBytes };
    }
  }

  /** What went wrong on this side; told once. */
  takeFailure(): string | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }

  /** Nothing more is read; the session ends when its answers are sent. */
  stop(nowMs: number): void {
    this.#isStopping = true;
    this.#nowMs = nowMs;
    this.#input.clear();
    if (this.#end === undefined && (this.#state === "handshake" || this.#answers.count === 0)) {
      this.#finish(false, "the server stops");
    }
  }

  /** Ends the session, whatever is under way. */
  abort(reason: string): void {
    if (this.#end === undefined) {
      this.#finish(true, reason);
    }
  }

  [Symbol.dispose](): void {
    this.#answers.drop(0);
    this.#state = "ended";
    this.#options.stream[Symbol.dispose]();
  }

  // --- internal: states ---

  #mayRead(): boolean {
    if (this.#state === "serving") {
      const hasRoom = this.#answers.count < ANSWERS_MAX && !this.#answers.isClosed;
      return hasRoom && !this.#isInputOver && !this.#isStopping;
    }
    return this.#state !== "ended";
  }

  #hasToSend(): boolean {
    return this.#state === "handshake"
      ? this.#writeWait !== 0
      : this.#state === "serving" && this.#answers.head?.bytes !== undefined;
  }

  #finish(isFailure: boolean, reason: string): void {
    this.#end = { isFailure, reason };
    this.#state = "ended";
    this.#answers.drop(0);
  }

  #timeOut(): void {
    const head = this.#answers.head;
    if (this.#state === "handshake") {
      this.#finish(true, "the handshake took too long");
    } else if (this.#state === "lingering") {
      this.#finish(false, "the last answer was sent");
    } else if (head === undefined) {
      const isIdle = this.#input.isEmpty;
      this.#finish(!isIdle, isIdle ? "it was idle" : "a request did not become whole in time");
    } else if (head.bytes === undefined) {
      this.#fail(0, `stripe ${head.stripe} was not read in time`);
      this.#converse();
    } else if (this.#nowMs >= this.#wholeDueMs(head.bytes) || !this.notesProgress(this.#nowMs)) {
      this.#finish(true, "it takes its answers too slowly");
    }
  }

  #wholeDueMs(bytes: AnswerBytes): number {
    const wholeMs = this.#options.limits.answerMs + bytes.lengthBytes / BYTES_PER_MS_MIN;
    return this.#headReadyMs + wholeMs;
  }

  #shakeHands(): void {
    const { stream } = this.#options;
    const result = stream.handshake();
    if (result === STREAM_READY) {
      this.#state = "serving";
      this.#hasBegun = true;
      this.#options.counts.begin();
      this.#sinceMs = this.#nowMs;
      this.#readWait = 0;
      this.#writeWait = 0;
    } else if (result === WANT_READ) {
      this.#readWait = POLLIN;
      this.#writeWait = 0;
    } else if (result === WANT_WRITE) {
      this.#writeWait = POLLOUT;
    } else {
      const why = result === 0 ? "the client left" : stream.problem(result);
      this.#finish(result !== 0, `the handshake failed: ${why}`);
    }
  }

  /** Reads, answers and sends until the stream, a buffer or a read has to be waited for, or the turn is over. */
  #converse(): boolean {
    let sent = 0;
    for (let round = 0; this.#state === "serving" || this.#state === "lingering"; round++) {
      if (round === TURN_ROUNDS) {
        return true;
      }
      const isFed = this.#read();
      this.#takeRequests();
      const bytes = this.#send();
      sent += bytes;
      if (sent >= TURN_BYTES) {
        return true;
      }
      if (!isFed && bytes === 0) {
        break;
      }
    }
    if (this.#isInputOver && this.#state === "serving" && this.#answers.count === 0) {
      this.#finish(false, "the client left");
    }
    return false;
  }

  // --- internal: requests ---

  #read(): boolean {
    if (!this.#mayRead() || this.#readWait !== 0) {
      return false;
    }
    if (this.#state === "lingering") {
      this.#input.clear(); // nobody answers any more
    }
    const { address, lengthBytes } = this.#input.room;
    if (lengthBytes === 0) {
      return false; // whole requests are taken first
    }
    const result = this.#options.stream.read(address, lengthBytes);
    if (result > 0) {
      this.#noteInput();
      this.#input.add(result);
      return true;
    }
    if (result === WANT_READ || result === WANT_WRITE) {
      this.#readWait = result === WANT_READ ? POLLIN : POLLOUT;
      return false;
    }
    this.#endInput(result);
    return false;
  }

  /** The time of a request runs from its first byte. */
  #noteInput(): void {
    if (this.#answers.count === 0 && this.#input.isEmpty && this.#state === "serving") {
      this.#sinceMs = this.#nowMs;
    }
  }

  #endInput(result: number): void {
    if (result < 0) {
      const isReset = result === ECONNRESET;
      const why = isReset ? "the client reset it" : this.#options.stream.problem(result);
      this.#finish(!isReset, why);
    } else if (this.#answers.count === 0) {
      this.#finish(false, "the client left");
    } else {
      this.#isInputOver = true; // it may still take its answers
    }
  }

  #takeRequests(): void {
    while (
      this.#state === "serving" &&
      this.#answers.count < ANSWERS_MAX &&
      !this.#answers.isClosed
    ) {
      const request = this.#input.take();
      if (request === undefined) {
        return;
      }
      this.#sinceMs = this.#nowMs; // of the next request's first byte, if it is there
      this.#options.counts.request(request.opcode, this.#nowMs);
      this.#answer(request.opcode, request.stripe);
    }
  }

  #answer(opcode: number, stripe: number): void {
    const { reads, answers } = this.#options;
    const isSparse = opcode === OPCODE.READ_SPARSE;
    const isRead = isSparse || opcode === OPCODE.READ;
    const place = isRead ? reads.placeOf(stripe) : "disk";
    if (isRead && typeof place === "string") {
      this.#answers.add({ stripe, place, isSparse });
    } else {
      const bytes = typeof place === "number" ? answers.status(place) : answers.to(opcode);
      this.#answers.add({ bytes, isLast: false });
    }
    if (this.#answers.count === 1) {
      this.#beginHead();
    }
  }

  // --- internal: answers ---

  #beginHead(): void {
    this.#sentBytes = 0;
    this.#headSinceMs = this.#nowMs;
    this.#headReadyMs = this.#nowMs;
    this.#progressMs = this.#nowMs;
    this.#isHeadReady = this.#answers.head?.bytes !== undefined;
  }

  /** Bytes sent. */
  #send(): number {
    let sent = 0;
    while (this.#state === "serving" && this.#writeWait === 0 && sent < TURN_BYTES) {
      const head = this.#answers.head;
      if (head?.bytes === undefined) {
        break;
      }
      if (!this.#isHeadReady) {
        this.#isHeadReady = true;
        this.#headReadyMs = this.#nowMs;
        this.#progressMs = this.#nowMs;
      }
      const count = this.#write(head.bytes);
      sent += count;
      if (count > 0 && this.#sentBytes === head.bytes.lengthBytes) {
        this.#endHead(head, head.bytes.status);
      }
    }
    return sent;
  }

  #write(bytes: AnswerBytes): number {
    const { stream } = this.#options;
    const left = bytes.lengthBytes - this.#sentBytes;
    const result = stream.write(bytes.address + this.#sentBytes, left);
    if (result > 0) {
      this.#sentBytes += result;
      this.#progressMs = this.#nowMs;
      this.#options.counts.sent(result, this.#nowMs);
      return result;
    }
    if (result === WANT_READ || result === WANT_WRITE) {
      this.#writeWait = result === WANT_READ ? POLLIN : POLLOUT;
      this.#untakenBytes = untakenBytes(this.fd);
    } else {
      const isGone = result === 0 || result === EPIPE || result === ECONNRESET;
      this.#finish(!isGone, isGone ? "the client left" : stream.problem(result));
    }
    return 0;
  }

  #endHead(head: Answer, status: number): void {
    this.#options.counts.answered(status, head.buffer >= 0);
    this.#answers.shift();
    this.#served += 1;
    this.#sinceMs = this.#nowMs;
    this.#beginHead();
    if (head.isLast || (this.#isStopping && this.#answers.count === 0)) {
      this.#state = "lingering";
    }
  }

  /** The answer at `index` becomes the last one, and says that the server failed. */
  #fail(index: number, reason: string): void {
    this.#failure = reason;
    this.#answers.drop(index);
    const bytes = this.#options.answers.status(STATUS.SERVER_ERROR);
    this.#answers.add({ bytes, isLast: true });
    this.#input.clear();
    if (index === 0) {
      this.#beginHead();
    }
  }
}

// --- internal ---

const EPIPE = -32;
const ECONNRESET = -104;
