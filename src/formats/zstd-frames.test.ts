import { expect, test } from "bun:test";
import { zstdCompressSync } from "node:zlib";
import { walkZstdFrames } from "./zstd-frames.ts";

const join = (...parts: readonly Uint8Array[]) => Uint8Array.from(Buffer.concat(parts));
const text = (length: number) => Uint8Array.from({ length }, (_, i) => (i * i) % 251);
/** Window descriptor 0x50, no size; a raw block of 3 bytes, a block that repeats one, both by hand. */
const BY_HAND = Uint8Array.fromHex("28b52ffd0050 180000 010203 230000 aa".replaceAll(" ", ""));
const SKIPPABLE = Uint8Array.fromHex("5f2a4d18 02000000 ffff".replaceAll(" ", ""));

test.each([0, 1, 255, 256, 65_791, 65_792, 1_000_000])(
  "a frame of %d bytes tells its size",
  (length) => {
    const frame = Uint8Array.from(Bun.zstdCompressSync(text(length)));
    expect(walkZstdFrames(frame)).toEqual({ frameCount: 1, contentBytes: length });
  },
);

test("several frames: sizes add up, and skippable ones do not count", () => {
  const frame = zstdCompressSync(text(1000));
  expect(walkZstdFrames(join(SKIPPABLE, frame, SKIPPABLE, frame))).toEqual({
    frameCount: 2,
    contentBytes: 2000,
  });
});

test("a frame without a size: the whole is of unknown size", () => {
  expect(walkZstdFrames(BY_HAND)).toEqual({ frameCount: 1, contentBytes: undefined });
  expect(walkZstdFrames(join(zstdCompressSync(text(5)), BY_HAND))).toEqual({
    frameCount: 2,
    contentBytes: undefined,
  });
});

test("a checksum belongs to its frame", () => {
  const frame = Uint8Array.fromHex("28b52ffd0450 010000 11223344".replaceAll(" ", ""));
  expect(walkZstdFrames(frame)?.frameCount).toBe(1);
  expect(walkZstdFrames(frame.subarray(0, -1))).toBeUndefined();
});

test("frames that are cut anywhere, or followed by anything, are none", () => {
  const frame = join(SKIPPABLE, zstdCompressSync(text(300)), BY_HAND);
  const ends = [SKIPPABLE.length + zstdCompressSync(text(300)).length, frame.length];
  for (let length = 0; length < frame.length; length += 1) {
    expect(walkZstdFrames(frame.subarray(0, length)) === undefined).toBe(!ends.includes(length));
  }
  expect(walkZstdFrames(join(frame, Uint8Array.of(0)))).toBeUndefined();
});

test.each([
  ["only a skippable frame", SKIPPABLE.toHex()],
  ["another magic", "28b52ffe0050010000"],
  ["a reserved block", "28b52ffd0050070000"],
  ["a skippable frame of 4 GiB", "502a4d18ffffffff00"],
])("%s is none", (_what, hex) => {
  expect(walkZstdFrames(Uint8Array.fromHex(hex))).toBeUndefined();
});
