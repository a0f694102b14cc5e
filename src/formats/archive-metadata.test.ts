import { expect, test } from "bun:test";
import { UbiError } from "../errors.ts";
import {
  ARCHIVE_METADATA_BYTES_MAX,
  type ArchiveMetadata,
  decodeArchiveMetadata,
  encodeArchiveMetadata,
  metadataHmacInput,
} from "./archive-metadata.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const base64 = (text: string) => Uint8Array.fromBase64(text);
const counting = Uint8Array.from({ length: 32 }, (_, i) => i);

/** Golden: neither enciphered nor compressed, keys in clear. */
const PLAIN: ArchiveMetadata = {
  stripeSectors: 2048,
  encryptionKey: undefined,
  compression: { kind: "none" },
  hmacKey: counting,
  metadataHmac: base64("BI3sqE9hV7m8XtyfgrXc/CVZ34gTfkvgKcR2ujpnxhE="),
};
const PLAIN_FILE =
  '{"format_version":1,"stripe_sector_count":2048,"encryption_key":null,"compression":"none",' +
  '"hmac_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",' +
  '"metadata_hmac":"BI3sqE9hV7m8XtyfgrXc/CVZ34gTfkvgKcR2ujpnxhE="}';

/** Golden: enciphered, zstd, both keys wrapped. */
const WRAPPED_KEY =
  "MzMzMzMzMzMzMzMzlZJDV9uDZD2jqfp8tjryORfZHiWbyJS96VsYlLKfmzv0B0WylN3DNV3Q32+LbM26N9SXaJExA3tu7TSCc9/wbzdNJ0jQaEA+xLbIdnZ4crU=";
const WRAPPED: ArchiveMetadata = {
  stripeSectors: 16,
  encryptionKey: base64(WRAPPED_KEY),
  compression: { kind: "zstd", level: 3 },
  hmacKey: base64(
    "IiIiIiIiIiIiIiIiF/YFSsTKmVjtNtQ3RKvn2g+C3/F+lLpcSlYQ8xX8exxfBHflTt/va0XkjthtV/yK",
  ),
  metadataHmac: base64("6a67nOX1rkjgBXs1+6u2LshVvM+WKD/Rvlu3qxyUo5w="),
};
const WRAPPED_FILE =
  `{"format_version":1,"stripe_sector_count":16,"encryption_key":"${WRAPPED_KEY}",` +
  '"compression":{"zstd":{"level":3}},' +
  '"hmac_key":"IiIiIiIiIiIiIiIiF/YFSsTKmVjtNtQ3RKvn2g+C3/F+lLpcSlYQ8xX8exxfBHflTt/va0XkjthtV/yK",' +
  '"metadata_hmac":"6a67nOX1rkjgBXs1+6u2LshVvM+WKD/Rvlu3qxyUo5w="}';

const decode = (text: string) => decodeArchiveMetadata(new TextEncoder().encode(text));
const replaced = (from: string, to: string) => {
  expect(PLAIN_FILE).toContain(from);
  return PLAIN_FILE.replace(from, to);
};

test("encode: the golden files, byte for byte", () => {
  expect(new TextDecoder().decode(encodeArchiveMetadata(PLAIN))).toBe(PLAIN_FILE);
  expect(new TextDecoder().decode(encodeArchiveMetadata(WRAPPED))).toBe(WRAPPED_FILE);
  expect(PLAIN_FILE).toHaveLength(211);
  expect(WRAPPED_FILE).toHaveLength(381);
});

test("decode: the golden files", () => {
  expect(decode(PLAIN_FILE)).toEqual(PLAIN);
  expect(decode(WRAPPED_FILE)).toEqual(WRAPPED);
});

test("authenticated bytes: the golden input of plain parameters", () => {
  expect(hex(metadataHmacInput(PLAIN))).toBe(
    "415243484956455f4d455441444154415f484d41435f56310100000000080000000000000000",
  );
});

test("authenticated bytes: with key and level they have the length of the golden input", () => {
  expect(metadataHmacInput(WRAPPED)).toHaveLength(142);
});

test("authenticated bytes: the constant that must never change", () => {
  const input = metadataHmacInput({
    stripeSectors: 128,
    encryptionKey: new Uint8Array(64).fill(123),
    compression: { kind: "zstd", level: 3 },
  });
  expect(new Bun.CryptoHasher("sha256").update(input).digest("hex")).toBe(
    "779dd6db5299da3d7d1354c10e82111bed78d6265604c3a918457e922a66d6b6",
  );
});

test("decode: keys in any order, spaces and unknown keys are accepted", () => {
  const text = ` { "extra" : [{"a":1},{"a":1}] , ${PLAIN_FILE.slice(1, -1).split(",").reverse().join(" ,\n ")} } `;
  expect(decode(text)).toEqual(PLAIN);
});

test("decode: without encryption_key and compression there is none", () => {
  const text = replaced('"encryption_key":null,"compression":"none",', "");
  expect(decode(text)).toEqual(PLAIN);
});

test.each([PLAIN_FILE, WRAPPED_FILE])(
  "decode: a changed bit is an error, or changes what is authenticated, file %#",
  (file) => {
    const bytes = new TextEncoder().encode(file);
    const whole = authenticated(bytes);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Uint8Array.from(bytes);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(authenticated(changed)).not.toBe(whole);
    }
  },
);

