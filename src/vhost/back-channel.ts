/**
 * The socket over which the back end asks something of the front end (SET_BACKEND_REQ_FD): here one thing, to read the
 * configuration space again. Whoever answers it reads that space over the other socket meanwhile, so nothing waits for
 * an answer: it is taken when it comes. A front end that reads or answers nothing loses the channel, and nothing else.
 *
 *   back end -- CONFIG_CHANGE_MSG, NEED_REPLY if REPLY_ACK --> front end -- GET_CONFIG --> (the other socket)
 *            <------------- REPLY, 0 for success ------------
 */
import { fstatSync } from "node:fs";
import { errnoText, UbiError } from "../errors.ts";
import { closeDescriptor, MessageChannel } from "../ffi/socket.ts";
import {
  BACKEND_REQUEST,
  decodeHeader,
  decodeU64,
  encodeMessage,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  HEADER_BYTES,
} from "../formats/vhost-user.ts";
import { closeDescriptors } from "./connection.ts";

/** What became of a message: the front end did what it says, or could not, or has not answered yet. */
export type ChannelAnswer = "done" | "refused" | "none";

const REPLY_BYTES = HEADER_BYTES + 8;
/** In the buffer: what is sent lies behind what comes in. */
const SENT_AT = REPLY_BYTES;
/** Readable without bytes is a socket that is none of a front end's (errors of TCP wait there for ever): no busy loop over it. */
const WHY_LOST: ReadonlyMap<number, string> = new Map([
  [0, "it was closed"],
  [-11, "it is readable, and nothing comes"],
]);

export class BackChannel implements Disposable {
  readonly fd: number;
  readonly #channel = new MessageChannel(SENT_AT + HEADER_BYTES);
  /** Of the reply that is coming in. */
  #received = 0;
  /** Messages whose answer is still to come. */
  #unanswered = 0;

  /** @param fd a socket, which belongs to the channel from here on. @throws UbiError E_PROTOCOL for anything else */
  constructor(fd: number) {
    if (!fstatSync(fd).isSocket()) {
      this.#channel[Symbol.dispose]();
      throw new UbiError("E_PROTOCOL", "SET_BACKEND_REQ_FD: what was passed is no socket");
    }
    this.fd = fd;
  }

  /**
   * Tells that the configuration space has changed.
   * @param needsReply REPLY_ACK was negotiated
   * @throws UbiError E_SOCKET when the front end does not take it
   */
  tellConfigChange(needsReply: boolean): void {
    const flags = needsReply ? FLAG_NEED_REPLY : 0;
    const message = encodeMessage(BACKEND_REQUEST.CONFIG_CHANGE_MSG, flags, new Uint8Array(0));
    this.#channel.bytes.set(message, SENT_AT);
    const sent = this.#channel.send(this.fd, SENT_AT, message.length, []);
    if (sent !== message.length) {
      const why = sent < 0 ? errnoText(sent) : "it takes a part of it only";
      throw new UbiError("E_SOCKET", `the front end does not take messages of the backend: ${why}`);
    }
    this.#unanswered += needsReply ? 1 : 0;
  }

  /**
   * Takes what has come: the answer to the last message, when it is whole. Call when the socket is readable.
   * @throws UbiError E_SOCKET when the front end closed the channel, E_PROTOCOL
   */
  receive(): ChannelAnswer {
    const strays: number[] = [];
    const left = REPLY_BYTES - this.#received;
    const result = this.#channel.receive(this.fd, this.#received, left, strays);
    closeDescriptors(strays);
    if (result <= 0) {
      const why = WHY_LOST.get(result) ?? errnoText(result);
      throw new UbiError("E_SOCKET", `the channel to the front end is of no use any more: ${why}`);
    }
    this.#received += result;
    if (this.#received < REPLY_BYTES) {
      return "none";
    }
    this.#received = 0;
    return this.#answer();
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
    this.#channel[Symbol.dispose]();
  }

  // --- internal ---

  #answer(): ChannelAnswer {
    const { bytes } = this.#channel;
    const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
    const isReply =
      header.request === BACKEND_REQUEST.CONFIG_CHANGE_MSG &&
      (header.flags & FLAG_REPLY) !== 0 &&
      header.sizeBytes === 8;
    if (!isReply || this.#unanswered === 0) {
      throw new UbiError("E_PROTOCOL", "the front end answers what it was not asked");
    }
    this.#unanswered -= 1;
    if (this.#unanswered > 0) {
      return "none"; // to an earlier message
    }
    return decodeU64(bytes.subarray(HEADER_BYTES, REPLY_BYTES)) === 0n ? "done" : "refused";
  }
}
