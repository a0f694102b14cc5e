import { describe, expect, test } from "bun:test";
import { zstdCompressSync } from "node:zlib";
import { Arena } from "../ffi/arena.ts";
import type { Compression } from "../formats/archive-metadata.ts";
import {
  type EncodedStripe,
  StripeDecoder,
  StripeEncoder,
  stripeObjectBytesMax,
  stripeObjectKey,
} from "./stripe-object.ts";

const STRIPE_SECTORS = 16;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
const XTS_KEY = new Uint8Array(64).fill(0x11).fill(0x22, 32);
const NONE: Compression = { kind: "none" };
const ZSTD: Compression = { kind: "zstd", level: 3 };
const VARIANTS = [
  ["plain", NONE, undefined],
  ["encrypted", NONE, XTS_KEY],
  ["zstd", ZSTD, undefined],
  ["zstd and encrypted", ZSTD, XTS_KEY],
] as const;

const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest();
const filled = (byte: number) => new Uint8Array(STRIPE_BYTES).fill(byte);
const text = () => Uint8Array.from({ length: STRIPE_BYTES }, (_, i) => (i * i) % 251);
const noise = () => crypto.getRandomValues(new Uint8Array(STRIPE_BYTES));

function encode(
  data: Uint8Array,
  compression: Compression,
  xtsKey: Uint8Array | undefined,
  stripe = 5,
): EncodedStripe {
  using encoder = new StripeEncoder({ compression, xtsKey, stripeSectors: STRIPE_SECTORS });
  const encoded = encoder.encode(stripe, data);
  if (encoded === "zero") {
    throw new Error("the stripe is zero");
  }
  return { ...encoded, bytes: encoded.bytes.slice() };
}

function decode(
  object: Uint8Array,
  compression: Compression["kind"],
  xtsKey: Uint8Array | undefined,
  hash: Uint8Array = sha256(object),
): Uint8Array {
  using decoder = new StripeDecoder({ compression, xtsKey, stripeSectors: STRIPE_SECTORS });
  const into = filled(0xee);
  decoder.decode(5, hash, object, into);
  return into;
}

/** An object of a compressed archive that is not encrypted. */
function objectOf(frames: Uint8Array, size = frames.length): Uint8Array {
  const object = new Uint8Array(Math.ceil((frames.length + 4) / 512) * 512);
  new DataView(object.buffer).setUint32(0, size, true);
  object.set(frames, 4);
  return object;
}

/** As streaming encoders write it: without the size of its content. */
function frameWithoutSize(data: Uint8Array): Uint8Array {
  const raw = Uint8Array.of((data.length << 3) | 1, data.length >> 5, data.length >> 13);
  return Uint8Array.from(
    Buffer.concat([Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50), raw, data]),
  );
}

test("encode: golden names of a plain and of an encrypted object", () => {
  const data = filled(0xaa);
  expect(stripeObjectKey(encode(data, NONE, undefined).hash.toHex())).toBe(
    "data/62e8ebf079693d28be171a54b272578d7a6a9d707a93b7adaf4f9a349bba5409",
  );
  expect(encode(data, NONE, XTS_KEY).hash.toHex()).toBe(
    "dc981f6d7361ff2d8b8cb2016daf953e57f6a610d32c732c2cf24e14a070a413",
  );
  expect(data).toEqual(filled(0xaa));
});

describe.each(VARIANTS)("%s", (_name, compression, xtsKey) => {
  test("what was encoded is decoded, and its hash is that of its bytes", () => {
    for (const data of [text(), noise(), filled(1)]) {
      const { bytes, hash } = encode(data, compression, xtsKey);
      expect(hash).toEqual(Uint8Array.from(sha256(bytes)));
      expect(bytes.length <= stripeObjectBytesMax(compression.kind, STRIPE_SECTORS)).toBe(true);
      expect(decode(bytes, compression.kind, xtsKey, hash)).toEqual(data);
    }
  });

  test("a stripe of zeros has no object; one with a last byte has", () => {
    using encoder = new StripeEncoder({ compression, xtsKey, stripeSectors: STRIPE_SECTORS });
    const data = filled(0);
    expect(encoder.encode(0, data)).toBe("zero");
    data[STRIPE_BYTES - 1] = 1;
    expect(encoder.encode(0, data)).not.toBe("zero");
  });

  test("an object with another hash is refused by name", () => {
    const { bytes } = encode(text(), compression, xtsKey);
    const hash = new Uint8Array(32).fill(0xcd);
    expect(() => decode(bytes, compression.kind, xtsKey, hash)).toThrow(
      `object data/${"cd".repeat(32)} of stripe 5: sha256 hash mismatch`,
    );
  });

  test("the object is left as it is", () => {
    const { bytes } = encode(text(), compression, xtsKey);
    const before = bytes.slice();
    decode(bytes, compression.kind, xtsKey);
    expect(bytes).toEqual(before);
  });

  test("data and result may lie in memory of ours", () => {
    using arena = new Arena(2 * STRIPE_BYTES);
    const data = arena.bytes(STRIPE_BYTES).view;
    const into = arena.bytes(STRIPE_BYTES).view;
    data.set(text());
    const { bytes, hash } = encode(data, compression, xtsKey);
    using decoder = new StripeDecoder({
      compression: compression.kind,
      xtsKey,
      stripeSectors: STRIPE_SECTORS,
    });
    decoder.decode(5, hash, bytes, into);
    expect(into).toEqual(text());
  });
});

