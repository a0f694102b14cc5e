import { expect, test } from "bun:test";
import { openEnvelope, sealEnvelope } from "./envelope.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const fromBase64 = (text: string) => Uint8Array.from(Buffer.from(text, "base64"));
const counting = (length: number) => Uint8Array.from({ length }, (_, i) => i);

// Made with independent libraries: KEK 00..1f, nonce a0..ab, content 00..3f.
const COMMON =
  "oKGio6Slpqeoqaqr5hl+LkHOBLhqbI3YC3fO0WC9SwOGolR7hBc8nWO2ax7yV2Xciwd1Gne1LuMlV63Wdyp0e1blLEl5ZzFlmE27j";

test.each([
  ["xts-key", `${COMMON}73vsD/ytpC9yU9+OJVsYUg=`],
  ["xts_key", `${COMMON}6IVefkKph7jG1gnhIoORFc=`],
  ["ubiblk_archive", `${COMMON}+Qx0uAJRx3A9BblGfbJLyQ=`],
])("the known envelope for %s opens", (name, envelope) => {
  const key = { kek: counting(32), context: bytes(name) };
  expect(openEnvelope(fromBase64(envelope), key)).toEqual(counting(64));
});

test("an envelope made for another name does not open", () => {
  const envelope = fromBase64(`${COMMON}73vsD/ytpC9yU9+OJVsYUg=`);
  const key = { kek: counting(32), context: bytes("xts_key") };
  expect(() => openEnvelope(envelope, key)).toThrow("not authentic");
});

test.each([0, 11, 12, 91])("an envelope with a changed byte at %d does not open", (offset) => {
  const envelope = fromBase64(`${COMMON}73vsD/ytpC9yU9+OJVsYUg=`);
  envelope[offset] = (envelope[offset] ?? 0) ^ 1;
  const key = { kek: counting(32), context: bytes("xts-key") };
  expect(() => openEnvelope(envelope, key)).toThrow("not authentic");
});

test("an envelope shorter than nonce and tag is refused", () => {
  const key = { kek: counting(32), context: bytes("k") };
  expect(() => openEnvelope(new Uint8Array(27), key)).toThrow("too short: 27 bytes");
});

test("a sealed content opens and is 28 bytes longer sealed", () => {
  const key = { kek: new Uint8Array(32).fill(0x11), context: bytes("test-aad") };
  const envelope = sealEnvelope(counting(40), key);
  expect(envelope).toHaveLength(68);
  expect(openEnvelope(envelope, key)).toEqual(counting(40));
});

test("an empty content can be sealed", () => {
  const key = { kek: counting(32), context: bytes("k") };
  expect(openEnvelope(sealEnvelope(new Uint8Array(), key), key)).toHaveLength(0);
});

test("the same content is sealed differently each time", () => {
  const key = { kek: counting(32), context: bytes("k") };
  expect(sealEnvelope(counting(8), key)).not.toEqual(sealEnvelope(counting(8), key));
});

test("a key of the wrong size is a programmer's error", () => {
  const key = { kek: counting(31), context: bytes("k") };
  expect(() => sealEnvelope(counting(8), key)).toThrow("a KEK has 32 bytes");
});
