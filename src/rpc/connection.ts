/**
 * One client: lines in, answers out, in order. A request is read only when the answer before it has left
 * for the kernel, so a client that does not read its answers holds one answer and the bytes that came
 * before its socket was paused, and no more. The same while a command is being carried out.
 *
 *   open --(end of stream)--> ended --(last answer sent)--> closed
 *     `--(limit, bad text)--> closing --(answer sent: half-closed; end of stream or 1 s)--> closed
 *
 * Closing lingers because a socket closed with unread bytes may cost the peer the last answer.
 */
import { assert } from "../errors.ts";
import { errorLine } from "./answer-lines.ts";
import type { ClientConnection, ClientSocket } from "./client-server.ts";
import { LINE_BYTES_MAX, type Line, LineReader } from "./line-reader.ts";

/** A client that sends no request and reads no answer for so long is told so and dropped. */
export const IDLE_MAX_MS = 300_000;

const LINGER_MS = 1_000;
/** One client's requests between two looks at the others. */
const REQUESTS_PER_TURN = 64;
/** More than ever comes in one piece: reached only if a paused socket went on reading. */
const PENDING_BYTES_MAX = 1024 * 1024;

export interface ConnectionOptions {
  readonly socket: ClientSocket;
  /** One line of answer, with its newline, for a request line. Rejects only for programmer errors. */
  readonly answer: (line: string) => string | Promise<string>;
  readonly nowMs: () => number;
  /** Calls back when the other clients had their turn. */
  readonly defer: (task: () => void) => void;
}