test("encode: an encrypted stripe under another number is another object", () => {
  const first = encode(text(), NONE, XTS_KEY, 1);
  const second = encode(text(), NONE, XTS_KEY, 2);
  expect(first.hash).not.toEqual(second.hash);
});

test("encode: compressed objects are a size, a frame and zeros up to whole sectors", () => {
  const { bytes } = encode(text(), ZSTD, undefined);
  const size = new DataView(bytes.buffer).getUint32(0, true);
  expect(bytes.length).toBe(Math.ceil((size + 4) / 512) * 512);
  expect(bytes.subarray(4, 8).toHex()).toBe("28b52ffd");
  expect(bytes.subarray(4 + size).every((byte) => byte === 0)).toBe(true);
});

test("encode: noise that grows is told where it is encrypted, and is padded with noise that stays the same", () => {
  const data = noise();
  const encrypted = encode(data, ZSTD, XTS_KEY);
  expect(encrypted.isOverlong).toBe(true);
  expect(encrypted.bytes.length).toBe(STRIPE_BYTES + 512);
  expect(encode(data, ZSTD, XTS_KEY).hash).toEqual(encrypted.hash);
  const asStored = decodeSectors(encrypted.bytes);
  const end = 4 + new DataView(asStored.buffer).getUint32(0, true);
  const padding = asStored.subarray(end);
  expect(padding.length > 400).toBe(true);
  expect(new Set(padding).size > 64).toBe(true);
  expect(encode(data, ZSTD, undefined).isOverlong).toBe(false);
  expect(encode(data, NONE, XTS_KEY).isOverlong).toBe(false);
  expect(encode(text(), ZSTD, XTS_KEY).isOverlong).toBe(false);
});

/** What an encrypted object of stripe 5 holds, padding included: it begins with sector 80, as stripe 2 of 40 does. */
function decodeSectors(object: Uint8Array): Uint8Array {
  using decoder = new StripeDecoder({ compression: "none", xtsKey: XTS_KEY, stripeSectors: 40 });
  const into = new Uint8Array(40 * 512);
  decoder.decode(2, sha256(object), object, into);
  return into.subarray(0, object.length);
}

test("encode: only whole stripes and levels that zstd has", () => {
  using encoder = new StripeEncoder({ compression: NONE, xtsKey: undefined, stripeSectors: 16 });
  expect(() => encoder.encode(0, new Uint8Array(512))).toThrow("as a whole");
  for (const level of [0, 23, 1.5]) {
    const compression: Compression = { kind: "zstd", level };
    const options = { compression, xtsKey: undefined, stripeSectors: 16 };
    expect(() => new StripeEncoder(options)).toThrow("1 to 22");
  }
});

describe("decode: accepted", () => {
  const half = text().subarray(0, STRIPE_BYTES / 2);
  const whole = Uint8Array.from([...half, ...new Uint8Array(STRIPE_BYTES / 2)]);
  const skippable = Uint8Array.of(0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3);
  test.each([
    ["less than a stripe, plain", half, "none", undefined],
    ["nothing, plain", new Uint8Array(), "none", undefined],
    ["less than a stripe, compressed", objectOf(zstdCompressSync(half)), "zstd", undefined],
    ["a frame without a size", objectOf(frameWithoutSize(half)), "zstd", undefined],
    [
      "padding of any bytes",
      objectOf(zstdCompressSync(half)).map((b, i) => (i > 4300 ? 7 : b)),
      "zstd",
      undefined,
    ],
    [
      "several frames",
      objectOf(
        Buffer.concat([
          zstdCompressSync(half.subarray(0, 512)),
          frameWithoutSize(half.subarray(512)),
        ]),
      ),
      "zstd",
      undefined,
    ],
    [
      "a skippable frame",
      objectOf(Buffer.concat([skippable, zstdCompressSync(half)])),
      "zstd",
      undefined,
    ],
  ] as const)("%s", (what, object, compression, xtsKey) => {
    const expected = what === "nothing, plain" ? filled(0) : whole;
    expect(decode(object, compression, xtsKey)).toEqual(expected);
  });

  test("nothing, encrypted", () => {
    expect(decode(new Uint8Array(), "none", XTS_KEY)).toEqual(filled(0));
  });
});

