import { expect, test } from "bun:test";
import {
  answerHeadBytes,
  decodeSize,
  decodeWord,
  encodeDigest,
  encodeFeatures,
  encodeRead,
  encodeRequest,
  encodeSizedHead,
  encodeVersion,
  OPCODE,
  requestBytes,
  requestedStripe,
  STATUS,
  statusText,
} from "./stripe-protocol.ts";

test.each([
  [OPCODE.METADATA, "00"],
  [OPCODE.HELLO, "02"],
  [OPCODE.FEATURES, "10"],
  [OPCODE.METADATA_DIGEST, "12"],
])("request %p: one byte", (opcode, hex) => {
  const target = new Uint8Array(8);
  const length = encodeRequest(target, 3, opcode);
  expect(target.subarray(3, 3 + length).toHex()).toBe(hex);
  expect(requestBytes(opcode)).toBe(1);
});

test.each([
  [OPCODE.READ, 0, "010000000000000000"],
  [OPCODE.READ, 0x01_0203_0405, "010504030201000000"],
  [OPCODE.READ_SPARSE, 2 ** 53 - 1, "11ffffffffffff1f00"],
])("read %p of stripe %p: opcode and a little-endian number", (opcode, stripe, hex) => {
  const target = new Uint8Array(12);
  expect(encodeRead({ target, offset: 2, opcode, stripe })).toBe(9);
  expect(target.subarray(2, 11).toHex()).toBe(hex);
  expect(requestBytes(opcode)).toBe(9);
  expect(requestedStripe(target, 2)).toBe(stripe);
});

test("a read of the largest number there is: a stripe that no disk has", () => {
  const request = Uint8Array.from([OPCODE.READ, ...new Uint8Array(8).fill(0xff)]);
  expect(requestedStripe(request, 0)).toBeGreaterThan(2 ** 53);
});

test("an opcode that is not known: taken as one byte", () => {
  expect([0x03, 0x13, 0xaa, 0xff].map(requestBytes)).toEqual([1, 1, 1, 1]);
});

test("answers: status, then what the opcode has", () => {
  const target = new Uint8Array(40);
  expect(encodeVersion(target, 0)).toBe(5);
  expect(target.subarray(0, 5).toHex()).toBe("0001000000");
  expect(encodeFeatures(target, 1, 3)).toBe(5);
  expect(target.subarray(1, 6).toHex()).toBe("0003000000");
  expect(decodeWord(target, 1)).toBe(3);
  expect(encodeSizedHead(target, 2, 2 ** 20)).toBe(9);
  expect(target.subarray(2, 11).toHex()).toBe("000000100000000000");
  expect(decodeSize(target, 2)).toBe(2 ** 20);
  const digest = new Uint8Array(32).fill(7);
  expect(encodeDigest(target, 3, digest)).toBe(33);
  expect(target.subarray(3, 36).toHex()).toBe(`00${"07".repeat(32)}`);
});

test("the head of an answer: as long as its opcode has it", () => {
  const opcodes = [OPCODE.METADATA, OPCODE.READ, OPCODE.READ_SPARSE, OPCODE.HELLO];
  expect(opcodes.map(answerHeadBytes)).toEqual([9, 9, 9, 5]);
  expect([OPCODE.FEATURES, OPCODE.METADATA_DIGEST].map(answerHeadBytes)).toEqual([5, 33]);
});

test("a size of 2^53 or more: refused", () => {
  const head = Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0x20, 0]);
  expect(() => decodeSize(head, 0)).toThrow("out of range");
});

test("statuses in words: known ones are explained, others are numbers", () => {
  expect(statusText(STATUS.OUT_OF_RANGE)).toBe("status 0x01 (no such stripe)");
  expect(statusText(0x42)).toBe("status 0x42");
});