export class RpcConnection implements ClientConnection {
  readonly #options: ConnectionOptions;
  readonly #socket: ClientSocket;
  readonly #reader = new LineReader();
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  readonly #encoder = new TextEncoder();
  #state: "open" | "ended" | "closing" | "closed" = "open";
  #outgoing = new Uint8Array(0);
  #isPaused = false;
  /** A command is being carried out: its answer comes before anything else. */
  #isAwaiting = false;
  /** Nothing has come yet. */
  #isSilent = true;
  #activeMs: number;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#socket = options.socket;
    this.#activeMs = options.nowMs();
  }

  /** False from when the client is being dropped. */
  get isServed(): boolean {
    return this.#state === "open" || this.#state === "ended";
  }

  get idleMs(): number {
    const isBusy = this.#isAwaiting || this.#outgoing.length > 0;
    return isBusy ? 0 : this.#options.nowMs() - this.#activeMs;
  }

  /** Bytes came in. */
  receive(bytes: Uint8Array): void {
    if (this.#state !== "open") {
      return;
    }
    const isFirst = this.#isSilent;
    this.#isSilent = false;
    if (isFirst && isBinary(bytes)) {
      this.#close(errorLine("E_RPC_REQUEST", BINARY_RECEIVED));
      return;
    }
    this.#reader.push(bytes);
    if (this.#reader.pendingBytes > PENDING_BYTES_MAX) {
      this.#terminate();
    } else {
      this.#work();
    }
  }

  /** The client sends no more; what it asked for is still answered. */
  finish(): void {
    if (this.#state === "open") {
      this.#state = "ended";
      this.#work();
    } else if (this.#state === "closing") {
      this.#terminate();
    }
  }

  /** The socket takes bytes again. */
  drain(): void {
    if (this.#outgoing.length > 0 && this.#flush()) {
      this.#work();
    }
  }

  /** The socket is gone: nothing is sent to it any more. */
  closed(): void {
    this.#state = "closed";
    this.#outgoing = new Uint8Array(0);
  }

  /** Tells why the client is not served, then closes. */
  refuse(message: string): void {
    if (this.isServed) {
      this.#close(errorLine("E_RPC_LIMIT", message));
    }
  }

  /** Looks at the clock; to be called about once a second. */
  checkTime(): void {
    if (this.#isAwaiting && this.isServed) {
      return;
    }
    const quietMs = this.#options.nowMs() - this.#activeMs;
    if (this.#state === "closing" && quietMs >= LINGER_MS) {
      this.#terminate();
    } else if (this.#state !== "closing" && quietMs >= IDLE_MAX_MS) {
      if (this.#outgoing.length > 0) {
        this.#terminate(); // it would not read the reason either
      } else {
        this.refuse(`no request for ${IDLE_MAX_MS / 1000} s; connect again`);
      }
    }
  }

  // --- internal ---

  #work(): void {
    for (let turn = 0; turn < REQUESTS_PER_TURN; turn++) {
      if (!this.isServed) {
        return;
      }
      if (this.#outgoing.length > 0 || this.#isAwaiting) {
        this.#pause();
        return;
      }
      const line =
        this.#reader.next() ?? (this.#state === "ended" ? this.#reader.last() : undefined);
      if (line !== undefined) {
        this.#take(line);
      } else if (this.#state === "ended") {
        this.#terminate(); // all was read and all was sent
      } else {
        this.#resume();
        return;
      }
    }
    this.#pause();
    this.#options.defer(() => this.#work());
  }

  #take(line: Line): void {
    if (line.kind === "too_long") {
      const message = `invalid request: a line has at most ${LINE_BYTES_MAX} bytes`;
      this.#send(errorLine("E_RPC_LIMIT", message));
      return;
    }
    const text = this.#decode(line.bytes)?.trim();
    if (text === undefined) {
      this.#close("");
    } else if (text !== "") {
      this.#answer(text);
    }
  }

  #answer(text: string): void {
    const answer = this.#options.answer(text);
    if (typeof answer === "string") {
      this.#send(answer);
      return;
    }
    this.#isAwaiting = true;
    void answer.then((line) => {
      this.#isAwaiting = false;
      if (this.isServed) {
        this.#send(line);
        this.#work();
      }
    });
  }

  #decode(bytes: Uint8Array): string | undefined {
    try {
      return this.#decoder.decode(bytes);
    } catch (error) {
      if (error instanceof TypeError) {
        return undefined; // not UTF-8
      }
      throw error;
    }
  }

  #send(text: string): void {
    this.#activeMs = this.#options.nowMs();
    this.#outgoing = this.#encoder.encode(text);
    this.#flush();
  }

  /** Whether all went out. */
  #flush(): boolean {
    if (this.#outgoing.length > 0) {
      const written = this.#socket.write(this.#outgoing);
      if (written < 0) {
        this.#terminate();
        return false;
      }
      if (written > 0) {
        this.#outgoing = this.#outgoing.subarray(written);
        this.#activeMs = this.#options.nowMs();
      }
    }
    if (this.#outgoing.length > 0) {
      return false;
    }
    if (this.#state === "closing") {
      this.#socket.shutdown();
    }
    return true;
  }

  #close(lastWords: string): void {
    assert(this.#outgoing.length === 0, "the answer before is sent");
    const hasEnded = this.#state === "ended";
    this.#state = "closing";
    this.#resume(); // what still comes is read and dropped
    this.#send(lastWords);
    if (hasEnded && this.#outgoing.length === 0) {
      this.#terminate();
    }
  }

  #terminate(): void {
    if (this.#state === "closed") {
      return;
    }
    this.#state = "closed";
    this.#outgoing = new Uint8Array(0);
    this.#socket.terminate();
  }

  #pause(): void {
    if (!this.#isPaused) {
      this.#isPaused = true;
      this.#socket.pause();
    }
  }

  #resume(): void {
    if (this.#isPaused) {
      this.#isPaused = false;
      this.#socket.resume();
    }
  }
}

// --- internal ---

const BINARY_RECEIVED =
  "invalid request: bytes came, not JSON; a front end belongs at vhost_socket, not at rpc_socket";

/** A vhost-user message begins with a small number of 32 bits; without an answer its sender would wait for long. */
function isBinary(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && bytes.subarray(1, 4).every((byte) => byte === 0);
}