describe("decode: refused", () => {
  const frame = Uint8Array.from(zstdCompressSync(text()));
  const sized = (size: number) => {
    const header = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0);
    new DataView(header.buffer).setBigUint64(5, BigInt(size), true);
    return header;
  };
  const bomb = Uint8Array.from(zstdCompressSync(new Uint8Array(1 << 20)));
  const bombWithoutSize = Uint8Array.of(
    ...[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50],
    ...Array.from({ length: 64 }, (_, i) => [2 | (i === 63 ? 1 : 0), 0, 0x10, 0xaa]).flat(),
  );
  test.each([
    ["plain, longer than a stripe", new Uint8Array(STRIPE_BYTES + 1), "none", "exceeds the 8192"],
    ["3 bytes", new Uint8Array(3), "zstd", "too short to contain size header"],
    ["16 zeros", new Uint8Array(16), "zstd", "failed to decompress"],
    [
      "a size beyond the object",
      objectOf(frame, 60_000),
      "zstd",
      "compressed size 60000 exceeds available data",
    ],
    ["a size of 2^32 - 1", objectOf(frame, 2 ** 32 - 1), "zstd", "exceeds available data"],
    ["a frame that is cut", objectOf(frame, frame.length - 1), "zstd", "failed to decompress"],
    ["bytes behind the frame", objectOf(frame, frame.length + 1), "zstd", "failed to decompress"],
    ["noise", objectOf(noise().subarray(0, 1000)), "zstd", "failed to decompress"],
    [
      "only a skippable frame",
      objectOf(Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0)),
      "zstd",
      "failed to decompress",
    ],
    [
      "3 bytes of content",
      objectOf(zstdCompressSync(Uint8Array.of(1, 2, 3))),
      "zstd",
      "not a multiple of sector size",
    ],
    [
      "more than a stripe",
      objectOf(zstdCompressSync(new Uint8Array(STRIPE_BYTES + 512))),
      "zstd",
      "failed to decompress",
    ],
    ["a bomb that tells its size", objectOf(bomb), "zstd", "failed to decompress"],
    ["a bomb that does not", objectOf(bombWithoutSize), "zstd", "failed to decompress"],
    ["a frame that claims 2^50 bytes", objectOf(sized(2 ** 50)), "zstd", "failed to decompress"],
    ["a frame that claims more than it has", objectOf(sized(512)), "zstd", "failed to decompress"],
    ["a longer object than any writer makes", new Uint8Array(60_000), "zstd", "exceeds the"],
  ] as const)("%s", (_what, object, compression, message) => {
    expect(() => decode(object, compression, undefined)).toThrow(message);
    expect(() => decode(object, compression, undefined)).toThrow(
      expect.objectContaining({ code: "E_ARCHIVE_DATA" }),
    );
  });

  test("encrypted, half a sector", () => {
    expect(() => decode(new Uint8Array(700), "none", XTS_KEY)).toThrow(
      "data size 700 is not a multiple of sector size 512",
    );
    expect(() => decode(new Uint8Array(700), "zstd", XTS_KEY)).toThrow("multiple of sector size");
  });
});

test("decode: the largest stripe of all, compressed and encrypted", () => {
  const stripeSectors = 2 ** 17;
  const data = new Uint8Array(stripeSectors * 512).fill(7);
  using encoder = new StripeEncoder({ compression: ZSTD, xtsKey: XTS_KEY, stripeSectors });
  using decoder = new StripeDecoder({ compression: "zstd", xtsKey: XTS_KEY, stripeSectors });
  const encoded = encoder.encode(3, data);
  const into = new Uint8Array(data.length);
  if (encoded !== "zero") {
    decoder.decode(3, encoded.hash, encoded.bytes, into);
  }
  expect(Buffer.compare(into, data)).toBe(0);
});
