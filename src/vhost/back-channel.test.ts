/** The channel to a front end whose other end is in the test's hands. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { openDescriptors } from "../../tests/support/open-descriptors.ts";
import { socketPair } from "../../tests/support/socket-pair.ts";
import { createEvent } from "../ffi/event.ts";
import { closeDescriptor, MessageChannel } from "../ffi/socket.ts";
import { BACKEND_REQUEST, encodeMessage, encodeU64, FLAG_REPLY } from "../formats/vhost-user.ts";
import { BackChannel } from "./back-channel.ts";

const { CONFIG_CHANGE_MSG } = BACKEND_REQUEST;
const ACCEPTED = encodeMessage(CONFIG_CHANGE_MSG, FLAG_REPLY, encodeU64(0n));
const REFUSED = encodeMessage(CONFIG_CHANGE_MSG, FLAG_REPLY, encodeU64(1n));

let openAtStart: number;
let channel: BackChannel;
let ownFd: number;
const peer = new MessageChannel(4096);

beforeEach(() => {
  openAtStart = openDescriptors();
  const { own, given } = socketPair();
  ownFd = own;
  channel = new BackChannel(given);
});

afterEach(() => {
  channel[Symbol.dispose]();
  closeDescriptor(ownFd);
  expect(openDescriptors()).toBeLessThanOrEqual(openAtStart);
});

test("a change is told with or without the wish for an answer", () => {
  channel.tellConfigChange(true);
  channel.tellConfigChange(false);
  const got = peer.receive(ownFd, 0, 4096, []);
  expect([...peer.bytes.subarray(0, got)]).toEqual([
    ...[2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
    ...[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
  ]);
});

test.each([
  { answer: ACCEPTED, what: "done" },
  { answer: REFUSED, what: "refused" },
] as const)("an answer in pieces: $what", ({ answer, what }) => {
  channel.tellConfigChange(true);
  for (const byte of answer.subarray(0, answer.length - 1)) {
    send(Uint8Array.of(byte));
    expect(channel.receive()).toBe("none");
  }
  send(answer.subarray(answer.length - 1));
  expect(channel.receive()).toBe(what);
});

test("the answer to an earlier message is none to the last one, also when that is sent in its middle", () => {
  channel.tellConfigChange(true);
  send(REFUSED.subarray(0, 7));
  expect(channel.receive()).toBe("none");
  channel.tellConfigChange(true);
  send(REFUSED.subarray(7));
  expect(channel.receive()).toBe("none");
  send(ACCEPTED);
  expect(channel.receive()).toBe("done");
});

test.each([
  { what: "an answer that nobody asked for", bytes: ACCEPTED, asks: 0 },
  { what: "a request", bytes: encodeMessage(CONFIG_CHANGE_MSG, 0, encodeU64(0n)), asks: 1 },
  { what: "an answer to something else", bytes: encodeMessage(3, 4, encodeU64(0n)), asks: 1 },
  { what: "another version", bytes: Uint8Array.from({ length: 20 }, () => 0), asks: 1 },
  { what: "noise", bytes: new Uint8Array(64).fill(0xff), asks: 1 },
])("$what: a mistake of the front end", ({ bytes, asks }) => {
  for (let i = 0; i < asks; i++) {
    channel.tellConfigChange(true);
  }
  send(bytes);
  expect(() => channel.receive()).toThrow(expect.objectContaining({ code: "E_PROTOCOL" }));
});

test("a socket that is said to be readable and gives nothing is of no use", () => {
  expect(() => channel.receive()).toThrow("it is readable, and nothing comes");
});

test("descriptors that come with an answer are closed", () => {
  channel.tellConfigChange(true);
  const event = createEvent();
  const open = openDescriptors();
  send(ACCEPTED, [event, event]);
  expect(channel.receive()).toBe("done");
  expect(openDescriptors()).toBe(open);
  closeDescriptor(event);
});

test("a front end that reads nothing: the message is not sent, and nobody waits", () => {
  const flood = () => {
    for (let i = 0; i < 100_000; i++) {
      channel.tellConfigChange(true);
    }
  };
  expect(flood).toThrow(expect.objectContaining({ code: "E_SOCKET" }));
});

test("a front end that has gone: neither way, and no signal ends the process", () => {
  closeDescriptor(ownFd);
  expect(() => channel.receive()).toThrow("it was closed");
  expect(() => channel.tellConfigChange(true)).toThrow("does not take messages");
});

// --- internal ---

function send(bytes: Uint8Array, descriptors: readonly number[] = []): void {
  peer.bytes.set(bytes);
  expect(peer.send(ownFd, 0, bytes.length, descriptors)).toBe(bytes.length);
}
