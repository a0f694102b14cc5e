/** One vhost-user connection from the front end's side: messages with descriptors, each wait bounded. */
import { errnoText, UbiError } from "../errors.ts";
import { clockNs } from "../ffi/event.ts";
import { closeDescriptor, connectSocket, MessageChannel, POLLIN, PollSet } from "../ffi/socket.ts";
import {
  decodeHeader,
  decodeU64,
  encodeMessage,
  encodeU64,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  requestName,
} from "../formats/vhost-user.ts";

const SOCKET_PATH_BYTES_MAX = 107;
const NO_PAYLOAD = new Uint8Array(0);

export class Connection implements Disposable {
  readonly fd: number;
  readonly #path: string;
  readonly #timeoutMs: number;
  readonly #channel = new MessageChannel(HEADER_BYTES + PAYLOAD_BYTES_MAX);
  readonly #poll = new PollSet(1);
  /** REPLY_ACK was negotiated: every request is answered. */
  isAcknowledging = false;
  /** What may keep the other side from answering. */
  #timeoutHint = "";
  #isDisposed = false;

  /** @throws UbiError E_SOCKET */
  constructor(path: string, timeoutMs: number) {
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
      throw new UbiError("E_SOCKET", `socket path ${path} exceeds ${SOCKET_PATH_BYTES_MAX} bytes`);
    }
    this.#path = path;
    this.#timeoutMs = timeoutMs;
    this.fd = connectSocket(path);
    if (this.fd < 0) {
      throw new UbiError(
        "E_SOCKET",
        `cannot connect to ${path}: ${errnoText(this.fd)}; is the backend running?`,
      );
    }
    this.#poll.watch(0, this.fd);
  }

  /** A request that the protocol answers. @throws UbiError E_BENCH, E_PROTOCOL */
  ask(request: number, payload: Uint8Array = NO_PAYLOAD): Uint8Array {
    const { reply, descriptors } = this.askForDescriptors(request, payload);
    descriptors.forEach(closeDescriptor);
    return reply;
  }

  /** As `ask`; what descriptors came with the answer are the caller's. */
  askForDescriptors(
    request: number,
    payload: Uint8Array,
  ): { readonly reply: Uint8Array; readonly descriptors: readonly number[] } {
    this.#send(request, 0, payload, []);
    const descriptors: number[] = [];
    return { reply: this.#receiveReply(request, descriptors), descriptors };
  }

  /** A request without an answer of its own; its acknowledgement is awaited where negotiated. */
  command(
    request: number,
    payload: Uint8Array = NO_PAYLOAD,
    descriptors: readonly number[] = [],
  ): void {
    this.#send(request, this.isAcknowledging ? FLAG_NEED_REPLY : 0, payload, descriptors);
    if (this.isAcknowledging) {
      const result = decodeU64(this.#receiveReply(request, []));
      if (result !== 0n) {
        throw new UbiError("E_PROTOCOL", `the backend refuses ${requestName(request)}`);
      }
    }
  }

  commandU64(request: number, value: bigint, descriptors: readonly number[] = []): void {
    this.command(request, encodeU64(value), descriptors);
  }

  askU64(request: number): bigint {
    return decodeU64(this.ask(request));
  }

  /** As `askU64`, where no answer has come on this connection yet: a backend serves one front end at a time. */
  askFirst(request: number): bigint {
    this.#timeoutHint =
      "; another front end may be connected, or this may be another socket than vhost_socket";
    const answer = this.askU64(request);
    this.#timeoutHint = "";
    return answer;
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      closeDescriptor(this.fd);
      this.#poll[Symbol.dispose]();
      this.#channel[Symbol.dispose]();
    }
  }

  // --- internal ---

  /** A message is far smaller than a socket's buffer, and few are under way: this does not block. */
  #send(request: number, flags: number, payload: Uint8Array, descriptors: readonly number[]): void {
    const message = encodeMessage(request, flags, payload);
    this.#channel.bytes.set(message);
    const sent = this.#channel.send(this.fd, 0, message.length, descriptors);
    if (sent !== message.length) {
      throw this.#failed(request, sent < 0 ? errnoText(sent) : `only ${sent} bytes were taken`);
    }
  }

  /** Descriptors that come along are added to the list. */
  #receiveReply(request: number, descriptors: number[]): Uint8Array {
    const deadlineNs = clockNs() + this.#timeoutMs * 1e6;
    const bytes = this.#channel.bytes;
    this.#receiveExactly(request, 0, HEADER_BYTES, deadlineNs, descriptors);
    const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
    this.#receiveExactly(request, HEADER_BYTES, header.sizeBytes, deadlineNs, descriptors);
    if (header.request !== request || (header.flags & FLAG_REPLY) === 0) {
      const got = requestName(header.request);
      throw new UbiError("E_PROTOCOL", `the answer to ${requestName(request)} is one to ${got}`);
    }
    return bytes.slice(HEADER_BYTES, HEADER_BYTES + header.sizeBytes);
  }

  #receiveExactly(
    request: number,
    offset: number,
    lengthBytes: number,
    deadlineNs: number,
    descriptors: number[],
  ): void {
    for (let done = 0; done < lengthBytes; ) {
      const leftMs = Math.ceil((deadlineNs - clockNs()) / 1e6);
      if (leftMs <= 0) {
        throw this.#failed(request, `no answer within ${this.#timeoutMs} ms${this.#timeoutHint}`);
      }
      if (this.#poll.wait(leftMs) <= 0) {
        continue;
      }
      if (this.#poll.events(0) === 0) {
        continue;
      }
      const got = this.#channel.receive(this.fd, offset + done, lengthBytes - done, descriptors);
      if (got <= 0) {
        const isEnd = got === 0 || (this.#poll.events(0) & POLLIN) === 0;
        throw this.#failed(request, isEnd ? "the backend closed the connection" : errnoText(got));
      }
      done += got;
    }
  }

  #failed(request: number, why: string): UbiError {
    return new UbiError("E_BENCH", `${requestName(request)} failed on ${this.#path}: ${why}`);
  }
}
