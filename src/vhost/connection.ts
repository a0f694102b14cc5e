/**
 * Messages on a front end's socket: whole requests in, replies out. A message is read exactly, header
 * first, so that the descriptors that come along are its own. Nothing here waits without a bound.
 */
import { errnoText, UbiError } from "../errors.ts";
import { closeDescriptor, MessageChannel } from "../ffi/socket.ts";
import {
  decodeHeader,
  encodeMessage,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  HEADER_BYTES,
  MEMORY_REGIONS_MAX,
  PAYLOAD_BYTES_MAX,
} from "../formats/vhost-user.ts";

export interface Request {
  readonly request: number;
  readonly needsReply: boolean;
  readonly payload: Uint8Array;
  /** Whoever takes one removes it; `closeDescriptors` closes the rest. */
  readonly descriptors: number[];
}

/** How long the rest of a message, or room for a reply, is waited for. */
const MESSAGE_TIMEOUT_MS = 10_000;
/** Descriptors of one message: a memory table has the most. */
const DESCRIPTORS_MAX = MEMORY_REGIONS_MAX;
const RETRY_MS = 1;
const EAGAIN = -11;

export interface ConnectionOptions {
  readonly timeoutMs?: number;
  /** Ends every wait for the front end. */
  readonly isStopping?: () => boolean;
}

export class Connection implements Disposable {
  readonly fd: number;
  readonly #channel = new MessageChannel(HEADER_BYTES + PAYLOAD_BYTES_MAX);
  readonly #sleeper = new Int32Array(new SharedArrayBuffer(4));
  readonly #timeoutMs: number;
  readonly #isStopping: () => boolean;

  /** Takes over a connected, non-blocking socket. */
  constructor(fd: number, options: ConnectionOptions = {}) {
    this.fd = fd;
    this.#timeoutMs = options.timeoutMs ?? MESSAGE_TIMEOUT_MS;
    this.#isStopping = options.isStopping ?? (() => false);
  }

  /**
   * The next request, or undefined when the front end closed the connection between two messages.
   * Call when the socket is readable.
   * @throws UbiError E_PROTOCOL, E_SOCKET
   */
  receive(): Request | undefined {
    const descriptors: number[] = [];
    try {
      if (!this.#receiveBytes(0, HEADER_BYTES, descriptors, true)) {
        return undefined;
      }
      const header = decodeHeader(this.#channel.bytes.subarray(0, HEADER_BYTES));
      this.#receiveBytes(HEADER_BYTES, header.sizeBytes, descriptors, false);
      const payload = this.#channel.bytes.slice(HEADER_BYTES, HEADER_BYTES + header.sizeBytes);
      const needsReply = (header.flags & FLAG_NEED_REPLY) !== 0;
      return { request: header.request, needsReply, payload, descriptors };
    } catch (error) {
      closeDescriptors(descriptors);
      throw error;
    }
  }

  /** `descriptors` go with the first byte, and stay the caller's. @throws UbiError E_SOCKET */
  reply(request: number, payload: Uint8Array, descriptors: readonly number[] = []): void {
    const message = encodeMessage(request, FLAG_REPLY, payload);
    this.#channel.bytes.set(message);
    const deadline = performance.now() + this.#timeoutMs;
    let sent = 0;
    while (sent < message.length) {
      const passed = sent === 0 ? descriptors : [];
      const result = this.#channel.send(this.fd, sent, message.length - sent, passed);
      if (result === EAGAIN) {
        this.#pause(deadline, "the front end does not read its replies");
      } else if (result < 0) {
        throw new UbiError("E_SOCKET", `cannot reply to the front end: ${errnoText(result)}`);
      } else {
        sent += result;
      }
    }
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
    this.#channel[Symbol.dispose]();
  }

  // --- internal ---

  /** False at the end of the stream, which is only in order before a message's first byte. */
  #receiveBytes(
    offset: number,
    lengthBytes: number,
    descriptors: number[],
    mayEnd: boolean,
  ): boolean {
    const deadline = performance.now() + this.#timeoutMs;
    let received = 0;
    while (received < lengthBytes) {
      const at = offset + received;
      const result = this.#channel.receive(this.fd, at, lengthBytes - received, descriptors);
      if (result === EAGAIN) {
        this.#pause(deadline, "the front end stopped in the middle of a message");
      } else if (result < 0) {
        throw new UbiError("E_SOCKET", `cannot read from the front end: ${errnoText(result)}`);
      } else if (result === 0) {
        if (mayEnd && received === 0) {
          return false;
        }
        throw new UbiError("E_PROTOCOL", "the front end left in the middle of a message");
      } else {
        received += result;
      }
      if (descriptors.length > DESCRIPTORS_MAX) {
        const count = `more than ${DESCRIPTORS_MAX} descriptors`;
        throw new UbiError("E_PROTOCOL", `the front end passed ${count} with one message`);
      }
    }
    return true;
  }

  #pause(deadline: number, what: string): void {
    if (this.#isStopping()) {
      throw new UbiError("E_PROTOCOL", `${what}; gave up, as the backend is to stop`);
    }
    if (performance.now() > deadline) {
      throw new UbiError("E_PROTOCOL", `${what}; gave up after ${this.#timeoutMs / 1000} s`);
    }
    Atomics.wait(this.#sleeper, 0, 0, RETRY_MS);
  }
}

export function closeDescriptors(descriptors: readonly number[]): void {
  for (const fd of descriptors) {
    closeDescriptor(fd);
  }
}
