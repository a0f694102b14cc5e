import { expect, test } from "bun:test";
import { newArchiveKeys, unwrapKey, wrapKey } from "./archive-keys.ts";

const kek = new Uint8Array(32).fill(0x11);
const key = Uint8Array.from({ length: 32 }, (_, i) => i);
/** Golden: `key` under `kek` with the nonce 12 x 0x22. */
const WRAPPED = Uint8Array.fromBase64(
  "IiIiIiIiIiIiIiIiF/YFSsTKmVjtNtQ3RKvn2g+C3/F+lLpcSlYQ8xX8exxfBHflTt/va0XkjthtV/yK",
);
const unwrap = (stored: Uint8Array, withKek: Uint8Array | undefined) =>
  unwrapKey({ stored, what: "hmac_key", keyBytes: 32, kek: withKek });

test("new keys: random, and a cipher key only where stripes are enciphered", () => {
  const [plain, encrypted] = [newArchiveKeys(false), newArchiveKeys(true)];
  expect(plain.xtsKey).toBeUndefined();
  expect(encrypted.xtsKey).toHaveLength(64);
  expect(encrypted.hmacKey).toHaveLength(32);
  expect(encrypted.hmacKey).not.toEqual(plain.hmacKey);
});

test("unwrap: the golden key", () => {
  expect(unwrap(WRAPPED, kek)).toEqual(key);
});

test("unwrap: the golden cipher key", () => {
  const stored = Uint8Array.fromBase64(
    "MzMzMzMzMzMzMzMzlZJDV9uDZD2jqfp8tjryORfZHiWbyJS96VsYlLKfmzv0B0WylN3DNV3Q32+LbM26N9SXaJExA3tu7TSCc9/wbzdNJ0jQaEA+xLbIdnZ4crU=",
  );
  expect(unwrapKey({ stored, what: "encryption_key", keyBytes: 64, kek })).toEqual(
    new Uint8Array(64).fill(0x11).fill(0x22, 32),
  );
});

test("wrap: each time other bytes, 28 more than the key, that unwrap to it", () => {
  const [one, two] = [wrapKey(key, kek), wrapKey(key, kek)];
  expect(one).toHaveLength(60);
  expect(one).not.toEqual(two);
  expect(unwrap(one, kek)).toEqual(key);
  expect(unwrap(two, kek)).toEqual(key);
});

test("wrap: without a KEK the key itself", () => {
  expect(wrapKey(key, undefined)).toEqual(key);
  expect(unwrap(key, undefined)).toEqual(key);
});

test.each([
  ["wrapped, and no KEK here", WRAPPED, undefined, "this config has none; set archive_kek"],
  ["in clear, and a KEK here", key, kek, "lies there in clear though this config has archive_kek"],
  ["another KEK", WRAPPED, new Uint8Array(32), "archive_kek is not the key it was wrapped with"],
  ["a changed byte", WRAPPED.with(20, 0), kek, "cannot be unwrapped"],
  ["empty", new Uint8Array(), undefined, "has 0 bytes, and 32 are expected"],
  ["10 bytes under a KEK", new Uint8Array(10), kek, "has 10 bytes, and 60 are expected"],
  ["31 bytes", key.subarray(1), undefined, "has 31 bytes, and 32 are expected"],
])("unwrap: %s is refused", (_what, stored, withKek, message) => {
  expect(() => unwrap(stored, withKek)).toThrow(message);
  expect(() => unwrap(stored, withKek)).toThrow(expect.objectContaining({ code: "E_ARCHIVE_KEY" }));
});