test("decode: without hmac_key and metadata_hmac they are empty", () => {
  const { hmacKey, metadataHmac } = decode('{"format_version":1,"stripe_sector_count":1}');
  expect([hmacKey.length, metadataHmac.length]).toEqual([0, 0]);
});

test("decode: extreme zstd levels that fit 32 bits are accepted", () => {
  for (const level of [2147483647, -2147483648]) {
    const text = replaced('"none"', `{"zstd":{"level":${level},"x":1}}`);
    expect(decode(text).compression).toEqual({ kind: "zstd", level });
  }
});

test.each([
  ["no JSON", "not-json", "not JSON"],
  ["no UTF-8 mark", `\ufeff${PLAIN_FILE}`, "not JSON"],
  ["a list", "[]", "not a JSON object"],
  ["null", "null", "not a JSON object"],
  ["nothing", "", "not JSON"],
  ["no version", replaced('"format_version":1,', ""), "missing field format_version"],
  ["an inherited name only", "{}", "missing field format_version"],
  [
    "version 99",
    replaced(":1,", ":99,"),
    "unsupported archive format version 99 (supported 1..=1)",
  ],
  ["version 0", replaced(":1,", ":0,"), "unsupported archive format version 0"],
  ["a version of text", replaced(":1,", ':"1",'), "format_version is not a whole number"],
  [
    "no stripe size",
    replaced('"stripe_sector_count":2048,', ""),
    "missing field stripe_sector_count",
  ],
  ["a negative stripe size", replaced("2048", "-1"), "stripe_sector_count is not a whole number"],
  ["half a stripe size", replaced("2048", "0.5"), "stripe_sector_count is not a whole number"],
  ["a stripe size beyond 2^53", replaced("2048", "9007199254740993"), "not a whole number"],
  ["a key of a number", replaced("null", "5"), "encryption_key is not text"],
  ["a key of noise", replaced("null", '"%%%"'), "encryption_key is not base64"],
  ["a key without padding", replaced("null", '"AAA"'), "encryption_key is not base64"],
  ["a key with spare bits", replaced("null", '"AAB="'), "encryption_key is not base64"],
  ["a key of the URL alphabet", replaced("null", '"__-_"'), "encryption_key is not base64"],
  ["a key on two lines", replaced("null", '"AAAA\\nAAAA"'), "encryption_key is not base64"],
  [
    "an hmac_key of null",
    replaced('"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="', "null"),
    "not text",
  ],
  ["a bare zstd", replaced('"none"', '"zstd"'), "compression is neither"],
  ["snappy", replaced('"none"', '"snappy"'), "compression is neither"],
  ["null compression", replaced('"none"', "null"), "compression is neither"],
  [
    "two compressions",
    replaced('"none"', '{"zstd":{"level":3},"none":1}'),
    "compression is neither",
  ],
  ["zstd without level", replaced('"none"', '{"zstd":{}}'), "missing field level"],
  [
    "a level of 2^31",
    replaced('"none"', '{"zstd":{"level":2147483648}}'),
    "invalid value for field level",
  ],
  ["a level below", replaced('"none"', '{"zstd":{"level":-2147483649}}'), "i32"],
  ["a level of 1.5", replaced('"none"', '{"zstd":{"level":1.5}}'), "i32"],
  ["a key twice", replaced("{", '{"hmac_key":"",'), 'duplicate field "hmac_key"'],
  ["a key twice, escaped", replaced("{", '{"hmac\\u005fkey":"",'), 'duplicate field "hmac_key"'],
  [
    "a level twice",
    replaced('"none"', '{"zstd":{"level":3,"level":4}}'),
    'duplicate field "level"',
  ],
])("decode: %s is refused", (_what, text, message) => {
  expect(() => decode(text)).toThrow(message);
  expect(() => decode(text)).toThrow(expect.objectContaining({ code: "E_ARCHIVE" }));
});

test("decode: a file that is too long is refused before it is parsed", () => {
  const text = `${PLAIN_FILE}${" ".repeat(ARCHIVE_METADATA_BYTES_MAX)}`;
  expect(() => decode(text)).toThrow("at most 65536 are read");
});

test("decode: deep nesting ends in an error or is ignored, never in a crash", () => {
  const deep = 30_000;
  const text = replaced("{", `{"x":${"[".repeat(deep)}${"]".repeat(deep)},`);
  expect(decode(text)).toEqual(PLAIN);
  expect(() => decode(`${"[".repeat(60_000)}`)).toThrow("not JSON");
});

test("decode: an error about JSON shows nothing of the file, which may hold keys", () => {
  expect(() => decode(replaced("null", "hunter2"))).toThrow(/^it is not JSON in UTF-8$/);
});

function authenticated(bytes: Uint8Array): string {
  try {
    const metadata = decodeArchiveMetadata(bytes);
    const { hmacKey, metadataHmac } = metadata;
    return [metadataHmacInput(metadata), hmacKey, metadataHmac].map((part) => part.toHex()).join();
  } catch (error) {
    expect(error).toBeInstanceOf(UbiError);
    return "an error";
  }
}
