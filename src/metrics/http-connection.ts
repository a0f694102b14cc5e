/**
 * One HTTP client: one request in, one answer out, then the connection closes. All of it has one limit of time, so
 * that a client that sends or reads slowly holds its place, and one answer at most, for no longer than that.
 *
 *   reading --(head whole, wrong or too long)--> answering --(sent)--> closing --(end of stream or 1 s)--> closed
 *
 * Closing lingers because a socket closed with unread bytes may cost the peer the answer.
 */
import type { ClientConnection, ClientSocket } from "../rpc/client-server.ts";
import { type HttpRefusal, refusalAnswer } from "./http-answer.ts";
import { HEAD_BYTES_MAX, type HttpRequest, parseHead } from "./http-request.ts";

/** From the first moment to the last byte of the answer. */
export const CONVERSATION_MS = 10_000;

const LINGER_MS = 1_000;
/** Of a body, or of further requests, which nobody asked for: read and dropped. */
const SURPLUS_BYTES_MAX = 64 * 1024;

export interface HttpConnectionOptions {
  readonly socket: ClientSocket;
  /** The whole answer, head and body. */
  readonly answer: (request: HttpRequest) => string;
  readonly nowMs: () => number;
}

export class HttpConnection implements ClientConnection {
  readonly #options: HttpConnectionOptions;
  readonly #startMs: number;
  #state: "reading" | "answering" | "closing" | "closed" = "reading";
  #head = "";
  #outgoing = new Uint8Array(0);
  #hasEnded = false;
  #surplusBytes = 0;
  #closingMs = 0;

  constructor(options: HttpConnectionOptions) {
    this.#options = options;
    this.#startMs = options.nowMs();
  }

  get isServed(): boolean {
    return this.#state === "reading" || this.#state === "answering";
  }

  /** It has a limit of time already. */
  readonly idleMs = 0;

  receive(bytes: Uint8Array): void {
    if (this.#state !== "reading") {
      this.#surplusBytes += bytes.length;
      if (this.#surplusBytes > SURPLUS_BYTES_MAX) {
        this.#terminate();
      }
      return;
    }
    const room = HEAD_BYTES_MAX + 1 - this.#head.length;
    this.#head += Buffer.from(bytes.subarray(0, room)).toString("latin1");
    const request = parseHead(this.#head);
    if (request === "invalid") {
      this.#refuse("invalid", "this is no HTTP/1.1 request");
    } else if (request !== undefined) {
      this.#send(this.#options.answer(request));
    } else if (this.#head.length > HEAD_BYTES_MAX) {
      this.#refuse("too_long", `the head of a request has at most ${HEAD_BYTES_MAX} bytes`);
    }
  }

  finish(): void {
    this.#hasEnded = true;
    if (this.#state === "reading" || this.#state === "closing") {
      this.#terminate();
    }
  }

  drain(): void {
    if (this.#state === "answering") {
      this.#flush();
    }
  }

  closed(): void {
    this.#state = "closed";
    this.#outgoing = new Uint8Array(0);
  }

  refuse(message: string): void {
    if (this.#state === "reading") {
      this.#refuse("too_many", message);
    }
  }

  checkTime(): void {
    const nowMs = this.#options.nowMs();
    const isOver =
      this.#state === "closing"
        ? nowMs - this.#closingMs >= LINGER_MS
        : nowMs - this.#startMs >= CONVERSATION_MS;
    if (isOver) {
      this.#terminate();
    }
  }

  // --- internal ---

  #refuse(refusal: HttpRefusal, message: string): void {
    this.#send(refusalAnswer(refusal, message));
  }

  #send(text: string): void {
    this.#state = "answering";
    this.#head = "";
    this.#outgoing = new TextEncoder().encode(text);
    this.#flush();
  }

  #flush(): void {
    const written = this.#options.socket.write(this.#outgoing);
    if (written < 0) {
      this.#terminate();
      return;
    }
    this.#outgoing = this.#outgoing.subarray(written);
    if (this.#outgoing.length > 0) {
      return;
    }
    if (this.#hasEnded) {
      this.#terminate();
      return;
    }
    this.#state = "closing";
    this.#closingMs = this.#options.nowMs();
    this.#options.socket.shutdown();
  }

  #terminate(): void {
    if (this.#state !== "closed") {
      this.#state = "closed";
      this.#outgoing = new Uint8Array(0);
      this.#options.socket.terminate();
    }
  }
}
