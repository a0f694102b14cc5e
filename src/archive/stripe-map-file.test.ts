import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { mappingHmacPrefix } from "../formats/stripe-mapping.ts";
import {
  mappingFileHead,
  mappingFileTail,
  writeElements,
} from "../formats/stripe-mapping-encode.ts";
import type { ArchiveKeys } from "./archive-keys.ts";
import { StripeMap } from "./stripe-map.ts";
import { decodeMapping, encodeMapping } from "./stripe-map-file.ts";

const STRIPE_SECTORS = 16;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
const hmacKey = Uint8Array.from({ length: 32 }, (_, i) => i);
const xtsKey = new Uint8Array(64).fill(0x11).fill(0x22, 32);
const PLAIN: ArchiveKeys = { hmacKey, xtsKey: undefined };
const ENCRYPTED: ArchiveKeys = { hmacKey, xtsKey };
const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

/** {0: Zero, 5: 32 x 0xAB}. */
function exampleMap(): StripeMap {
  const map = StripeMap.create(6);
  map.setZero(0);
  map.setStored(5, new Uint8Array(32).fill(0xab));
  return map;
}

const encode = (map: StripeMap, keys: ArchiveKeys, sizeBytes = map.stripeEnd * STRIPE_BYTES) =>
  encodeMapping({ map, keys, sizeBytes, stripeSectors: STRIPE_SECTORS });
const decode = (file: Uint8Array, keys: ArchiveKeys) =>
  decodeMapping(file, { keys, stripeSectors: STRIPE_SECTORS });
const kindsOf = (map: StripeMap) => Array.from({ length: map.stripeEnd }, (_, i) => map.kind(i));

test("encode: the golden plain file", () => {
  const file = encode(exampleMap(), PLAIN);
  expect(file).toHaveLength(708);
  expect(file.subarray(-32).toHex()).toBe(
    "9ae7e75a416d8f642920111f5e2fa957039a5a51e02926c8a49f654898e6fad8",
  );
  expect(sha256(file)).toBe("b96900eebeee59b51bc475390ff67710360c031aaaf3cd96c6c117cbcb3e8aa6");
});

test.each(["vaes512", "vaes256", "aesni", "portable"])(
  "encode: the golden encrypted file, where %s ciphers",
  (provider) => {
    const before = process.env.UBIBLK_XTS_PROVIDER;
    process.env.UBIBLK_XTS_PROVIDER = provider;
    const file = encode(exampleMap(), ENCRYPTED);
    process.env.UBIBLK_XTS_PROVIDER = before ?? "";
    expect(file).toHaveLength(1134);
    expect(file.subarray(-32).toHex()).toBe(
      "99bc3b1b9c6ce028576093b28759025a96bbb7f764664d60be9a290644860899",
    );
    expect(sha256(file)).toBe("5d0b37079887fada044f424f1f12891c39c12764ac82cad148a29be733aab822");
  },
);

test("encode: the golden file of no stripes", () => {
  const file = encode(StripeMap.create(0), PLAIN);
  expect(file).toHaveLength(662);
  expect(sha256(file)).toBe("0dfdef1ef65bc38acb2bf4cccce85c65e0ea8a0cef39eddd04d31272faa1d49b");
});

test.each([
  ["plain", PLAIN],
  ["encrypted", ENCRYPTED],
])("decode: what was written, %s", (_what, keys) => {
  const { map, sizeBytes } = decode(encode(exampleMap(), keys), keys);
  expect(kindsOf(map)).toEqual(["zero", "absent", "absent", "absent", "absent", "stored"]);
  expect(map.hashHex(5)).toBe("ab".repeat(32));
  expect(sizeBytes).toBe(6 * STRIPE_BYTES);
});

test("decode: a file of several pieces", () => {
  const stripes = 20_000; // 0.9 MB of plaintext
  const map = StripeMap.create(stripes);
  const hash = new Uint8Array(32);
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    new Uint32Array(hash.buffer).fill(Math.imul(stripe + 1, 0x9e3779b1));
    map.setStored(stripe, hash);
  }
  const read = decode(encode(map, ENCRYPTED), ENCRYPTED).map;
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    expect(read.hashHex(stripe)).toBe(map.hashHex(stripe));
  }
});

test("size: a disk that is not whole stripes gets its size back", () => {
  for (const keys of [PLAIN, ENCRYPTED]) {
    const sizeBytes = 5 * STRIPE_BYTES + 512;
    expect(decode(encode(exampleMap(), keys, sizeBytes), keys).sizeBytes).toBe(sizeBytes);
  }
});

test("size: an absent last stripe becomes a zero stripe, so that the disk keeps its size", () => {
  const map = StripeMap.create(9);
  const read = decode(encode(map, PLAIN), PLAIN);
  expect(read.sizeBytes).toBe(9 * STRIPE_BYTES);
  expect(read.map.kind(8)).toBe("zero");
  expect(read.map.kind(7)).toBe("absent");
});

test("size: one that does not end in the last stripe is refused", () => {
  const map = exampleMap();
  const file = encode(map, PLAIN, 5 * STRIPE_BYTES + 512);
  // The same file read as one of stripes of half the size: its key is right, its size is not.
  expect(() => decodeMapping(file, { keys: PLAIN, stripeSectors: 8 })).toThrow(
    "41472 bytes, which do not end in its last stripe 5",
  );
});

