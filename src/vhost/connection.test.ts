import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDescriptors } from "../../tests/support/open-descriptors.ts";
import { createEvent } from "../ffi/event.ts";
import {
  acceptSocket,
  closeDescriptor,
  connectSocket,
  listenSocket,
  MessageChannel,
} from "../ffi/socket.ts";
import { decodeHeader, encodeMessage, encodeU64, REQUEST } from "../formats/vhost-user.ts";
import { Connection, closeDescriptors } from "./connection.ts";

const TIMEOUT_MS = 60;

let openAtStart: number;
let folder: string;
let peer: Peer;
let connection: Connection;
let isStopping: boolean;

beforeEach(() => {
  isStopping = false;
  openAtStart = openDescriptors();
  folder = mkdtempSync(join(tmpdir(), "ubiblk-connection-"));
  const path = join(folder, "socket");
  const listener = listenSocket(path, { mode: 0o600 }, 1);
  peer = new Peer(connectSocket(path));
  connection = new Connection(acceptSocket(listener), {
    timeoutMs: TIMEOUT_MS,
    isStopping: () => isStopping,
  });
  closeDescriptor(listener);
});

afterEach(() => {
  connection[Symbol.dispose]();
  peer[Symbol.dispose]();
  rmSync(folder, { recursive: true });
  expect(openDescriptors()).toBeLessThanOrEqual(openAtStart);
});

test("connection: a request without payload, and one with", () => {
  peer.send(encodeMessage(REQUEST.GET_FEATURES, 8, new Uint8Array(0)));
  peer.send(encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(7n)));
  expect(connection.receive()).toEqual({
    request: REQUEST.GET_FEATURES,
    needsReply: true,
    payload: new Uint8Array(0),
    descriptors: [],
  });
  expect(connection.receive()).toMatchObject({ needsReply: false, payload: encodeU64(7n) });
});

test("connection: several messages in one write are read one by one", () => {
  const message = encodeMessage(REQUEST.SET_OWNER, 0, new Uint8Array(0));
  peer.send(
    Buffer.concat([message, encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(1n)), message]),
  );
  const requests = [1, 2, 3].map(() => connection.receive()?.request);
  expect(requests).toEqual([REQUEST.SET_OWNER, REQUEST.SET_FEATURES, REQUEST.SET_OWNER]);
});

test("connection: a message in parts is put together", () => {
  const message = encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(0x1234n));
  peer.send(message.subarray(0, 5));
  peer.send(message.subarray(5, 15));
  peer.send(message.subarray(15));
  expect(connection.receive()?.payload).toEqual(encodeU64(0x1234n));
});

test("connection: descriptors belong to the message that they came with", () => {
  const message = encodeMessage(REQUEST.SET_VRING_KICK, 0, encodeU64(0n));
  const [first, second] = [createEvent(), createEvent()];
  peer.send(message, [first]);
  peer.send(message, [second, first]);
  closeDescriptors([first, second]);
  const counts = [1, 2].map(() => {
    const descriptors = connection.receive()?.descriptors ?? [];
    closeDescriptors(descriptors);
    return descriptors.length;
  });
  expect(counts).toEqual([1, 2]);
});

test("connection: the front end's leave between messages is its end", () => {
  peer.close();
  expect(connection.receive()).toBeUndefined();
});

test("connection: a leave in the middle of a message is a mistake", () => {
  peer.send(encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(1n)).subarray(0, 15));
  peer.close();
  expect(() => connection.receive()).toThrow("left in the middle");
});

test("connection: a message that stops half-way is given up, with its descriptors closed", () => {
  const event = createEvent();
  peer.send(encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(1n)).subarray(0, 11), [event]);
  closeDescriptor(event);
  const startMs = performance.now();
  expect(() => connection.receive()).toThrow("gave up after 0.06 s");
  expect(performance.now() - startMs).toBeLessThan(TIMEOUT_MS * 50);
});

test("connection: a stop ends the wait for the rest of a message", () => {
  peer.send(encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(1n)).subarray(0, 11));
  isStopping = true;
  expect(() => connection.receive()).toThrow("the backend is to stop");
});

test("connection: a payload that is too large is refused before it is read", () => {
  const message = encodeMessage(REQUEST.SET_FEATURES, 0, new Uint8Array(0));
  new DataView(message.buffer).setUint32(8, 4097, true);
  peer.send(message);
  expect(() => connection.receive()).toThrow("exceeds 4096");
});

test("connection: another version of the protocol is refused", () => {
  const message = encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(1n));
  message[4] = 2;
  peer.send(message);
  expect(() => connection.receive()).toThrow("version 2");
});

test("connection: 32 descriptors are taken, more are refused and closed", () => {
  const event = createEvent();
  const message = encodeMessage(REQUEST.SET_MEM_TABLE, 0, encodeU64(0n));
  peer.send(message, Array(32).fill(event));
  const descriptors = connection.receive()?.descriptors ?? [];
  expect(descriptors.length).toBe(32);
  closeDescriptors(descriptors);
  peer.send(message, Array(33).fill(event));
  closeDescriptor(event);
  expect(() => connection.receive()).toThrow("more than 32 descriptors");
});

test("connection: descriptors in many small parts add up to the same limit", () => {
  const event = createEvent();
  const message = encodeMessage(REQUEST.SET_MEM_TABLE, 0, encodeU64(0n));
  for (let i = 0; i < 4; i++) {
    peer.send(message.subarray(i, i + 1), Array(20).fill(event));
  }
  closeDescriptor(event);
  expect(() => connection.receive()).toThrow("more than 32 descriptors");
});

test("connection: a reply carries the reply flag and the request's number", () => {
  connection.reply(REQUEST.GET_FEATURES, encodeU64(5n));
  const bytes = peer.receive();
  expect(decodeHeader(bytes.subarray(0, 12))).toEqual({
    request: REQUEST.GET_FEATURES,
    flags: 1 | 4,
    sizeBytes: 8,
  });
  expect(bytes.subarray(12)).toEqual(encodeU64(5n));
});

test("connection: a front end that never reads its replies is given up", () => {
  const reply = () => connection.reply(REQUEST.GET_CONFIG, new Uint8Array(4096));
  expect(() => {
    for (let i = 0; i < 10_000; i++) {
      reply();
    }
  }).toThrow("does not read its replies");
});

test("connection: a reply to a front end that left is an error, not the end of the process", () => {
  peer.close();
  expect(() => connection.reply(REQUEST.GET_FEATURES, encodeU64(5n))).toThrow("cannot reply");
});

// --- internal ---

/** The front end's side of the socket. */
class Peer implements Disposable {
  readonly #fd: number;
  readonly #channel = new MessageChannel(65_536);
  #isOpen = true;

  constructor(fd: number) {
    this.#fd = fd;
  }

  send(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    this.#channel.bytes.set(bytes);
    expect(this.#channel.send(this.#fd, 0, bytes.length, descriptors)).toBe(bytes.length);
  }

  receive(): Uint8Array {
    const count = this.#channel.receive(this.#fd, 0, 65_536, []);
    return this.#channel.bytes.slice(0, count);
  }

  close(): void {
    if (this.#isOpen) {
      this.#isOpen = false;
      closeDescriptor(this.#fd);
    }
  }

  [Symbol.dispose](): void {
    this.close();
    this.#channel[Symbol.dispose]();
  }
}