test("size: a map with other stripes than its disk is a mistake of the caller", () => {
  expect(() => encode(exampleMap(), PLAIN, 5 * STRIPE_BYTES)).toThrow("the stripes of its disk");
});

test("HMAC: any changed byte is noticed, also in what nobody reads", () => {
  const whole = encode(exampleMap(), ENCRYPTED);
  for (let at = 0; at < whole.length; at += 1) {
    const file = whole.slice();
    file[at] = (file[at] ?? 0) ^ 0x01;
    expect(() => decode(file, ENCRYPTED)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^E_ARCHIVE(_TAMPERED)?$/) }),
    );
  }
});

test("HMAC: another key, and a file that is cut, are noticed", () => {
  const other = { ...PLAIN, hmacKey: new Uint8Array(32) };
  expect(() => decode(encode(exampleMap(), PLAIN), other)).toThrow(
    expect.objectContaining({ code: "E_ARCHIVE_TAMPERED" }),
  );
  const file = encode(exampleMap(), PLAIN);
  expect(() => decode(file.slice(0, -1), PLAIN)).toThrow("not enough data");
});

test("cipher: a wrong key gives no map", () => {
  const wrong = { hmacKey, xtsKey: new Uint8Array(64).fill(9) };
  expect(() => decode(encode(exampleMap(), ENCRYPTED), wrong)).toThrow("CBOR");
});

test("a file of a few bytes that maps the last stripe of all takes no memory for those before it", () => {
  const stripeEnd = 2 ** 26;
  const sparse = StripeMap.create(stripeEnd);
  sparse.setZero(stripeEnd - 1);
  const file = encodeMapping({
    map: sparse,
    stripeSectors: 64,
    sizeBytes: stripeEnd * 64 * 512,
    keys: PLAIN,
  });
  expect(file.length).toBeLessThan(2048);
  const before = process.memoryUsage.rss();
  const { map } = decodeMapping(file, { stripeSectors: 64, keys: PLAIN });
  let mapped = 0;
  for (let stripe = 0; stripe < map.stripeEnd; stripe += 1) {
    mapped += map.kind(stripe) === "absent" ? 0 : 1;
  }
  expect(mapped).toBe(1);
  expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 2 ** 20); // the map is 256 MiB
});

/** The file around a plaintext of any writer, with the right tag. */
function authentic(padded: Uint8Array, plaintextBytes: number): Uint8Array {
  const tag = createHmac("sha256", hmacKey)
    .update(mappingHmacPrefix(plaintextBytes))
    .update(padded)
    .digest();
  const elements = new Uint8Array(padded.length * 2);
  const end = writeElements(padded, elements, 0);
  const head = mappingFileHead(padded.length);
  const tail = mappingFileTail(plaintextBytes, tag);
  return Uint8Array.from(Buffer.concat([head, elements.subarray(0, end), tail]));
}

/** {0: "Zero"}: 7 bytes in a sector. */
function smallPlaintext(sectors = 1): Uint8Array {
  const padded = new Uint8Array(sectors * 512);
  padded.set([0xa1, 0x00, 0x64, ...Buffer.from("Zero")]);
  return padded;
}

describe("surplus", () => {
  const sizes = [["whole stripes", 6 * STRIPE_BYTES] as const, ["a size", 41_472] as const];
  test.each(sizes)("of what is written here there is none: %s", (_what, sizeBytes) => {
    for (const keys of [PLAIN, ENCRYPTED]) {
      expect(decode(encode(exampleMap(), keys, sizeBytes), keys).surplus).toEqual([]);
    }
    expect(decode(authentic(smallPlaintext(), 7), PLAIN).surplus).toEqual([]);
  });

  test("bytes behind the file's map are read past, and counted", () => {
    const file = Uint8Array.from([...encode(exampleMap(), ENCRYPTED), 0, 0, 0xa5]);
    const { map, surplus } = decode(file, ENCRYPTED);
    expect(surplus).toEqual(["3 bytes behind its end"]);
    expect(map.hashHex(5)).toBe("ab".repeat(32));
  });

  test("fields of other names and longer forms are counted", () => {
    const file = encode(exampleMap(), PLAIN);
    const longer = Uint8Array.from([0xc1, 0xb8, 0x06, ...file.subarray(1), 0x61, 0x78, 0x00]);
    expect(decode(longer, PLAIN).surplus).toEqual(["5 bytes more than its fields need"]);
  });

  test("bytes behind the map in the plaintext are counted", () => {
    expect(decode(authentic(smallPlaintext(), 17), PLAIN).surplus).toEqual([
      "10 bytes behind the map of stripes in its ciphertext",
    ]);
  });

  test("padding of anything but zeros, and of more sectors than there need be, is counted", () => {
    const padded = smallPlaintext(3);
    padded.set([1, 0, 2], 700);
    expect(decode(authentic(padded, 7), PLAIN).surplus).toEqual([
      "1026 bytes of padding that do not belong there",
    ]);
  });
});
